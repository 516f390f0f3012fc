"""Influence at the output layer (similar to LESS): agreement of a sample's gradient with those of a reference set.

With G the gradient of a sample's loss with respect to the output layer W, over the R references of a set:

    influence_dot = (1/R) Σ_r ⟨G_i, G_r⟩
    influence_cos = (1/R) Σ_r ⟨G_i, G_r⟩ / (‖G_i‖ ‖G_r‖)
    influence_max = max_r ⟨G_i, G_r⟩ / (‖G_i‖ ‖G_r‖)

LESS (Xia et al., arXiv 2402.04333) uses projected LoRA gradients and Adam's update for the sample, sums cosines over
several checkpoints, and takes the maximum over the groups of a task. We use the plain gradient (an SGD step) of the
output layer only, at one checkpoint. It is exact, needs no projection, and comes from the same forward pass, but it is
not LESS.

The mean costs the same for any number of references: Σ_r G_r and Σ_r G_r/‖G_r‖ are two matrices of W's shape (float32,
on the head's device). They are computed once per set when the model is loaded, and each costs one more product of the
size of the logits. The maximum compares every token of a batch with every token of the set and keeps the hidden states
of the whole set in memory, so it is for small sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from donod_fast.criteria.base import BatchView, Bound, Column, Context, Criterion, Need
from donod_fast.criteria.reference import Census, ReferenceBatch, ReferenceSet, open_reference_sets, reference_batches
from donod_fast.errors import InputError
from donod_fast.kernels import accumulate_gradients, gradient_dots, gradient_products


class _OfReferences(Criterion):
    """Base of the criteria that compare with reference sets. With several sets, columns are named ``column:set``.

    Attributes:
        sets: the open reference sets.

    Args:
        references: paths, globs, URLs or hub ids; empty if only the columns are needed.

    Raises:
        CorpusError: a set does not exist, cannot be read or has no rows.
        InputError: a set is standard input, or is given twice.
    """

    needs = frozenset({Need.SCORED_STATES, Need.GRADIENT_NORM, Need.REFERENCE})
    parts: tuple[tuple[str, str], ...] = ()  # name and description of each column of a set

    def __init__(self, references: Sequence[str] = ()) -> None:
        self.sets: tuple[ReferenceSet, ...] = open_reference_sets(references)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of each set in turn."""
        ends = [f":{one.name}" for one in self.sets] if len(self.sets) > 1 else [""]
        return tuple(Column(f"{name}{end}", text, "high") for end in ends for name, text in self.parts)

    def settings(self) -> dict[str, Any]:
        """Fingerprints of the sets' content."""
        return {"references": [one.settings() for one in self._named()]}

    def width(self) -> int:
        """One number per column."""
        return len(self.columns)

    def _named(self) -> tuple[ReferenceSet, ...]:
        if not self.sets:
            raise InputError(f"--signals {self.name} needs a reference set: --reference FILE")
        return self.sets


class Influence(_OfReferences):
    """Mean inner product and mean cosine with the gradients of each reference set; see the module's docstring."""

    name = "influence"
    parts = (
        ("influence_dot", "mean ⟨G, G_r⟩ of the output layer over a reference set"),
        ("influence_cos", "mean cosine of G with those of a reference set"),
    )

    def bind(self, context: Context) -> Bound:
        """Run the reference sets and sum their gradients."""
        return _Means(self, *_mean_gradients(self._named(), context))


class InfluenceMax(_OfReferences):
    """Largest cosine with the gradient of a single reference; see the module's docstring."""

    name = "influence-max"
    parts = (("influence_max", "largest cosine of G with one of a reference set"),)

    def bind(self, context: Context) -> Bound:
        """Run the reference sets and keep the hidden states of their scored tokens."""
        return _Largest(self, [_joined(one, context) for one in self._named()])


class _Means(Influence):
    """:class:`Influence` bound to a model.

    Attributes:
        matrices: (2 · sets, V, d) mean G_r and mean G_r/‖G_r‖ of each set in turn, on the head's device.
        counts: row counts of each set.
    """

    def __init__(self, criterion: Influence, matrices: Tensor, counts: Sequence[Census]) -> None:
        self.sets, self.matrices, self.counts = criterion.sets, matrices, tuple(counts)

    def of_batch(self, view: BatchView) -> Tensor:
        """(n, 2 · sets): dot and cosine of each set."""
        assert view.gradient_norm is not None
        found = gradient_dots(
            view.hidden,
            view.head.weight,
            view.labels,
            view.cu_seqlens,
            self.matrices,
            reduction=view.reduction,
            workspace_bytes=view.workspace_bytes,
            bias=view.head.bias,
            logit_scale=view.head.logit_scale,
            softcap=view.head.softcap,
        )
        found[:, 1::2] /= view.gradient_norm.unsqueeze(1)
        return found


class _Largest(InfluenceMax):
    """:class:`InfluenceMax` bound to a model.

    Attributes:
        references: one batch per set.
    """

    def __init__(self, criterion: InfluenceMax, references: Sequence[ReferenceBatch]) -> None:
        self.sets, self.references = criterion.sets, tuple(references)

    def of_batch(self, view: BatchView) -> Tensor:
        """(n, sets): the largest cosine with each set."""
        assert view.gradient_norm is not None
        columns = []
        for one in self.references:
            products = gradient_products(
                view.hidden,
                view.labels,
                view.cu_seqlens,
                one.hidden,
                one.labels,
                one.cu_seqlens,
                view.head.weight,
                reduction=view.reduction,
                workspace_bytes=view.workspace_bytes,
                bias=view.head.bias,
                logit_scale=view.head.logit_scale,
                softcap=view.head.softcap,
            )
            cosines = products / one.norms / view.gradient_norm.unsqueeze(1)
            largest = torch.where(cosines.isnan(), -torch.inf, cosines).amax(1)
            columns.append(torch.where(largest.isneginf(), torch.nan, largest))
        return torch.stack(columns, 1)


def _mean_gradients(sets: Sequence[ReferenceSet], context: Context) -> tuple[Tensor, list[Census]]:
    head = context.head
    dtype = torch.float64 if head.weight.dtype == torch.float64 else torch.float32
    shape = (2 * len(sets), *head.weight.shape)
    try:
        with torch.inference_mode():
            matrices = torch.zeros(shape, dtype=dtype, device=head.weight.device)
    except (MemoryError, RuntimeError) as error:
        size = 4 * 2 * len(sets) * head.weight.numel() / 2**30
        raise InputError(
            f"--signals influence: the gradients of {len(sets)} reference sets take {size:.1f} GiB on "
            f"{head.weight.device}, which does not have that much free memory; give fewer sets, or join their files"
        ) from error
    counts = []
    for number, one in enumerate(sets):
        census = Census()
        into = matrices[2 * number : 2 * number + 2]
        for batch in reference_batches(one, context, census):
            # A zero gradient has no direction: its cosine with any other counts as 0.
            unit = torch.where(batch.norms > 1e-300, 1.0 / batch.norms, 0.0)
            with torch.inference_mode():
                accumulate_gradients(
                    batch.hidden,
                    head.weight,
                    batch.labels,
                    batch.cu_seqlens,
                    torch.stack([torch.ones_like(unit), unit], 1),
                    into,
                    reduction=context.reduction,
                    bias=head.bias,
                    logit_scale=head.logit_scale,
                    softcap=head.softcap,
                )
        with torch.inference_mode():
            into /= census.used
        counts.append(census)
    return matrices, counts


def _joined(one: ReferenceSet, context: Context) -> ReferenceBatch:
    batches = list(reference_batches(one, context, Census()))
    with torch.inference_mode():
        lengths = torch.cat([batch.cu_seqlens.diff() for batch in batches])
        return ReferenceBatch(
            torch.cat([batch.hidden for batch in batches]),
            torch.cat([batch.labels for batch in batches]),
            torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).int(),
            torch.cat([batch.norms for batch in batches]),
        )


__all__ = ["Influence", "InfluenceMax"]
