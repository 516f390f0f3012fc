"""Reference sets: corpora that samples are compared with, and the hidden states that predict their scored tokens.

A set is opened when a criterion is created, because its content belongs to the settings that determine the numbers.
Every process that loads the model reads it again. A set may have any number of rows. They are tokenised, batched and
run like the rows of a corpus to be scored, with the same template, masks and length limit, and they are never all in
memory at once.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from donod_fast.confidential import hide
from donod_fast.data.types import Status, TokenizedSample
from donod_fast.errors import CorpusError, InputError
from donod_fast.kernels import IGNORE_INDEX, don_nod
from donod_fast.models.batching import batch_slots, collate, first_slots, make_batches
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    from donod_fast.criteria.base import Context

_T = TypeVar("_T")
_log = logging.getLogger(__name__)

_ROWS = 1024  # rows that are tokenised and batched together


@dataclass(frozen=True, slots=True)
class ReferenceSet:
    """An open reference set.

    Attributes:
        name: short name for columns.
        source: path, glob or hub id as given.
        description: description of the corpus that suffices to open it again (``Corpus.describe``).
    """

    name: str
    source: str
    description: Mapping[str, Any] = field(hash=False)

    def settings(self) -> dict[str, Any]:
        """Settings that determine the numbers: the content, and the name in columns, but not the location."""
        return {"name": self.name, "rows": self.description["rows"], "sha256": self.description["fingerprint"]}


@dataclass(slots=True)
class Census:
    """Counts of the used and the left-out rows of a reference set.

    Attributes:
        used: number of rows that count as references.
        tokens: number of their scored tokens.
        left_out: number of left-out rows by status.
        first: detail of the first row that was left out.
    """

    used: int = 0
    tokens: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    first: str = ""

    def use(self, sample: TokenizedSample) -> None:
        """Count a row that is used."""
        self.used += 1
        self.tokens += sample.scored_tokens

    def leave_out(self, status: Status, detail: str = "") -> None:
        """Count a row that is left out."""
        self.left_out[str(status)] += 1
        self.first = self.first or detail


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceBatch:
    """A batch of references: b samples with M scored tokens, all on the head's device.

    Attributes:
        hidden: (M, d) hidden states that predict the scored tokens.
        labels: (M,) int64; −100 in a sample for which the model's output is not finite.
        cu_seqlens: (b + 1,) int32 bounds of the samples, on the host.
        norms: (b,) float64 ‖G‖_F of the output layer; NaN for a sample that is left out.
    """

    hidden: Tensor
    labels: Tensor
    cu_seqlens: Tensor
    norms: Tensor


def open_reference_sets(sources: Sequence[str]) -> tuple[ReferenceSet, ...]:
    """Open each source as a separate set, in one pass over its content.

    Args:
        sources: paths, globs, URLs or hub ids, as for a corpus, but not standard input, which cannot be read again.

    Raises:
        CorpusError: a source does not exist, cannot be read or has no rows.
        InputError: a source is standard input, or is given twice.
    """
    from donod_fast.data.reading import open_corpus

    if "-" in sources:
        raise InputError("--reference cannot be standard input, which can be read only once; give a file")
    sources = list(map(hide, sources))
    twice = [source for source in sources if sources.count(source) > 1]
    if twice:
        raise InputError(f"--reference names {twice[0]} twice")
    descriptions = [open_corpus([source]).describe() for source in sources]
    names = short_names(sources)
    return tuple(map(ReferenceSet, names, sources, descriptions))


def short_names(sources: Sequence[str]) -> list[str]:
    """A name for each source: the file's name without suffixes, preceded by as many folders as make names unique.

    If folders do not make them unique, the sources are numbered.
    """
    parts = [[_plain(part) for part in PurePosixPath(source.replace("\\", "/")).parts] for source in sources]
    ends = [[*above, last.split(".")[0] or last] for *above, last in parts]
    for count in range(1, max(map(len, ends), default=0) + 1):
        names = ["-".join(part for part in one[-count:] if part) or "reference" for one in ends]
        if len(set(names)) == len(names):
            return names
    return [f"reference-{number + 1}" for number in range(len(sources))]


def _plain(part: str) -> str:
    """A name of letters, digits, ``.``, ``-`` and ``_`` only, which a command line accepts without quotes."""
    return "".join(letter if letter.isalnum() or letter in ".-_" else "_" for letter in part.strip("/"))


@torch.inference_mode()
def reference_batches(chosen: ReferenceSet, context: Context, census: Census) -> Iterator[ReferenceBatch]:
    """Run a set's rows through the trunk batch by batch, count them in ``census``, and report the counts at the end.

    If memory runs out, a batch is halved. Rows are left out if they cannot be scored, do not fit in memory even alone,
    or give outputs that are not finite.

    Raises:
        CorpusError: the set cannot be read, has changed since it was opened, or has no scored token.
    """
    for samples in reference_samples(chosen, context, census):
        for group, batch in _run(samples, context, _batch):
            if batch is None:
                census.leave_out(Status.OUT_OF_MEMORY, f"row {samples[group[0]].row} does not fit in memory")
                continue
            for member, finite in zip(group, batch.norms.isfinite().tolist(), strict=True):
                if finite:
                    census.use(samples[member])
                else:
                    census.leave_out(Status.NON_FINITE, _not_finite(samples[member]))
            yield batch
    report_census(chosen, census)


@torch.inference_mode()
def reference_vectors(
    chosen: ReferenceSet,
    context: Context,
    census: Census,
    embed: Callable[[Sequence[TokenizedSample], Tensor, Sequence[int]], Tensor],
) -> Tensor:
    """A vector of each row of a set from the hidden states of all its tokens, (used rows, dim) on the head's device.

    Args:
        chosen: the set.
        context: the loaded model.
        census: gets the counts; rows are left out as by :func:`reference_batches`, and rows without a finite vector.
        embed: gives (n, dim) vectors of n samples, their states and first slots, as of ``BatchView``.

    Raises:
        CorpusError: as :func:`reference_batches`.
    """

    def vectors(samples: Sequence[TokenizedSample], group: Sequence[int], context: Context) -> Tensor:
        batch = collate(samples, group, packed=context.trunk.packs, rope=context.trunk.rope)
        found = embed([samples[i] for i in group], context.trunk.states(batch), first_slots(batch))
        return found.to(context.head.weight.device)

    kept: list[Tensor] = []
    for samples in reference_samples(chosen, context, census):
        for group, found in _run(samples, context, vectors):
            if found is None:
                census.leave_out(Status.OUT_OF_MEMORY, f"row {samples[group[0]].row} does not fit in memory")
                continue
            finite = found.isfinite().all(1)
            for member, is_finite in zip(group, finite.tolist(), strict=True):
                if is_finite:
                    census.use(samples[member])
                else:
                    census.leave_out(Status.NON_FINITE, _not_finite(samples[member]))
            kept.append(found[finite])
    report_census(chosen, census)
    return torch.cat(kept)


def _not_finite(sample: TokenizedSample) -> str:
    return f"the model gave NaN or infinity on row {sample.row}"


def report_census(chosen: ReferenceSet, census: Census) -> None:
    """Warn of rows of a set that are left out. Raises CorpusError if none is left."""
    left_out = ", ".join(f"{name} {count:,}" for name, count in sorted(census.left_out.items()))
    first = f"; the first: {census.first}" if census.first else ""
    if not census.used:
        raise CorpusError(
            f"{chosen.source}: the reference set has no scored token in {plural(chosen.description['rows'], 'row')} "
            f"({left_out}{first}); give rows with an answer that fits into the length limit"
        )
    if left_out:
        _log.warning(
            "reference set %s: %s of %s rows are left out (%s)%s",
            chosen.source,
            f"{census.left_out.total():,}",
            f"{chosen.description['rows']:,}",
            left_out,
            first,
        )


def reference_samples(chosen: ReferenceSet, context: Context, census: Census) -> Iterator[list[TokenizedSample]]:
    """The rows of a set that can be scored, a chunk at a time; the others are counted.

    Raises:
        CorpusError: the set cannot be read, or has changed since it was opened.
    """
    from donod_fast.data.reading import reopen_corpus

    records = reopen_corpus(chosen.description).records()
    while some := list(islice(records, _ROWS)):
        ready = []
        for sample in context.masker.tokenize_many(some):
            if sample.status is Status.SCORED:
                ready.append(sample)
            else:
                census.leave_out(sample.status, sample.detail)
        yield ready


def _run(
    samples: Sequence[TokenizedSample],
    context: Context,
    compute: Callable[[Sequence[TokenizedSample], Sequence[int], Context], _T],
) -> Generator[tuple[tuple[int, ...], _T | None], None, None]:
    """Groups of samples, each with what is computed of it; None for a single sample that does not fit in memory."""
    from donod_fast.system.memory import is_out_of_memory

    packs, rope = context.trunk.packs, context.trunk.rope
    waiting = make_batches(samples, context.token_budget, packs, rope)
    found: _T | None
    while waiting:
        group, *waiting = waiting
        try:
            found = compute(samples, group, context)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            found = None
        if found is None and torch.cuda.is_available():
            torch.cuda.empty_cache()
        if found is None and len(group) > 1:
            budget = batch_slots(samples, group, packs, rope) // 2
            halves = make_batches([samples[i] for i in group], budget, packs, rope)
            waiting = [*(tuple(group[i] for i in half) for half in halves), *waiting]
            continue
        yield group, found


def _batch(samples: Sequence[TokenizedSample], group: Sequence[int], context: Context) -> ReferenceBatch:
    head, device = context.head, context.head.weight.device
    batch = collate(samples, group, packed=context.trunk.packs, rope=context.trunk.rope)
    hidden = context.trunk.scored_states(batch).to(device)
    labels = batch.labels.to(device)
    norms = don_nod(
        hidden,
        head.weight,
        labels,
        batch.cu_seqlens,
        update="sgd",
        reduction=context.reduction,
        bias=head.bias,
        logit_scale=head.logit_scale,
        softcap=head.softcap,
        weight_norm=context.weight_norm,
    ).update_norm
    lengths = batch.cu_seqlens.diff().to(device)
    finite = norms.isfinite()
    labels = torch.where(finite.repeat_interleave(lengths), labels, IGNORE_INDEX)
    return ReferenceBatch(hidden, labels, batch.cu_seqlens, torch.where(finite, norms, torch.nan))


__all__ = [
    "Census",
    "ReferenceBatch",
    "ReferenceSet",
    "open_reference_sets",
    "reference_batches",
    "reference_samples",
    "reference_vectors",
    "report_census",
    "short_names",
]
