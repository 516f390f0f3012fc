"""``donod-fast show``: records as the model sees them, with their masks."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING, Annotated, Any

import typer

from donod_fast.cli.config import checked, load_options
from donod_fast.cli.options import from_dataclasses
from donod_fast.data.settings import STDIN, CorpusSettings, MaskSettings, with_data
from donod_fast.data.types import Status
from donod_fast.errors import InputError, suggest
from donod_fast.models.settings import ModelSource
from donod_fast.reports.page_options import PageOptions
from donod_fast.system.options import option, options_of
from donod_fast.system.terminal import print_styled
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    from donod_fast.data.viewing import RowView

ROWS = "Rows"
OUTPUT = "Output"
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")
_MANY = 1000


@dataclass(frozen=True, slots=True)
class RowChoice:
    """Which rows are shown.

    Attributes:
        rows: at most so many rows, from the beginning.
        row: row numbers from 0, and ranges such as ``3-9``, in this order.
        status: only rows with this status.
        id: only rows with one of these ids.

    Raises:
        InputError: the ways to choose rows exclude each other, or a value cannot be read.
    """

    rows: int = option(5, help="Show at most this many rows.", panel=ROWS, minimum=1)
    row: tuple[str, ...] = option(
        (), help="Show this row, numbered from 0 as in the scores, or a range such as 3-9; may be repeated.", panel=ROWS
    )
    status: str | None = option(
        None, help="Show rows with this status, for example all_masked.", panel=ROWS,
        completions=tuple(str(status) for status in Status),
    )  # fmt: skip
    id: tuple[str, ...] = option((), help="Show the row with this id; may be repeated.", panel=ROWS)

    def __post_init__(self) -> None:
        given = [name for name in ("row", "status", "id") if getattr(self, name)]
        if len(given) > 1:
            raise InputError(f"--{given[0]} and --{given[1]} exclude each other")
        if self.status is not None and self.status not in tuple(Status):
            known = tuple(map(str, Status))
            raise InputError(
                f"unknown status {self.status!r}; statuses are {', '.join(known)}{suggest(self.status, known)}"
            )
        self.numbers()

    def numbers(self) -> list[int]:
        """The row numbers of ``row``."""
        found: list[int] = []
        for text in self.row:
            for part in text.split(","):
                match = _RANGE.fullmatch(part.strip())
                if match is None:
                    raise InputError(f"--row {text!r} cannot be read; write for example 17, 3-9 or 3,17")
                first, last = int(match[1]), int(match[2] or match[1])
                if not 0 <= last - first < _MANY:
                    raise InputError(f"--row {text!r} is not a range of at most {_MANY:,} rows, first row first")
                found += range(first, last + 1)
        return list(dict.fromkeys(found))


@dataclass(frozen=True, slots=True)
class ShownAs:
    """How rows are shown.

    Attributes:
        tokens: a line per token.
        losses: show the loss of each scored token: as recorded in the scores folder, else by the model.
        page: a page to write instead.
        json: one JSON object per row.
    """

    tokens: bool = option(False, help="Write one line per token: position, id, text.", panel=OUTPUT)
    losses: bool = option(
        False,
        help="Show the loss of each scored token, as score --token-losses recorded it, else by the model.",
        panel=OUTPUT,
    )
    page: PageOptions = field(default_factory=PageOptions)
    json: bool = option(False, help="Print each row as a line of JSON.", panel=OUTPUT)

    def __post_init__(self) -> None:
        chosen = {"tokens": self.tokens, "html": self.page.html is not None, "json": self.json}
        given = [name for name, value in chosen.items() if value]
        if len(given) > 1:
            raise InputError(f"--{given[0]} and --{given[1]} exclude each other")


def _of_scores(context: typer.Context, value: str | None) -> str | None:
    """Take data, model and masks from a scores folder, unless they are on the command line."""
    if value is not None and not context.resilient_parsing:
        known = {
            field.name: field for kind in (CorpusSettings, ModelSource, MaskSettings) for field in options_of(kind)
        }
        context.default_map = checked(
            {name: found for name, found in _settings_of(value).items() if name in known}, known, value
        )
    return value


def _settings_of(name: str) -> Mapping[str, Any]:
    from donod_fast.scores.folder import ScoresFolder
    from donod_fast.scores.manifest import OPTIONS

    manifest = ScoresFolder.open(name).manifest
    inputs = manifest["input"].get("inputs", ())
    places = [place for one in inputs if (place := one.get("path") or one.get("url") or one.get("id"))]
    if isinstance(manifest.get(OPTIONS), dict):
        options = load_options(name)
        # Standard input is over; the folder has a copy of it.
        return {**options, "data": places} if STDIN in (options.get("data") or ()) else options
    # Release 0.1.0 and `merge` record no options, but the masks.
    masks = dict(manifest["masks"])
    columns = masks.pop("columns", None)
    if columns is not None:
        if not all(isinstance(column, str) for column in columns.values()):
            raise InputError(f"{name} records no options: give DATA, --model, --dataset-info and --dataset")
        masks["columns"] = ",".join(f"{role}={column}" for role, column in columns.items())
        masks["format"] = "auto"
    return {"data": places or None, "model": manifest["model"].get("name"), **masks}


@from_dataclasses
def show(
    corpus: CorpusSettings,
    model: ModelSource,
    masks: MaskSettings,
    choice: RowChoice,
    shown: ShownAs,
    scores: Annotated[
        str | None,
        typer.Option(
            help="Show the numbers of this scores folder too, and take DATA, MODEL and the masks from it.",
            metavar="PATH",
            rich_help_panel="Input",
            callback=_of_scores,
            is_eager=True,
        ),
    ] = None,
) -> None:
    """Show rows of DATA as MODEL sees them: their tokens, and which of them are scored."""
    from donod_fast.cli import output
    from donod_fast.cli.shown_rows import ShownRows
    from donod_fast.cli.shown_text import row_text

    corpus = with_data(corpus, masks)
    rows = ShownRows(corpus, model, masks, scores, losses=shown.losses)
    views = rows.of(choice.numbers(), count=choice.rows, status=choice.status, ids=choice.id)
    if shown.page.html is not None:
        from donod_fast.data.record_files import refuse_inputs
        from donod_fast.reports.row_page import row_page
        from donod_fast.reports.shell import write_page

        refuse_inputs(({"path": name} for name in corpus.data), shown.page.html)
        counted = count()  # rows are read while the page is written, and none is kept
        title = f"{', '.join(corpus.data)} as {model.model} sees it"
        pieces = row_page(title, (view for view, _ in zip(views, counted, strict=False)))
        write_page(pieces, shown.page.html, overwrite=shown.page.overwrite)
        typer.echo(f"{plural(next(counted), 'row')} → {shown.page.html}")
        return
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    for number, view in enumerate(views):
        if shown.json:
            output.as_json(_plain(view))
        else:
            text = ("\n" if number else "") + row_text(view, colour=colour, tokens=shown.tokens)
            (print_styled if colour else typer.echo)(text)


def _plain(view: RowView) -> dict[str, Any]:
    """A view as JSON values, without the record."""
    found = asdict(replace(view, record=None, scores={}))
    del found["record"]
    return {**found, "scores": {k: v if v == v else None for k, v in view.scores.items()}}


__all__ = ["show"]
