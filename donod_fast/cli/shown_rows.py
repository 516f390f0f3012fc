"""Find the rows that ``donod-fast show`` shows: corpus, tokenizer, scores folder and losses together."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from donod_fast.data.settings import CorpusSettings, MaskSettings
from donod_fast.errors import InputError
from donod_fast.models.settings import ModelSource
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    from donod_fast.data.reading import Corpus
    from donod_fast.data.types import Record
    from donod_fast.data.viewing import RowView
    from donod_fast.scores.folder import ScoresFolder


class ShownRows:
    """Rows of a corpus as a model sees them.

    Args:
        corpus: the inputs.
        model: the model; its weights are loaded only for ``losses`` that the scores folder does not record.
        masks: how rows are read and masked.
        scores: a scores folder of the same corpus, None for no numbers.
        losses: show the loss of each scored token.

    Raises:
        InputError: a setting has an unknown value, or the scores are of another corpus.
        CorpusError: an input cannot be read.
        ModelError: the model or its tokenizer cannot be loaded.
        StoreError: the scores folder cannot be read.
    """

    def __init__(
        self, corpus: CorpusSettings, model: ModelSource, masks: MaskSettings, scores: str | None, *, losses: bool
    ) -> None:
        from donod_fast.data.formats import check_format
        from donod_fast.data.masking import Masker
        from donod_fast.data.templates import check_template
        from donod_fast.models.loading import load_tokenizer
        from donod_fast.scores.folder import ScoresFolder

        check_format(masks.format)
        check_template(masks.template)
        self._folder = None if scores is None else ScoresFolder.open(scores)
        self._corpus = _opened(corpus, self._folder)
        loaded = load_tokenizer(model)
        self._tokenizer = loaded.tokenizer
        self._masker = Masker(loaded.tokenizer, masks.limited(loaded.max_length), vocab_size=loaded.vocab_size)
        self._losses = None
        if losses:
            from donod_fast.cli.shown_losses import ShownLosses, why_not_recorded

            folder = self._folder
            why_not = "" if folder is None else why_not_recorded(folder, self._masker, self._tokenizer, model)
            self._losses = ShownLosses(model, folder, why_not)

    def of(
        self, numbers: Sequence[int] = (), *, count: int, status: str | None = None, ids: Collection[str] = ()
    ) -> Iterator[RowView]:
        """Views of rows: those with these numbers, else the first ``count`` with a status or an id.

        Raises:
            InputError: there is no such row.
        """
        if numbers and max(numbers) >= self._corpus.rows:
            rows = plural(self._corpus.rows, "row")
            raise InputError(f"there is no row {max(numbers)}: the input has {rows}, numbered from 0")
        if self._folder is not None and (status is not None or ids):
            from donod_fast.scores.looking_up import row_numbers

            numbers, status, ids = row_numbers(self._folder, count, status=status, ids=ids), None, ()
        if numbers:
            return self._views(self._records(numbers), None)
        found = self._views(self._with_ids(ids) if ids else self._corpus.records(), status)
        what = f"the id {', '.join(ids)}" if ids else f"the status {status}"
        return self._some(islice(found, count), what)

    def _views(self, records: Iterator[Record], status: str | None) -> Iterator[RowView]:
        from donod_fast.data.viewing import view_rows

        statuses = () if status is None else (status,)
        losses = None if self._losses is None else self._losses.of
        for view in view_rows(records, self._masker, self._tokenizer, statuses=statuses, losses=losses):
            if self._losses is not None:
                view = replace(view, losses_from=self._losses.source)
            yield view if self._folder is None else self._with_scores(view, self._folder)

    def _some(self, views: Iterator[RowView], what: str) -> Iterator[RowView]:
        found = False
        for view in views:
            found = True
            yield view
        if not found:
            raise InputError(f"no row has {what}; the input has {plural(self._corpus.rows, 'row')}")

    def _records(self, numbers: Sequence[int]) -> Iterator[Record]:
        for number in numbers:
            yield from self._corpus.records(number, number + 1)

    def _with_ids(self, ids: Collection[str]) -> Iterator[Record]:
        from donod_fast.data.formats import record_id

        return (record for record in self._corpus.records() if record_id(record) in ids)

    def _with_scores(self, view: RowView, folder: ScoresFolder) -> RowView:
        from donod_fast.scores.looking_up import found_row

        found = found_row(folder, view.row)
        if found is None:
            return replace(view, scores={"status": "not scored yet"})
        numbers: dict[str, float | str] = {**found.numbers}
        if found.status != view.status:
            detail = {"detail": found.detail} if found.detail else {}
            numbers = {"status": found.status, **detail, **numbers}
        elif (found.tokens, found.scored_tokens) != (view.tokens, view.scored_tokens):
            seen = f"{found.scored_tokens:,} of {plural(found.tokens, 'token')}"
            numbers = {"scored with another mask": seen, **numbers}
        return replace(view, scores=numbers)


def _opened(corpus: CorpusSettings, folder: ScoresFolder | None) -> Corpus:
    """The corpus; its files are not read again if a scores folder knows them."""
    from donod_fast.data.reading.corpus import open_settings
    from donod_fast.scores.held import held
    from donod_fast.scores.opening import known_files

    if folder is None:
        return open_settings(corpus)
    opened = open_settings(corpus, known=known_files(folder.name))
    if opened.fingerprint != folder.manifest["input"]["fingerprint"]:
        raise InputError(
            f"{folder.name} holds scores of other rows than {', '.join(corpus.data)}: give the same DATA in the same "
            "order, or leave DATA out"
        )
    return held(opened, folder)


__all__ = ["ShownRows"]
