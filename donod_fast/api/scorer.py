"""``Scorer``: a model that is ready to score, whose scores are an object."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from donod_fast.api.scores import Scores
from donod_fast.api.source import Source
from donod_fast.scoring import scorer as scoring

if TYPE_CHECKING:
    from donod_fast.data.reading import Corpus
    from donod_fast.data.reading.python_data import Data
    from donod_fast.scores.array_tasks import ArrayTask

Progress = Callable[[int, int], None]
"""Called with the numbers of rows and of tokens that have been scored since the last call."""


class Scorer(scoring.Scorer):
    """A causal language model that is ready to score corpora, and whose scores are an object.

    ``Scorer(model, tokenizer, …)`` takes a model in memory, ``Scorer.from_pretrained(name, …)`` loads one. Both take
    the arguments of :class:`donod_fast.scoring.scorer.Scorer`, for example ``update="sgd"``, ``lr=1e-5``,
    ``max_length=512``, ``carry="source"``, ``signals="ifd,el2n"``, ``token_budget=4096`` and ``live=True``.

    Raises:
        ModelError: the model cannot be scored with; the message says why.
        CorpusError: a reference set of the signals cannot be read.
        InputError: names an argument with a wrong value.
    """

    def score(
        self,
        data: Data | Corpus,
        out: str | Path | None = None,
        *,
        progress: bool | Progress | None = None,
        part_rows: int | None = None,
        workers: int | None = None,
        overwrite: bool = False,
        rescore_changed: bool = False,
        shard: tuple[int, int] | None = None,
    ) -> Scores:
        """Score a corpus: one row per input row, in input order.

        With ``out`` the scores are written to a folder part by part, as ``donod-fast score`` writes them. If the folder
        has some of them already, only the others are scored, so that the same call resumes after an interruption; the
        result is bit-for-bit identical. Without ``out`` they stay in memory, with the same values.

        Args:
            data: a path, a URL, a hub id or a list of these; or rows: a list of dicts or of texts, a split of
                ``datasets``, a frame of pandas or polars, an Arrow table, a generator.
            out: path or URL of the scores folder; None to keep the scores in memory.
            progress: True for a bar on standard error, or a function that is called with (rows, tokens) as they are
                done.
            part_rows: with ``out``: rows of a part; None for the folder's, else a default.
            workers: with ``out``: processes that read and tokenise ahead; None to choose by device and rows.
            overwrite: with ``out``: drop the scores that the folder holds.
            rescore_changed: with ``out``: drop the scores of input files that have changed since they were scored.
            shard: with ``out``: (number from 0, count) of a task of an array of processes that all score into ``out``.
                Only the parts of this task are scored, so the scores may be unfinished when this returns.

        Raises:
            CorpusError: an input cannot be read.
            InputError: an argument has a wrong value, or needs ``out``.
            SettingsMismatchError: the folder holds scores made with other settings.
            StoreError: the folder cannot be written or is in use; parts that are done stay.
        """
        from donod_fast.engines.array.holding import holding
        from donod_fast.engines.local import score_corpus, score_in_memory
        from donod_fast.engines.request import RunOptions
        from donod_fast.errors import InputError
        from donod_fast.scores.opening import settled_part_rows
        from donod_fast.system.storage import open_storage

        only = {
            "part_rows": part_rows,
            "workers": workers,
            "overwrite": overwrite,
            "rescore_changed": rescore_changed,
            "shard": shard,
        }
        if out is None and (given := [name for name, value in only.items() if value not in (None, False)]):
            raise InputError(f"{given[0]} is for scores in a folder; name one with out=")
        for name, whole in (("part_rows", part_rows), ("workers", workers)):
            if whole is not None and (isinstance(whole, bool) or not isinstance(whole, int)):
                raise InputError(f"{name} must be a whole number, got {whole!r}")
        if not (progress is None or isinstance(progress, bool) or callable(progress)):
            raise InputError(f"progress must be True, False or a function of (rows, tokens), got {progress!r}")
        task = _task(shard)
        if out is not None:
            RunOptions(overwrite=overwrite, rescore_changed=rescore_changed, task=task)  # refuses what excludes a task
            open_storage(out)  # refuses a wrong name before the data is read
        corpus = scoring.as_corpus(data)
        if out is None:
            with _shown(progress, corpus.rows) as seen:
                return Scores(Source(score_in_memory(corpus, self, seen), corpus))
        with holding(out, task), _shown(progress, corpus.rows) as seen:
            outcome = score_corpus(
                corpus,
                self,
                out,
                part_rows=settled_part_rows(out, corpus.rows, part_rows, overwrite=overwrite),
                overwrite=overwrite,
                rescore_changed=rescore_changed,
                progress=seen,
                workers=workers,
                task=task,
            )
        return Scores(Source(outcome.folder, corpus))


def _task(shard: tuple[int, int] | None) -> ArrayTask | None:
    """The task of an array. Raises InputError: it has another form, or there is no such task."""
    from donod_fast.errors import InputError
    from donod_fast.scores.array_tasks import ArrayTask

    if shard is None:
        return None
    if not isinstance(shard, tuple | list) or len(shard) != 2:
        raise InputError(f"shard must be (number from 0, count), as (0, 8), got {shard!r}")
    return ArrayTask(shard[1], shard[0])


@contextmanager
def _shown(progress: bool | Progress | None, rows: int) -> Iterator[Progress | None]:
    """What is called as rows are done: nothing, the caller's function, or a bar on standard error."""
    if progress is None or progress is False:
        yield None
    elif progress is True:
        from tqdm import tqdm

        with tqdm(total=rows, unit="row", file=sys.stderr, dynamic_ncols=True) as bar:
            tokens = 0

            def advance(done: int, more: int) -> None:
                nonlocal tokens
                tokens += more
                bar.set_postfix_str(f"{tokens:,} tokens", refresh=False)
                bar.update(done)

            yield advance
    else:
        yield progress


__all__ = ["Scorer"]
