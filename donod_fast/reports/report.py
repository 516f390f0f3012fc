"""``report.html``: a scores folder as one page that works offline. This module puts its blocks together.

Blocks (see ``blocks.py``) by name:

- ``meta``: JSON that describes all others: columns with their histograms, methods, statuses, quality, sets, warnings;
- ``row``: the number of each point; ``c0``, ``c1`` …: the columns at the points; ``r0`` …: the exact rank of each point
  among all ranked rows, by method;
- ``text_rows``: rows whose text is here; ``t0`` …: their texts, some rows in each.

Histograms and totals are over all scored rows, also where the points are a sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from donod_fast._version import __version__
from donod_fast.data.record_files import refuse_existing, refuse_inputs
from donod_fast.errors import CorpusError, InputError, StoreError
from donod_fast.reports.agreement import agreement, warn_of_pairs
from donod_fast.reports.blocks import Array, Block, array_block, json_block, refuse_large, size_of
from donod_fast.reports.chosen_texts import ChosenTexts, choose_texts, no_texts
from donod_fast.reports.clusters import CLUSTER, cluster_texts
from donod_fast.reports.columns import Category, ReportColumns, categories_of, report_columns
from donod_fast.reports.duplicates import NEAR_LABEL, exact_sets, near_sets, why_not_near
from donod_fast.reports.given_sets import described_sets, empty_files, read_given
from donod_fast.reports.masks import masker_of
from donod_fast.reports.methods import Method, described, length_warning, ranked_methods, totals_of
from donod_fast.reports.quality import facts, folder_warnings, quality, statuses
from donod_fast.reports.sampling import SEED, Sample, draw
from donod_fast.reports.scored_table import read_scored
from donod_fast.reports.settings import ReportOptions
from donod_fast.reports.shell import render_page, write_page
from donod_fast.reports.texts import Losses, RowTexts
from donod_fast.scores.rows import CARRIED
from donod_fast.scores.token_losses import has_token_losses, read_token_losses
from donod_fast.selection.out_of_core.groups import BY_FILE
from donod_fast.system.escaping import one_line
from donod_fast.system.places import refuse_url
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    from donod_fast.data.reading import Corpus
    from donod_fast.scores.folder import ScoresFolder

VERSION = 1
"""Of what the blocks hold."""

_PARTS = files(__package__) / "page"
_SHARE = 0.7
"""Share of the file that points may take, so that texts have some room."""

_ROOM = 40_000
"""Bytes of the page besides blocks, script and style, at most."""


@dataclass(frozen=True, slots=True)
class ReportFile:
    """A report that was written.

    Attributes:
        path: the file.
        bytes: its size.
        rows: rows of the folder.
        scored: rows with scores.
        points: rows that are shown one by one.
        texts: rows whose text is in the file.
        warnings: what the reader must know, a sentence each.
    """

    path: Path
    bytes: int
    rows: int
    scored: int
    points: int
    texts: int
    warnings: tuple[str, ...] = ()


def write_report(
    folder: ScoresFolder, out: Path | str, options: ReportOptions = ReportOptions(), corpus: Corpus | None = None
) -> ReportFile:
    """Write the report of a scores folder, finished or not, as one self-contained HTML file.

    Args:
        folder: the scores.
        out: the file.
        options: what it holds.
        corpus: the records; None opens the inputs that the folder names.

    Raises:
        InputError: an unknown method, too many rows, a file that would be larger than asked for, or a file of sets that
            is wrong or of another folder.
        StoreError: the folder has no scores or is damaged, or the file exists or cannot be written.
    """
    refuse_url(out, "a report")
    path = Path(out)
    refuse_inputs(folder.manifest["input"].get("inputs") or (), path)
    refuse_existing(path, options.overwrite)
    report = _Report(folder, options, corpus)
    page = report.page()
    size = write_page(page, path, overwrite=options.overwrite)
    meta = report.meta
    said = tuple(one["text"] for one in meta["warnings"])
    return ReportFile(path, size, meta["rows"], meta["scored"], meta["points"], meta["texts"]["rows"], said)


class _Report:
    """A report while it is made."""

    def __init__(self, folder: ScoresFolder, options: ReportOptions, corpus: Corpus | None) -> None:
        self._folder, self._options = folder, options
        self._given = read_given(folder, options.sets)
        self._table = read_scored(folder)
        self._listed = described_sets(self._given, folder, self._table)
        self._warnings = folder_warnings(folder, self._table)
        self._corpus = self._opened(corpus)
        clusters, self._clusters = cluster_texts(folder, self._table)
        if clusters is not None:
            self._table.texts[CLUSTER] = clusters
        self._categories = categories_of(self._table)
        self._methods = self._ranked()
        self._agreement = agreement(self._table, self._methods, options.keep)
        self._warn_of_methods()
        self.meta: dict[str, Any] = {}

    def page(self) -> str:
        """The whole page.

        Raises:
            InputError: it would be larger than asked for.
        """
        script, style = (_page_file(name) for name in ("report.js", "report.css"))
        room = self._options.most_bytes - len((script + style).encode()) - _ROOM
        sample, columns, blocks = self._points(int(room * _SHARE))
        sets, near = self._sets()
        meta = self._meta(sample, columns, sets, near)
        fixed = size_of([*blocks, json_block("meta", meta)])
        refuse_large(fixed + _ROOM, self._options.most_bytes)
        texts = self._texts(meta, sample, room - fixed - 4000)
        if texts.problem:
            self._warn("records", f"some texts are missing: {texts.problem}")
        meta["texts"] = texts.described
        self.meta = meta
        page = render_page(
            "report.html.j2",
            title=meta["title"],
            scripts=[script] if script else [],
            styles=[style] if style else [],
            evaluates=True,
            blocks=[json_block("meta", meta), *blocks, *texts.blocks],
        )
        refuse_large(len(page.encode("utf-8", "replace")), self._options.most_bytes)
        return page

    def _opened(self, corpus: Corpus | None) -> Corpus | None:
        if not self._options.records:
            return None
        if corpus is not None:
            return corpus
        try:
            return self._folder.reopened()
        except (CorpusError, StoreError) as error:  # a manifest may name no inputs
            self._warn("records", f"the records cannot be read, so the report shows no texts: {error}")
            return None

    def _ranked(self) -> list[Method]:
        if not len(self._table):
            return []
        methods, said = ranked_methods(self._folder, self._table, self._options.methods, self._options.keep)
        if not methods:
            raise InputError(f"no method ranks the rows of {self._folder.name}: {'; '.join(said)}")
        for text in said:
            self._warn("method", text)
        return methods

    def _warn_of_methods(self) -> None:
        if self._agreement is not None:
            for text in warn_of_pairs(self._agreement, self._methods):
                self._warn("methods", text)
        for method in self._methods:
            if said := length_warning(method, self._table, self._options.keep):
                method.warnings.append(said)
                self._warn("length", said)

    def _warn(self, kind: str, text: str) -> None:
        self._warnings.append({"kind": kind, "text": one_line(text)})

    def _points(self, most: int) -> tuple[Sample, ReportColumns, list[Block]]:
        """The points and their blocks: as many rows as fit."""
        wanted = self._options.sample
        source = self._source()
        while True:
            sample = draw(len(self._table), wanted, self._methods, self._options.keep, source)
            columns = report_columns(self._table, sample.places, self._categories)
            blocks = [_rows_block(self._table.row[sample.places]), *columns.blocks]
            blocks += [
                array_block(f"r{at}", "u32", method.ranks[sample.places]) for at, method in enumerate(self._methods)
            ]
            size = size_of(blocks)
            if size <= most or len(sample.places) < 1000:
                return sample, columns, blocks
            wanted = int(len(sample.places) * 0.95 * most / size)

    def _source(self) -> Category | None:
        """The groups that a sample is stratified by: the column ``source`` if it is carried, else the first of text."""
        named = [name for name in (f"{CARRIED}source", BY_FILE) if name in self._categories]
        first = [*named, *_grouping(self._categories)]
        return self._categories[first[0]] if first else None

    def _sets(self) -> tuple[list[dict[str, Any]], str | None]:
        """Sets of duplicates, the given ones last, and why near-duplicates were not looked for."""
        sets = [exact_sets(self._table, self._methods)]
        readable = self._corpus is not None and bool(self._folder.manifest.get("masks"))
        why = why_not_near(self._options.near_duplicates, self._table.seen, readable=readable)
        if why is None and self._corpus is not None:
            seen = _seen_rows(self._folder)
            try:
                records = (record for bounds in seen for record in self._corpus.records(*bounds))
                sets.append(near_sets(self._folder, records, self._table, self._methods))
            except CorpusError as error:
                why = f"not looked for: {error}"
        return [*sets, *self._listed], why

    def _texts(self, meta: dict[str, Any], sample: Sample, budget: int) -> ChosenTexts:
        if not self._options.records:
            return no_texts(self._table.seen, "the report was made with --no-records")
        if self._corpus is None:
            return no_texts(self._table.seen, "the records cannot be read")
        masker, why = masker_of(self._folder)
        texts = RowTexts(self._folder, self._corpus, self._table, masker, _losses_of(self._folder))
        shown = [one["example"]["row"] for each in meta["statuses"] for one in each["causes"] if one["example"]]
        named = [row for found in meta["sets"] for one in found["shown"][:10] for row in one["rows"][:4]]
        named += [row for found in self._listed for one in found["shown"] for row in one["rows"]]
        read = {summary.number for summary in self._table.summaries}  # a given set may have rows of other parts
        shown += [row for row in named if self._folder.plan.part_of(row) in read]
        return choose_texts(texts, self._table, self._methods, self._options.keep, shown, sample.places, budget, why)

    def _meta(
        self, sample: Sample, columns: ReportColumns, sets: list[dict[str, Any]], near: str | None
    ) -> dict[str, Any]:
        folder, table, options = self._folder, self._table, self._options
        groups = [
            {"name": name, "column": columns.places[name], "by": name.removeprefix(CARRIED)}
            for name in _grouping(self._categories)
        ]
        of_sample = {name.removeprefix(CARRIED): one for name, one in self._categories.items()}
        totals = [None if sample.text is None else totals_of(method, table, of_sample) for method in self._methods]
        return {
            "version": VERSION,
            "title": one_line(options.title or f"Report of {folder.name}"),
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "package": __version__,
            "folder": folder.name,
            "rows": table.rows,
            "scored": len(table),
            "points": len(sample.places),
            "sample": None
            if sample.text is None
            else {"points": len(sample.places), "of": len(table), "seed": SEED, "text": sample.text},
            "facts": facts(folder, table),
            "warnings": self._warnings,
            "statuses": statuses(table),
            "quality": [
                *quality(folder, table),
                *_quality_of_sets(sets, near),
                *empty_files(self._given),
                *_clusters_line(self._clusters),
            ],
            "sets": [one for one in sets if one["sets"]],
            "columns": columns.described,
            "methods": [
                described(method, table, f"r{at}", total)
                for at, (method, total) in enumerate(zip(self._methods, totals, strict=True))
            ],
            "groups": groups,
            "tokens": columns.places["scored_tokens"],
            "length": columns.places["tokens"],
            "cluster": columns.places.get(CLUSTER),
            "agreement": self._agreement,
            "default": {
                "method": self._methods[0].name if self._methods else None,
                # JSON in a browser knows no difference between 1 row and all of them, 1.0.
                "keep": options.keep if isinstance(options.keep, float) else str(options.keep),
            },
            "texts": {},
        }


def _quality_of_sets(sets: Sequence[dict[str, Any]], near: str | None) -> list[dict[str, Any]]:
    found = []
    for one in sets:
        text = f"{plural(one['sets'], 'set')} of {one['text']}" if one["sets"] else f"none: no set of {one['text']}"
        found.append({"label": one["label"], "text": one_line(text), "rows": one["rows"]})
    if near is not None:
        found.append({"label": NEAR_LABEL, "text": one_line(near), "rows": None})
    return found


def _grouping(names: Iterable[str]) -> list[str]:
    """The columns of text that ``select --by`` takes."""
    return [name for name in names if name != CLUSTER]


def _clusters_line(text: str) -> list[dict[str, Any]]:
    return [{"label": "clusters", "text": one_line(text), "rows": None}] if text else []


def _rows_block(rows: Array) -> Block:
    """Row numbers, as integers of 32 bits where they fit."""
    fits = not len(rows) or int(rows[-1]) < 2**32
    return array_block("row", "u32" if fits else "f64", rows)


def _seen_rows(folder: ScoresFolder) -> list[tuple[int, int]]:
    return [folder.part_range(part) for part in range(folder.parts) if folder.has_part(part)]


def _losses_of(folder: ScoresFolder) -> Losses | None:
    """Losses of tokens, if they are recorded; None if not."""
    if not has_token_losses(folder):
        return None
    return lambda rows: read_token_losses(folder, rows)


def _page_file(name: str) -> str:
    """Script or style of the page; "" where it is not built."""
    file = _PARTS / name
    return file.read_text("utf-8") if file.is_file() else ""


__all__ = ["VERSION", "ReportFile", "write_report"]
