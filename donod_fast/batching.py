"""Tokenised samples → padded batches under a token budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from donod_fast.samples import TokenizedSample


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Some samples, padded on the right; under causal attention no mask is needed.

    Attributes:
        members: positions of the samples in the list that the batches were made from.
        input_ids: (samples, length) int64, padded with 0.
        predictors: (scored,) int64 positions in the flattened (samples · length) of the hidden states
            that predict a scored token, sample by sample.
        labels: (scored,) int64, the tokens to predict.
        cu_seqlens: (samples + 1,) int32 bounds of the samples in ``predictors``.
    """

    members: tuple[int, ...]
    input_ids: Tensor
    predictors: Tensor
    labels: Tensor
    cu_seqlens: Tensor

    @property
    def tokens(self) -> int:
        """Padded size."""
        return self.input_ids.numel()


def group_by_length(samples: Sequence[TokenizedSample], token_budget: int) -> list[tuple[int, ...]]:
    """Positions of the samples in groups of like length whose padded size is within the budget.

    Longest first, so that memory peaks at once; equal lengths in input order. The grouping depends on
    nothing but the list and the budget. A sample longer than the budget is alone in its group.
    """
    order = sorted(range(len(samples)), key=lambda i: (-len(samples[i].input_ids), i))
    groups: list[tuple[int, ...]] = []
    group: list[int] = []
    for i in order:
        if group and (len(group) + 1) * len(samples[group[0]].input_ids) > token_budget:
            groups.append(tuple(group))
            group = []
        group.append(i)
    if group:
        groups.append(tuple(group))
    return groups


def collate(samples: Sequence[TokenizedSample], members: Sequence[int]) -> Batch:
    """Pad the samples at ``members`` to the longest of them and locate their scored tokens."""
    chosen = [samples[i] for i in members]
    length = max(len(sample.input_ids) for sample in chosen)
    input_ids = torch.zeros((len(chosen), length), dtype=torch.int64)
    predictors: list[int] = []
    labels: list[int] = []
    counts = [0]
    for i, sample in enumerate(chosen):
        input_ids[i, : len(sample.input_ids)] = torch.tensor(sample.input_ids)
        targets = [t for t, flag in enumerate(sample.scored) if flag]
        predictors += [i * length + t - 1 for t in targets]
        labels += [sample.input_ids[t] for t in targets]
        counts.append(len(targets))
    return Batch(
        tuple(members),
        input_ids,
        torch.tensor(predictors, dtype=torch.int64),
        torch.tensor(labels, dtype=torch.int64),
        torch.tensor(list(accumulate(counts)), dtype=torch.int32),
    )
