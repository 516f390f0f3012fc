"""A corpus → a scores folder, part by part: read and tokenised ahead, scored, committed, resumable."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from donod_fast.data.prefetch import OnStep, Part, Step, default_workers, no_step, prepared
from donod_fast.data.reading import Corpus
from donod_fast.data.shards import PART_ROWS, Shard, default_part_rows
from donod_fast.data.types import TokenizedSample
from donod_fast.engines.adding_losses import added_losses
from donod_fast.engines.prologue import Outcome, begin, open_folder
from donod_fast.engines.request import RunOptions
from donod_fast.engines.warming import warmed, with_state_of
from donod_fast.errors import CorpusError, InputError, StoreError, UnreachableError
from donod_fast.scores.array_tasks import ArrayTask
from donod_fast.scores.background_writer import background_writer
from donod_fast.scores.columns import arrow_array, arrow_field
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scores.gradient_size import GradientSize
from donod_fast.scores.held import refuse_changed
from donod_fast.scores.part_summary import PartSummary, Signals
from donod_fast.scores.parts import signals_of
from donod_fast.scores.sample_counts import SampleCounts
from donod_fast.scoring.sample_scorer import Progress
from donod_fast.scoring.scorer import Scorer
from donod_fast.scoring.step_size import gradient_size
from donod_fast.system.memory_storage import MemoryStorage
from donod_fast.system.profiling import NO_STAGES, Stages
from donod_fast.system.threads import worker_count

if TYPE_CHECKING:
    import pyarrow as pa


def score_corpus(
    corpus: Corpus,
    scorer: Scorer,
    out: Path | str,
    *,
    part_rows: int = PART_ROWS,
    overwrite: bool = False,
    rescore_changed: bool = False,
    progress: Progress | None = None,
    workers: int | None = None,
    stages: Stages = NO_STAGES,
    record: Mapping[str, Any] | None = None,
    token_losses: bool = False,
    task: ArrayTask | None = None,
) -> Outcome:
    """Score a corpus into a folder in this process, or finish a folder that an earlier run began.

    The caller holds the folder's lock (``system.locking.locked``), or that of the task. A part is the unit of work. Its
    batches are formed from its rows alone, so that a run that was killed and started again writes the same bits as one
    that was not. With ``overwrite`` the scores in the folder are dropped, but only once corpus and model are known to
    be readable. If an input cannot be read (it has vanished or changed), the rows of all others are scored before that
    is raised.

    Args:
        corpus: what to score.
        scorer: the model and the settings.
        out: the scores folder, a path or a URL.
        part_rows: see :class:`donod_fast.engines.request.RunOptions`, as for ``overwrite`` and ``rescore_changed``.
        overwrite: see there.
        rescore_changed: see there.
        progress: called with rows and tokens as they are scored, and first with the rows scored by an earlier run.
        workers: processes that read and tokenise ahead, 0 for a thread; None to choose by device and rows
            (:func:`donod_fast.data.prefetch.default_workers`). No score depends on it.
        stages: records where the time goes.
        record: the options of the run by name, in JSON types, for the manifest.
        token_losses: see :class:`donod_fast.engines.request.RunOptions`.
        task: see there.

    Raises:
        SettingsMismatchError: the folder holds scores made with other settings, or of files that have changed.
        StoreError: it cannot be written; parts committed so far stay.
        CorpusError: the input cannot be read.
        WorkerError: a preparation process was killed; parts committed so far stay.
        InputError: ``part_rows`` is less than 1, or ``workers`` is negative.
    """
    options = RunOptions(
        part_rows, overwrite, rescore_changed, workers, record=record or {}, token_losses=token_losses, task=task
    )
    with scorer.neutral():
        return _scored_corpus(corpus, scorer, out, options, progress, stages)


def _scored_corpus(
    corpus: Corpus, scorer: Scorer, out: Path | str, options: RunOptions, progress: Progress | None, stages: Stages
) -> Outcome:
    overwrite, workers = options.overwrite, options.workers
    scorer = warmed(scorer, corpus, out, overwrite=overwrite)
    folder = open_folder(out, corpus, manifest_of(corpus, scorer, options.part_rows), options)
    run = begin(folder, scorer.sample_scorer.signals.fingerprints, progress, options.task)
    scorer = scorer.resuming(folder.manifest)
    ahead = default_workers(scorer.sample_scorer.device.type, run.missing_rows) if workers is None else workers
    formats: Counter[str] = Counter()
    unreadable: CorpusError | None = None
    parts = list(run.missing)
    while parts:
        try:
            formats += score_parts(corpus, scorer, folder, parts, workers=ahead, progress=progress, stages=stages)
            break
        except CorpusError as error:
            # Parts are committed in the order given, so the first one that is not committed is the one that failed.
            failed = next(part for part in parts if not run.is_committed(part))
            run.note_problem(failed, str(error))
            unreadable = unreadable or error
            parts = folder.plan.without_inputs_of(failed, parts[parts.index(failed) + 1 :])
    if unreadable is not None:
        raise run.unreadable_inputs(unreadable)
    return run.outcome(formats, fitting_budget=scorer.sample_scorer.fitting_budget)


def score_in_memory(corpus: Corpus, scorer: Scorer, progress: Progress | None = None) -> ScoresFolder:
    """Score a corpus into a folder in memory, with the parts that :func:`score_corpus` would write, bit for bit.

    Raises:
        CorpusError: the input cannot be read.
        InputError: no row of the sample of ``adamw-warm`` can be scored.
    """
    storage, options = MemoryStorage(), RunOptions(default_part_rows(corpus.rows))
    with scorer.neutral():
        scorer = warmed(scorer, corpus, storage)
        folder = open_folder(storage, corpus, manifest_of(corpus, scorer, options.part_rows), options)
        score_parts(corpus, scorer.resuming(folder.manifest), folder, range(folder.parts), progress=progress)
    return folder


def score_shard(shard: Shard, corpus: Corpus, scorer: Scorer, folder: ScoresFolder) -> PartSummary:
    """Score the rows of one shard and commit them as a part. Use it to write an engine of your own.

    Any process that can read the inputs and the folder may call it, in any order and any number of times: the same
    shard gives the same bytes. ``folder.plan`` has the shards; ``folder.corpus()`` gives the corpus without reading its
    files.

    Args:
        shard: the rows to score; a shard of this folder's plan.
        corpus: the corpus of the folder.
        scorer: the model and the settings.
        folder: where the part is committed.

    Returns:
        the part's summary, read back.

    Raises:
        InputError: the shard is not in this folder's plan.
        StoreError, CorpusError: as :func:`score_corpus`.
    """
    if shard.number >= folder.parts or folder.plan.shard(shard.number) != shard:
        rows = f"rows {shard.first_row} to {shard.stop - 1}"
        raise InputError(f"shard {shard.number} ({rows}) is not in the plan of {folder.name}")
    with scorer.neutral():
        score_parts(corpus, with_state_of(scorer, folder).resuming(folder.manifest), folder, [shard.number])
    summary = folder.summary(shard.number)
    assert summary is not None, "it was committed just now"
    return summary


def score_parts(
    corpus: Corpus,
    scorer: Scorer,
    folder: ScoresFolder,
    parts: Iterable[int],
    *,
    workers: int = 0,
    progress: Progress | None = None,
    stages: Stages = NO_STAGES,
    excluded: Mapping[int, Mapping[int, str]] | None = None,
    on_step: OnStep = no_step,
) -> Counter[str]:
    """Score parts and commit them to the folder, in the order given. All are committed when it returns.

    Args:
        corpus: the corpus of the folder.
        scorer: the model and the settings, as ``Scorer.resuming`` gives them for this folder.
        folder: where the parts are committed.
        parts: part numbers. They are drawn from the iterable when needed: ``max(1, workers)`` ahead of the part that is
            scored. In rising order the corpus is read once.
        workers: processes that read and tokenise ahead, 0 for a thread.
        progress: called with rows and tokens as they are scored.
        stages: records where the time goes.
        excluded: by part the rows that no process survives, each with a description. They are neither tokenised nor
            scored, and get the status ``worker_lost``. Read when a part is drawn.
        on_step: called when a step of a part begins.

    Returns:
        rows by record format.

    Raises:
        StoreError, CorpusError, WorkerError: as :func:`score_corpus`.
    """
    formats: Counter[str] = Counter()
    wanted = (Part(part, *folder.part_range(part), (excluded or {}).get(part, {})) for part in parts)
    with (
        stages.run(scorer.sample_scorer.device, worker_count(scorer.sample_scorer.device)),
        closing(prepared(corpus, scorer.masker, wanted, workers, stages, on_step)) as coming,
        background_writer(folder, stages) as writer,
    ):
        while True:
            with stages.stage("wait"):  # the device has nothing to do
                item = next(coming, None)
            if item is None:
                break
            part, samples = item
            formats.update(sample.format or "unknown" for sample in samples)
            counts = SampleCounts.of(samples)
            on_step(part.number, Step.SCORING)
            lacks_losses = folder.losses.wanted and not folder.losses.has(part.number)
            is_adding = bool(scorer.sample_scorer.signals) or lacks_losses
            there = _scored_before(folder, part.number) if is_adding else None
            if there is None:
                wanted_losses = folder.losses.wanted
                rows = scorer.sample_scorer.score(samples, progress, stages=stages, token_losses=wanted_losses)
                # Once in a folder: its first rows stand for all.
                size = _gradient_size(scorer, samples) if part.number == 0 else None
                on_step(part.number, Step.SCORED)
                writer.write(part.number, rows, scorer.sample_scorer.signals.entries, counts, size)
                continue
            refuse_changed(folder, there[0], samples)
            if lacks_losses:
                seen = None if scorer.sample_scorer.signals else progress  # the criteria count these rows
                losses = added_losses(scorer.sample_scorer, samples, there[0], folder.name, seen, stages)
                writer.write_losses(part.number, losses)
            if not scorer.sample_scorer.signals:
                on_step(part.number, Step.SCORED)
                continue
            table, signals = _with_signals(scorer, samples, *there, progress, stages)
            on_step(part.number, Step.SCORED)
            writer.write_table(part.number, table, signals, counts, there[1].gradient)
    return formats


def _gradient_size(scorer: Scorer, samples: Sequence[TokenizedSample]) -> GradientSize | None:
    return gradient_size(scorer.sample_scorer.forward, samples, scorer.sample_scorer.token_budget)


def _scored_before(folder: ScoresFolder, part: int) -> tuple[pa.Table, PartSummary] | None:
    """The rows of a part that has its scores and lacks criteria only, with its summary."""
    try:
        table, summary = folder.read_part(part, hashes=True), folder.summary(part)
    except UnreachableError:
        raise
    except StoreError:  # damaged: as good as absent
        return None
    return None if table is None or summary is None else (table, summary)


def _with_signals(
    scorer: Scorer,
    samples: Sequence[TokenizedSample],
    table: pa.Table,
    there: PartSummary,
    progress: Progress | None,
    stages: Stages,
) -> tuple[pa.Table, Signals]:
    """The table of a part with the columns of the criteria that it lacks, and the names of all that it has then."""
    asked = scorer.sample_scorer.signals
    have = [name for name, mark in asked.fingerprints.items() if there.has_signals({name: mark})]
    lacking = asked.without(have)
    values = scorer.sample_scorer.add(samples, table.column("loss").to_pylist(), lacking, progress, stages=stages)
    for at, column in enumerate(lacking.columns):
        table = table.append_column(arrow_field(column), arrow_array(column, [row[at] for row in values]))
    return table, {**there.signals, **signals_of(lacking.entries)}


def manifest_of(corpus: Corpus, scorer: Scorer, part_rows: int) -> dict[str, Any]:
    """The manifest of a scoring run, in JSON types."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "input": corpus.describe(),
        "part_rows": part_rows,
        **scorer.describe(),
        "token_budget": scorer.sample_scorer.token_budget,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Versions of the software that the scores depend on."""
    import torch
    import transformers

    from donod_fast._version import __version__

    return {
        "donod_fast": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


__all__ = ["Outcome", "manifest_of", "score_corpus", "score_in_memory", "score_parts", "score_shard", "versions"]
