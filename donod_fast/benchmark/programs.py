"""The timed programs: lists of steps, each of which processes some of the samples."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from donod_fast.benchmark import table
from donod_fast.benchmark.paper_loop import score_sample
from donod_fast.benchmark.work import Work
from donod_fast.data.shards import PART_ROWS
from donod_fast.data.types import IGNORE_INDEX, TokenizedSample
from donod_fast.errors import ModelError
from donod_fast.models.batching import Batch, collate, make_batches, used_tokens
from donod_fast.scoring.scorer import Scorer
from donod_fast.system.profiling import NO_STAGES, Stages
from donod_fast.system.threads import in_order, worker_count
from donod_fast.system.wording import plural

UPDATE = "adamw"
PADDED_ROWS = 16
# Tokens of the bare matrix products: more do not increase the rate.
_RATE_TOKENS = (1024, 16384)


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """A step: a function and the samples that it processes.

    Attributes:
        run: runs the step.
        samples: the samples that it processes.
        slots: positions that the decoder computes for them, including padding.
    """

    run: Callable[[], Any]
    samples: Sequence[TokenizedSample] = ()
    slots: int = 0


class Program:
    """A row of the table: steps that can be repeated.

    Args:
        name: the row's name.
        steps: the steps, in order.
        seconds: time limit of the first run; steps that it does not reach are omitted from later runs too.
        operations: operations of a run, as a function of its samples.
        note: what its numbers do not include.
        profile: a run that records the time of its stages, or None.
    """

    def __init__(
        self,
        name: str,
        steps: Sequence[Step],
        *,
        seconds: float | None = None,
        operations: Callable[[Sequence[TokenizedSample]], int],
        note: str = "",
        profile: Callable[[Stages], Any] | None = None,
    ) -> None:
        self.name, self.profile = name, profile
        self._all, self._seconds, self._operations, self._note = steps, seconds, operations, note
        self._steps: Sequence[Step] | None = None

    def __call__(self) -> None:
        """Run the steps."""
        if self._steps is not None:
            for step in self._steps:
                step.run()
            return
        begin = time.perf_counter()
        done = []
        for step in self._all:
            step.run()
            done.append(step)
            if self._seconds is not None and time.perf_counter() - begin > self._seconds:
                break
        self._steps = done

    def measured(self, seconds: Sequence[float], peak: int | None, **more: Any) -> table.Measured:
        """The note for its row, after it has run."""
        steps = self._steps or ()
        samples = [sample for step in steps for sample in step.samples]
        total = sum(len(step.samples) for step in self._all)
        part = f"the first {len(samples)} of {plural(total, 'sample')}" if len(samples) < total else ""
        return table.Measured(
            self.name,
            tuple(seconds),
            samples=len(samples),
            tokens=sum(len(sample.input_ids) for sample in samples),
            needed=sum(map(used_tokens, samples)),
            slots=sum(step.slots for step in steps),
            operations=self._operations(samples),
            peak_bytes=peak,
            note="; ".join(filter(None, (part, self._note, more.pop("note", "")))),
            **more,
        )


def matrix_products(work: Work, tokens: int, budget: int, *, device: torch.device, dtype: torch.dtype) -> Program:
    """Bare products at the shapes of the decoder's matrices, for at least ``tokens`` tokens, one batch at a time.

    On a CPU, as many run concurrently as our scorer has concurrent batches, each with its share of the threads.
    """
    height = min(max(budget, _RATE_TOKENS[0]), _RATE_TOKENS[1])
    workers = worker_count(device)
    place: dict[str, Any] = {"device": device, "dtype": dtype}
    products: list[Callable[[], Tensor]] = []
    operations = 0
    for (rows, columns), count in work.matrices:
        weight, states = torch.randn(rows, columns, **place), torch.randn(height, columns, **place)
        outs = [torch.empty(height, rows, **place) for _ in range(workers)]
        products += [partial(torch.mm, states, weight.t(), out=outs[i % workers]) for i in range(count)]
        operations += 2 * height * rows * columns * count
    repeats = max(1, -(-tokens // height))

    def run() -> None:
        for _ in in_order(lambda product: product(), products * repeats, workers):
            pass

    note = f"{plural(height, 'token')} at a time" + (f", {workers} products side by side" if workers > 1 else "")
    return Program(table.RATE, [Step(run)], operations=lambda _: operations * repeats, note=note)


def paper_loop(scorer: Scorer, samples: Sequence[TokenizedSample], work: Work | None, seconds: float) -> Program:
    """One sample at a time: forward, a copy of W, backward, a real step, two norms."""

    def step(sample: TokenizedSample) -> Step:
        ids, labels = (tensor.to(scorer.loaded.device) for tensor in _ids_and_labels(sample))
        run = partial(score_sample, scorer.trunk.decoder, scorer.head.weight, ids[None], labels, UPDATE)
        return Step(run, [sample], len(ids))

    steps = [step(sample) for sample in samples]
    return Program(table.PAPER, steps, seconds=seconds, operations=_none if work is None else work.both)


def padded_loop(scorer: Scorer, samples: Sequence[TokenizedSample], work: Work | None, seconds: float) -> Program:
    """Batches of 16 in input order, padded, with an attention mask, through the model's own loss."""
    model, device = scorer.loaded.model, scorer.loaded.device
    note = f"one loss for each batch of {PADDED_ROWS}"

    @torch.inference_mode()
    def run(ids: Tensor, mask: Tensor, labels: Tensor) -> float:
        ids, mask, labels = ids.to(device), mask.to(device), labels.to(device)
        return float(model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss)

    steps = []
    for start in range(0, len(samples), PADDED_ROWS):
        some = samples[start : start + PADDED_ROWS]
        ids, labels = (list(rows) for rows in zip(*map(_ids_and_labels, some), strict=True))
        padded = torch.nn.utils.rnn.pad_sequence
        batch = padded(ids, batch_first=True)
        mask = padded([torch.ones_like(row) for row in ids], batch_first=True)
        targets = padded(labels, batch_first=True, padding_value=IGNORE_INDEX)
        steps.append(Step(partial(run, batch, mask, targets), some, batch.numel()))
    return Program(
        table.PADDED,
        steps,
        seconds=seconds,
        operations=_none if work is None else work.both,
        note=note,
    )


def trunk_alone(scorer: Scorer, samples: Sequence[TokenizedSample], work: Work | None) -> list[Program]:
    """Only the decoder, on our batches; on a CPU also with concurrent batches, as in our scorer."""
    batches = [(some, batch) for some in _parts(samples) for batch in our_batches(scorer, some)]
    operations = _none if work is None else work.trunk

    def members(some: Sequence[TokenizedSample], batch: Batch) -> list[TokenizedSample]:
        return [some[i] for i in batch.members]

    one = [Step(partial(scorer.trunk.states, b), members(some, b), b.tokens) for some, b in batches]
    programs = [Program(table.TRUNK, one, operations=operations, note="tokenised and batched before")]
    workers = worker_count(scorer.head.weight.device)
    if workers > 1:

        def together() -> None:
            for _ in in_order(lambda pair: scorer.trunk.states(pair[1]), batches, workers):
                pass

        done = list(chain.from_iterable(step.samples for step in one))
        step = Step(together, done, sum(b.tokens for _, b in batches))
        programs.append(Program(table.TRUNK_TOGETHER, [step], operations=operations, note=f"{workers} at a time"))
    return programs


def ours(
    name: str,
    scorer: Scorer,
    samples: Sequence[TokenizedSample],
    work: Work | None,
    *,
    file: Path | None,
    scratch: Path,
) -> Program:
    """Our scorer from a file on disk to a finished scores folder, or without a file from tokenised samples to rows.

    Raises (when run):
        ModelError: not every row was scored.
    """
    slots = sum(batch.tokens for some in _parts(samples) for batch in our_batches(scorer, some))

    def to_folder(stages: Stages) -> None:
        from donod_fast.data.reading import open_corpus
        from donod_fast.engines.local import score_corpus

        out = scratch / "scores"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        outcome = score_corpus(open_corpus([str(file)]), scorer, out, stages=stages)
        all_scored(outcome.counts["scored"], dict(outcome.counts))

    def to_rows(stages: Stages) -> None:
        rows = [row for some in _parts(samples) for row in scorer.sample_scorer.score(some, stages=stages)]
        all_scored(sum(row.status == "scored" for row in rows), {row.status for row in rows})

    def all_scored(count: int, statuses: Any) -> None:
        if count != len(samples):
            raise ModelError(f"{count} of {plural(len(samples), 'row')} were scored ({statuses})")

    span, run = (table.TOKENS_TO_ROWS, to_rows) if file is None else (table.FILE_TO_FOLDER, to_folder)
    return Program(
        table.spanned(name, span),
        [Step(partial(run, NO_STAGES), samples, slots)],
        operations=_none if work is None else work.both,
        profile=run,
    )


def folder_obstacle() -> str:
    """The reason why a scores folder cannot be written here; "" if it can."""
    lacking = [name for name in ("pyarrow", "filelock") if find_spec(name) is None]
    return f"not installed: {', '.join(lacking)}" if lacking else ""


def our_batches(scorer: Scorer, samples: Sequence[TokenizedSample]) -> list[Batch]:
    """The batches of a part's samples."""
    trunk = scorer.trunk
    groups = make_batches(samples, scorer.sample_scorer.token_budget, trunk.packs, trunk.rope)
    return [collate(samples, group, packed=trunk.packs, rope=trunk.rope) for group in groups]


def _parts(samples: Sequence[TokenizedSample]) -> list[Sequence[TokenizedSample]]:
    """Batches as in the pipeline: no batch crosses the end of a part."""
    return [samples[start : start + PART_ROWS] for start in range(0, len(samples), PART_ROWS)]


def _none(samples: Sequence[TokenizedSample]) -> int:
    return 0


def _ids_and_labels(sample: TokenizedSample) -> tuple[Tensor, Tensor]:
    ids = torch.tensor(sample.input_ids)
    return ids, ids.where(torch.tensor(sample.scored), IGNORE_INDEX)
