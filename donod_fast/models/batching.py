"""Tokenised samples → batches under a token budget: packed into one row, or padded to like lengths.

Of a sample only the tokens up to its last predicting position are run. What comes after predicts nothing that
is scored, and under causal attention nothing before it can see it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from donod_fast.data.types import TokenizedSample
from donod_fast.models.rope import RopeSwitch


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Some samples in one of two forms; under causal attention neither needs a mask.

    *Padded*: a row a sample, padded on the right. *Packed*: all samples one after the other in a single row,
    kept apart by their bounds. ``predictors`` index the flattened slots in both.

    Attributes:
        members: positions of the samples in the list that the batches were made from.
        input_ids: int64, (samples, length) padded with 0, or (1, slots) packed.
        predictors: (scored,) int64 slots of the hidden states that predict a scored token, sample by sample.
        labels: (scored,) int64, the tokens to predict.
        cu_seqlens: (samples + 1,) int32 bounds of the samples in ``predictors``.
        longest: tokens of the longest sample, as far as they are run.
        position_ids: packed: (1, slots) int64, from 0 in every sample; padded: None.
        sample_bounds: packed: (samples + 1,) int32 bounds of the samples in the slots; padded: None.
    """

    members: tuple[int, ...]
    input_ids: Tensor
    predictors: Tensor
    labels: Tensor
    cu_seqlens: Tensor
    longest: int
    position_ids: Tensor | None = None
    sample_bounds: Tensor | None = None

    @property
    def tokens(self) -> int:
        """Slots, padded ones included."""
        return self.input_ids.numel()


def used_tokens(sample: TokenizedSample, rope: RopeSwitch | None = None) -> int:
    """How many of a sample's tokens are run: those up to the one that predicts the last scored token.

    A sample beyond the limit of a :class:`RopeSwitch` is run whole: its length chooses its frequencies.
    """
    length = len(sample.input_ids)
    if rope is not None and length > rope.limit:
        return length
    try:
        return max(1, length - 1 - sample.scored[::-1].index(True))
    except ValueError:
        return length


def make_batches(
    samples: Sequence[TokenizedSample], token_budget: int, packs: bool, rope: RopeSwitch | None = None
) -> list[tuple[int, ...]]:
    """Positions of the samples in groups, each of them a batch: every sample once, slots within the budget.

    A sample longer than the budget is alone in its group. The groups depend on nothing but the arguments.

    Args:
        samples: what to score.
        token_budget: slots of a batch.
        packs: for packed batches (:func:`fill_in_order`), else for padded ones (:func:`group_by_length`).
        rope: where the model has one, samples share a batch with their kind only.
    """
    return (fill_in_order if packs else group_by_length)(samples, token_budget, rope)


def group_by_length(
    samples: Sequence[TokenizedSample], token_budget: int, rope: RopeSwitch | None = None
) -> list[tuple[int, ...]]:
    """Groups of like length whose padded size is within the budget (see :func:`make_batches`).

    Longest first, so that memory peaks at once; equal lengths in input order.
    """
    lengths = [used_tokens(sample, rope) for sample in samples]
    kinds = _kinds(samples, rope)
    order = sorted(range(len(samples)), key=lambda i: (-lengths[i], i))
    groups: list[tuple[int, ...]] = []
    group: list[int] = []
    for i in order:
        if group and ((len(group) + 1) * lengths[group[0]] > token_budget or kinds[i] != kinds[group[0]]):
            groups.append(tuple(group))
            group = []
        group.append(i)
    if group:
        groups.append(tuple(group))
    return groups


def fill_in_order(
    samples: Sequence[TokenizedSample], token_budget: int, rope: RopeSwitch | None = None
) -> list[tuple[int, ...]]:
    """Groups in input order, each filled up to the budget (see :func:`make_batches`).

    Every kind of a :class:`RopeSwitch` fills a group of its own.
    """
    kinds = _kinds(samples, rope)
    groups: list[list[int]] = []
    current: dict[int, tuple[list[int], int]] = {}  # by kind: the group being filled, and its slots
    for i, sample in enumerate(samples):
        length = used_tokens(sample, rope)
        group, slots = current.get(kinds[i], ([], 0))
        if not group or slots + length > token_budget:
            group, slots = [], 0
            groups.append(group)
        group.append(i)
        current[kinds[i]] = group, slots + length
    return [tuple(group) for group in groups]


def _kinds(samples: Sequence[TokenizedSample], rope: RopeSwitch | None) -> list[int]:
    if rope is None:
        return [0] * len(samples)
    return [rope.kind(len(sample.input_ids)) for sample in samples]


def batch_slots(
    samples: Sequence[TokenizedSample], group: Sequence[int], packed: bool, rope: RopeSwitch | None = None
) -> int:
    """Slots of the batch that a group makes."""
    lengths = [used_tokens(samples[i], rope) for i in group]
    return sum(lengths) if packed else len(lengths) * max(lengths, default=0)


def packing_efficiency(
    samples: Sequence[TokenizedSample],
    groups: Iterable[Sequence[int]],
    packed: bool,
    rope: RopeSwitch | None = None,
) -> float:
    """Tokens that have to be run over slots that are run, of all groups together; 1 where there are none."""
    real = slots = 0
    for group in groups:
        real += batch_slots(samples, group, True, rope)
        slots += batch_slots(samples, group, packed, rope)
    return real / slots if slots else 1.0


def collate(
    samples: Sequence[TokenizedSample],
    members: Sequence[int],
    *,
    packed: bool = False,
    pin: bool = False,
    rope: RopeSwitch | None = None,
) -> Batch:
    """The batch of the samples at ``members``, on the host.

    Args:
        samples: the list that the groups were made from.
        members: positions in it, at least one.
        packed: the form.
        pin: tensors in pinned memory, for copies that do not wait; without CUDA it does nothing.
        rope: as given to :func:`make_batches`.
    """
    chosen = [samples[i] for i in members]
    used = np.array([used_tokens(sample, rope) for sample in chosen], dtype=np.int64)
    # Beside the tokens that are run: the last label, which is none of them.
    taken = np.minimum(used + 1, [len(sample.input_ids) for sample in chosen])
    ends = taken.cumsum()
    total = int(ends[-1])
    tokens = np.fromiter(
        chain.from_iterable(sample.input_ids[:n] for sample, n in zip(chosen, taken, strict=True)), np.int64, total
    )
    flags = b"".join(bytes(sample.scored[:n]) for sample, n in zip(chosen, taken, strict=True))
    targets = np.frombuffer(flags, dtype=np.uint8).nonzero()[0]
    owner = np.searchsorted(ends, targets, side="right")
    bounds = np.concatenate([[0], used.cumsum()])
    longest = int(used.max())
    first = bounds[:-1] if packed else np.arange(len(chosen)) * longest  # the slot of each sample's first token
    shift = first - (ends - taken)
    # Where each token that is run stands, sample by sample.
    place = np.arange(bounds[-1]) - bounds[:-1].repeat(used)
    run = tokens[place + (ends - taken).repeat(used)]
    if packed:
        input_ids = run[None]
    else:
        input_ids = np.zeros((len(chosen), longest), dtype=np.int64)
        input_ids.reshape(-1)[place + first.repeat(used)] = run

    def tensor(array: np.typing.NDArray[np.int64], dtype: torch.dtype = torch.int64) -> Tensor:
        found = torch.from_numpy(array).to(dtype)
        return found.pin_memory() if pin and torch.cuda.is_available() else found

    return Batch(
        tuple(members),
        tensor(input_ids),
        tensor(targets - 1 + shift[owner]),
        tensor(tokens[targets]),
        tensor(np.concatenate([[0], np.bincount(owner, minlength=len(chosen)).cumsum()]), torch.int32),
        longest,
        tensor(place[None]) if packed else None,
        tensor(bounds, torch.int32) if packed else None,
    )
