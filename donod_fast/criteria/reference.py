"""Reference sets: corpora that samples are compared with, and the hidden states where their tokens are scored.

A set is opened when a criterion is made, so that its content is among the settings that decide the numbers, and read
again by each process that loads the model. It may have any number of rows: they are tokenised, batched and run as
those of a corpus to be scored, with the same template, masks and length limit, and never held all at once.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from donod_fast.data.types import Status, TokenizedSample
from donod_fast.errors import CorpusError, InputError
from donod_fast.kernels import IGNORE_INDEX, don_nod
from donod_fast.models.batching import batch_slots, collate, make_batches
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    from donod_fast.criteria.base import Context

_log = logging.getLogger(__name__)

_ROWS = 1024  # tokenised and batched together


@dataclass(frozen=True, slots=True)
class ReferenceSet:
    """One reference set, opened.

    Attributes:
        name: short, for columns.
        source: path, glob or hub id as given.
        description: of the corpus, enough to open it again (``Corpus.describe``).
    """

    name: str
    source: str
    description: Mapping[str, Any] = field(hash=False)

    def settings(self) -> dict[str, Any]:
        """What decides the numbers: the content, and the name in columns; the location does not."""
        return {"name": self.name, "rows": self.description["rows"], "sha256": self.description["fingerprint"]}


@dataclass(slots=True)
class Census:
    """What became of a reference set's rows.

    Attributes:
        used: rows that count as references.
        tokens: their scored tokens.
        left_out: of the others, how many have each status.
        first: the detail of the first that was left out.
    """

    used: int = 0
    tokens: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    first: str = ""

    def leave_out(self, status: Status, detail: str = "") -> None:
        """Count a row that is no reference."""
        self.left_out[str(status)] += 1
        self.first = self.first or detail


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceBatch:
    """Some references: b samples with M scored tokens, all on the head's device.

    Attributes:
        hidden: (M, d) hidden states that predict the scored tokens.
        labels: (M,) int64; −100 for those of a sample on which the model is not finite.
        cu_seqlens: (b + 1,) int32 bounds, on the host.
        norms: (b,) float64 ‖G‖_F of the output layer; NaN for a sample that is no reference.
    """

    hidden: Tensor
    labels: Tensor
    cu_seqlens: Tensor
    norms: Tensor


def open_reference_sets(sources: Sequence[str]) -> tuple[ReferenceSet, ...]:
    """Open each source as a set of its own, in one pass over its content.

    Args:
        sources: paths, globs, URLs or hub ids, as of a corpus; standard input cannot be read again.

    Raises:
        CorpusError: one is absent, cannot be read or holds no row.
        InputError: one is standard input, or is given twice.
    """
    from donod_fast.data.reading import open_corpus

    if "-" in sources:
        raise InputError("--reference cannot be standard input, which is read once only; give a file")
    twice = [source for source in sources if sources.count(source) > 1]
    if twice:
        raise InputError(f"--reference names {twice[0]} twice")
    descriptions = [open_corpus([source]).describe() for source in sources]
    names = short_names(sources)
    return tuple(map(ReferenceSet, names, sources, descriptions))


def short_names(sources: Sequence[str]) -> list[str]:
    """A name for each source: that of the file without its endings, with as many folders as tell them apart.

    Where that is not enough they are numbered.
    """
    parts = [[_plain(part) for part in PurePosixPath(source.replace("\\", "/")).parts] for source in sources]
    ends = [[*above, last.split(".")[0] or last] for *above, last in parts]
    for count in range(1, max(map(len, ends), default=0) + 1):
        names = ["-".join(part for part in one[-count:] if part) or "reference" for one in ends]
        if len(set(names)) == len(names):
            return names
    return [f"reference-{number + 1}" for number in range(len(sources))]


def _plain(part: str) -> str:
    """Letters, digits, ``.``, ``-`` and ``_``: what a column's name and a command line take without quotes."""
    return "".join(letter if letter.isalnum() or letter in ".-_" else "_" for letter in part.strip("/"))


@torch.inference_mode()
def reference_batches(chosen: ReferenceSet, context: Context, census: Census) -> Iterator[ReferenceBatch]:
    """Run a set's rows through the trunk, batch by batch; ``census`` is filled in meanwhile, and reported at the end.

    Where memory runs out, a batch is halved. Rows that cannot be scored, that do not fit even alone, or on which the
    model is not finite are left out.

    Raises:
        CorpusError: the set cannot be read, has changed since it was opened, or has no scored token at all.
    """
    for samples in _samples(chosen, context, census):
        for group, batch in _run(samples, context):
            if batch is None:
                census.leave_out(Status.OUT_OF_MEMORY, f"row {samples[group[0]].row} does not fit in memory")
                continue
            for member, finite in zip(group, batch.norms.isfinite().tolist(), strict=True):
                if finite:
                    census.used += 1
                    census.tokens += samples[member].scored_tokens
                else:
                    detail = f"the model gave NaN or infinity on row {samples[member].row}"
                    census.leave_out(Status.NON_FINITE, detail)
            yield batch
    _report(chosen, census)


def _report(chosen: ReferenceSet, census: Census) -> None:
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


def _samples(chosen: ReferenceSet, context: Context, census: Census) -> Iterator[list[TokenizedSample]]:
    """The rows that can be scored, some at a time."""
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
    samples: Sequence[TokenizedSample], context: Context
) -> Generator[tuple[tuple[int, ...], ReferenceBatch | None], None, None]:
    """Groups of samples and their batch; None for a sample that does not fit in memory alone."""
    from donod_fast.system.memory import is_out_of_memory

    packs, rope = context.trunk.packs, context.trunk.rope
    waiting = make_batches(samples, context.token_budget, packs, rope)
    while waiting:
        group, *waiting = waiting
        try:
            batch = _batch(samples, group, context)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            batch = None
        if batch is None and torch.cuda.is_available():
            torch.cuda.empty_cache()
        if batch is None and len(group) > 1:
            budget = batch_slots(samples, group, packs, rope) // 2
            halves = make_batches([samples[i] for i in group], budget, packs, rope)
            waiting = [*(tuple(group[i] for i in half) for half in halves), *waiting]
            continue
        yield group, batch


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


__all__ = ["Census", "ReferenceBatch", "ReferenceSet", "open_reference_sets", "reference_batches", "short_names"]
