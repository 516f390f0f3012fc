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

What others found of it: bergson's leaderboard removes the selected rows and measures by how much more the loss on the
queries changes than if random rows are removed. The plain gradient cosine comes last of four there (EKFAC .070, BM25
.062, similarity of activations .055, gradient cosine .021).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from donod_fast.criteria.base import BatchView, Bound, Context, Need
from donod_fast.criteria.gradient_sums import add_gradients, inverse_norms, joined, largest_cosine, zero_matrices
from donod_fast.criteria.of_references import OfReferences
from donod_fast.criteria.reference import Census, ReferenceBatch, ReferenceSet, reference_batches
from donod_fast.kernels import gradient_dots, gradient_products

EVIDENCE = "last of four methods in bergson's comparison"
"""Label of the columns: what others found of the plain gradient cosine."""


class Influence(OfReferences):
    """Mean inner product and mean cosine with the gradients of each reference set; see the module's docstring."""

    name = "influence"
    needs = frozenset({Need.SCORED_STATES, Need.GRADIENT_NORM, Need.REFERENCE})
    parts = (
        ("influence_dot", f"mean ⟨G, G_r⟩ of the output layer over a reference set; {EVIDENCE}"),
        ("influence_cos", f"mean cosine of G with those of a reference set; {EVIDENCE}"),
    )

    def bind(self, context: Context) -> Bound:
        """Run the reference sets and sum their gradients."""
        return _Means(self, *_mean_gradients(self.named_sets(), context))


class InfluenceMax(OfReferences):
    """Largest cosine with the gradient of a single reference; see the module's docstring."""

    name = "influence-max"
    needs = frozenset({Need.SCORED_STATES, Need.GRADIENT_NORM, Need.REFERENCE})
    parts = (("influence_max", f"largest cosine of G with one of a reference set; {EVIDENCE}"),)

    def bind(self, context: Context) -> Bound:
        """Run the reference sets and keep the hidden states of their scored tokens."""
        sets = (reference_batches(one, context, Census()) for one in self.named_sets())
        return _Largest(self, [joined(list(batches)) for batches in sets])


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
            columns.append(largest_cosine(products, view.gradient_norm, one))
        return torch.stack(columns, 1)


def _mean_gradients(sets: Sequence[ReferenceSet], context: Context) -> tuple[Tensor, list[Census]]:
    matrices = zero_matrices(2 * len(sets), len(sets), context, Influence.name)
    counts = []
    for number, one in enumerate(sets):
        census = Census()
        into = matrices[2 * number : 2 * number + 2]
        for batch in reference_batches(one, context, census):
            unit = inverse_norms(batch)
            add_gradients(batch, [torch.ones_like(unit), unit], into, context)
        with torch.inference_mode():
            into /= census.used
        counts.append(census)
    return matrices, counts


__all__ = ["Influence", "InfluenceMax"]
