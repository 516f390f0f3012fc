"""Form batches of tokenised samples within a token budget: packed into one row, or padded in groups of similar length.

A sample is cut after the last position that predicts a scored token. Later tokens predict nothing that is scored, and
under causal attention earlier tokens cannot see them.
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
    """A batch of samples in one of two forms; under causal attention neither needs a mask.

    *Padded*: one row per sample, padded on the right. *Packed*: all samples concatenated in a single row, separated by
    ``sample_bounds``. In both forms ``predictors`` index the flattened slots.

    Attributes:
        members: indices of the samples in the list from which batches are formed.
        input_ids: int64, (samples, length) padded with 0, or (1, slots) packed.
        predictors: (scored,) int64 slots of the hidden states that predict a scored token, sample by sample.
        labels: (scored,) int64, the tokens to predict.
        cu_seqlens: (samples + 1,) int32 bounds of the samples in ``predictors``.
        longest: length of the longest sample, after the cut.
        position_ids: packed: (1, slots) int64, starting at 0 in every sample; padded: None.
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
        """Number of slots, including padding."""
        return self.input_ids.numel()


def used_tokens(sample: TokenizedSample, rope: RopeSwitch | None = None) -> int:
    """Number of a sample's tokens that the model processes: up to the one that predicts the last scored token.

    A sample longer than the limit of a :class:`RopeSwitch` is not cut, because its length selects the frequencies.
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
    """Divide samples into batches: groups of indices, each sample in exactly one, with slots within the budget.

    A sample longer than the budget is alone in its group. The groups depend only on the arguments.

    Args:
        samples: samples to score.
        token_budget: maximum number of slots in a batch.
        packs: form packed batches (:func:`fill_in_order`), else padded ones (:func:`group_by_length`).
        rope: the model's switch, if it has one; only samples of the same kind share a batch.
    """
    return (fill_in_order if packs else group_by_length)(samples, token_budget, rope)


def group_by_length(
    samples: Sequence[TokenizedSample], token_budget: int, rope: RopeSwitch | None = None
) -> list[tuple[int, ...]]:
    """Groups of similar length whose padded size is within the budget (see :func:`make_batches`).

    The longest samples come first, so that memory peaks in the first batch; equal lengths stay in input order.
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

    Each kind of a :class:`RopeSwitch` fills separate groups.
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
    """Number of slots in the batch of a group."""
    lengths = [used_tokens(samples[i], rope) for i in group]
    return sum(lengths) if packed else len(lengths) * max(lengths, default=0)


def packing_efficiency(
    samples: Sequence[TokenizedSample],
    groups: Iterable[Sequence[int]],
    packed: bool,
    rope: RopeSwitch | None = None,
) -> float:
    """Share of the slots of all groups that hold tokens rather than padding; 1 if there are no groups."""
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
    """Build the batch of the samples at ``members``, on the host.

    Args:
        samples: the list from which the groups were formed.
        members: indices into it, at least one.
        packed: build a packed batch, else a padded one.
        pin: put tensors into pinned memory, for asynchronous copies; without CUDA it has no effect.
        rope: as given to :func:`make_batches`.
    """
    chosen = [samples[i] for i in members]
    used = np.array([used_tokens(sample, rope) for sample in chosen], dtype=np.int64)
    # One more token than the model processes: the last label.
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
    # Position of each processed token within its sample.
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


def first_slots(batch: Batch) -> list[int]:
    """The slot of each sample's first token."""
    if batch.sample_bounds is not None:
        return [int(slot) for slot in batch.sample_bounds[:-1].tolist()]
    return [number * batch.longest for number in range(len(batch.members))]
