"""A corpus → a scores folder, part by part: read and tokenised ahead, scored, committed, resumable."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from donod_fast.errors import InputError
from donod_fast.reading import Corpus
from donod_fast.samples import TokenizedSample
from donod_fast.scorer import PART_ROWS, Scorer
from donod_fast.scoring import Progress
from donod_fast.store import ScoresFolder


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a scoring run left behind.

    Attributes:
        folder: the scores folder, finished.
        counts: rows by status over the whole folder.
        resumed_rows: rows that an earlier run had scored already.
        formats: rows by record format, of those tokenised by this run.
    """

    folder: ScoresFolder
    counts: Counter[str]
    resumed_rows: int
    formats: Counter[str]


def score_corpus(
    corpus: Corpus,
    scorer: Scorer,
    out: Path,
    *,
    part_rows: int = PART_ROWS,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Outcome:
    """Score a corpus into a folder that the caller holds (``store.locked``), or finish what is there.

    A part is the unit of work: its batches are formed from its rows alone, so that a run that was killed
    and started again writes the same bits as one that was not. With ``overwrite`` nothing is resumed: the
    scores in the folder are dropped, now that corpus and model are known to be there.

    Raises:
        SettingsMismatchError: the folder holds scores made with other settings.
        StoreError: it cannot be written; parts committed so far stay.
        CorpusError: the input cannot be read.
        InputError: ``part_rows`` is less than one.
    """
    if part_rows < 1:
        raise InputError(f"part_rows must be at least 1, got {part_rows}")
    folder = ScoresFolder.open_or_create(out, manifest_of(corpus, scorer, part_rows), overwrite=overwrite)
    missing = folder.missing_parts()
    left = sum(stop - start for start, stop in map(folder.part_range, missing))
    if progress is not None and left < folder.rows:
        progress(folder.rows - left, 0)
    formats: Counter[str] = Counter()
    for part, samples in _ahead(prepared_parts(corpus, scorer, folder, missing)):
        formats.update(sample.format or "unknown" for sample in samples)
        folder.write_part(part, scorer.samples.score(samples, progress))
    return Outcome(folder, folder.counts(), folder.rows - left, formats)


def prepared_parts(
    corpus: Corpus, scorer: Scorer, folder: ScoresFolder, parts: Sequence[int]
) -> Iterator[tuple[int, list[TokenizedSample]]]:
    """Read and tokenise the given parts (rising numbers), each run of neighbours in one pass."""
    for _, run in groupby(enumerate(parts), key=lambda pair: pair[1] - pair[0]):
        numbers = [part for _, part in run]
        records = corpus.records(folder.part_range(numbers[0])[0], folder.part_range(numbers[-1])[1])
        for part in numbers:
            start, stop = folder.part_range(part)
            yield part, scorer.masker.tokenize_many(list(islice(records, stop - start)))


def manifest_of(corpus: Corpus, scorer: Scorer, part_rows: int) -> dict[str, Any]:
    """Everything about a run that is worth recording, in JSON types."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "input": corpus.describe(),
        "part_rows": part_rows,
        **scorer.describe(),
        "token_budget": scorer.samples.token_budget,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    import torch
    import transformers

    from donod_fast import __version__

    return {
        "donod_fast": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _ahead(
    parts: Iterator[tuple[int, list[TokenizedSample]]],
) -> Iterator[tuple[int, list[TokenizedSample]]]:
    """The same sequence, its next item always being made in a thread while the current one is used."""
    with ThreadPoolExecutor(1, "prepare") as pool:
        coming = pool.submit(next, parts, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, parts, None)
            yield item
