"""The best and the worst rows of a ranking, with their text: examples of what a selection keeps and drops."""

from __future__ import annotations

import codecs
import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from donod_fast.data.types import Record
from donod_fast.errors import CorpusError, InputError
from donod_fast.selection.ranking import Ranking, ScoreColumns
from donod_fast.selection.subset import Records
from donod_fast.system.escaping import is_hidden

_GAP = " ... "


@dataclass(frozen=True, slots=True)
class ExplainedRow:
    """One ranked row, ready to print.

    Attributes:
        rank: 1 for the best.
        row: 0-based position in the input.
        value: the ranking method's figure of merit, higher is better.
        don: delta of norm, in units of ‖W‖.
        nod: norm of delta, in units of ‖W‖.
        loss: nats; NaN if the table of scores has none.
        text: beginning and end of the record's text, one printable line.
    """

    rank: int
    row: int
    value: float
    don: float
    nod: float
    loss: float
    text: str


def check_extent(count: int, width: int) -> None:
    """Refuse a number of rows below 1 or a width below 10. Raises InputError."""
    if not (isinstance(count, int) and isinstance(width, int) and count >= 1 and width >= 10):
        raise InputError(f"count must be at least 1 and width at least 10, got {count!r} and {width!r}")


def best_and_worst(
    ranking: Ranking,
    columns: ScoreColumns,
    corpus: Records,
    count: int = 5,
    width: int = 100,
    *,
    encoding: str = "ascii",
) -> list[ExplainedRow]:
    """The ``count`` best and the ``count`` worst ranked rows by rank, or all of them if there are fewer.

    Args:
        ranking: a result of :func:`donod_fast.selection.ranking.rank`.
        columns: the table of scores that was ranked.
        corpus: the input that was scored; read in one pass.
        count: rows at either end, ≥ 1.
        width: width of the text in terminal columns, ≥ 10.
        encoding: the encoding of the output; characters that it lacks are escaped. The default is safe
            everywhere; the command line passes ``sys.stdout.encoding``.

    Raises:
        InputError: ``count``, ``width`` or ``encoding`` out of range.
        CorpusError: a row is not in the corpus.
    """
    check_extent(count, width)
    try:
        codecs.lookup(encoding)
    except LookupError:
        raise InputError(f"unknown encoding {encoding!r}") from None
    ranked = len(ranking.order)
    ranks = sorted({*range(min(count, ranked)), *range(max(ranked - count, 0), ranked)})
    rows = ranking.order[ranks].tolist()
    texts = _texts(corpus, rows, width, encoding)

    by_row, positions = columns.row.cpu().sort()
    at = positions[torch.searchsorted(by_row, ranking.order[ranks])]
    scores = [column.cpu()[at].tolist() for column in (columns.don, columns.nod, columns.loss)]
    return [
        ExplainedRow(place + 1, row, value, don, nod, loss, texts[row])
        for place, row, value, don, nod, loss in zip(ranks, rows, ranking.value[ranks].tolist(), *scores, strict=True)
    ]


def render(explained: Sequence[ExplainedRow]) -> str:
    """Format :func:`best_and_worst` as a table with one row per line; dots mark ranks that are not shown."""
    heads = ("rank", "row", "value", "DON", "NOD", "loss")
    cells = [
        (
            str(one.rank),
            str(one.row),
            f"{one.value:.5g}",
            f"{one.don:.4g}",
            f"{one.nod:.4g}",
            f"{one.loss:.4g}",
        )
        for one in explained
    ]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]

    def line(fields: Iterable[str], text: str) -> str:
        aligned = (field.rjust(width) for field, width in zip(fields, widths, strict=True))
        return "  ".join([*aligned, text]).rstrip()

    lines = [line(heads, "text")]
    previous = 0
    for one, fields in zip(explained, cells, strict=True):
        if one.rank != previous + 1:
            lines.append(line(["..."] + [""] * (len(heads) - 1), ""))
        lines.append(line(fields, one.text))
        previous = one.rank
    return "\n".join(lines)


def shorten(text: str, width: int, encoding: str = "ascii") -> str:
    """Shorten a text to its beginning and end, on one line of at most ``width`` columns that any terminal can show.

    Control, format (right-to-left marks too), private and unassigned characters, lone surrogates, line
    separators, and characters that ``encoding`` lacks are written as escapes. The beginning of a longer text gets
    two thirds of the width and the end one third: the prompt is at the beginning, the response at the end.
    """
    # An output unit is one column or more, or a zero-width mark: 4 times the room holds what is shown.
    reach = 4 * width
    if len(text) <= 2 * reach:
        units = [_shown(character, encoding) for character in text]
        if sum(map(_columns, units)) <= width:
            return "".join(units)
    room = width - len(_GAP)
    tail = room // 3
    begin = _fit((_shown(character, encoding) for character in text[:reach]), room - tail)
    end = _fit((_shown(character, encoding) for character in reversed(text[-reach:])), tail)
    return "".join(begin).rstrip() + _GAP + "".join(reversed(end)).lstrip()


def record_text(record: Record) -> str:
    """The text of a record: its strings in order, turns as ``role: content``; JSON where it has none."""
    if record.data is None:
        return f"({record.place}: {record.problem})"
    return " / ".join(_strings(record.data)) or json.dumps(record.data, default=repr)


def _texts(corpus: Records, rows: Sequence[int], width: int, encoding: str) -> dict[int, str]:
    if not rows:
        return {}
    wanted = set(rows)
    texts = {
        record.row: shorten(record_text(record), width, encoding)
        for record in corpus.records(min(wanted), max(wanted) + 1)
        if record.row in wanted
    }
    if missing := wanted - texts.keys():
        raise CorpusError(f"row {min(missing)} is not in the corpus; is it the input that was scored?")
    return texts


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if stripped := value.strip():
            yield stripped
    elif isinstance(value, Mapping):
        role = value.get("role", value.get("from"))
        content = value.get("content", value.get("value"))
        if isinstance(role, str) and isinstance(content, str):
            yield f"{role}: {content.strip()}"
        else:
            for part in value.values():
                yield from _strings(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _strings(part)


def _shown(character: str, encoding: str) -> str:
    if is_hidden(character):
        return character.encode("unicode_escape", "backslashreplace").decode("ascii")
    return character.encode(encoding, "backslashreplace").decode(encoding)


def _columns(unit: str) -> int:
    if len(unit) > 1:  # an escape
        return len(unit)
    if unicodedata.combining(unit):
        return 0
    return 2 if unicodedata.east_asian_width(unit) in "WF" else 1


def _fit(units: Iterable[str], room: int) -> list[str]:
    fitting: list[str] = []
    for unit in units:
        room -= _columns(unit)
        if room < 0:
            break
        fitting.append(unit)
    return fitting
