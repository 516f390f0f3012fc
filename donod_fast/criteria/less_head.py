"""LESS (Xia et al., arXiv 2402.04333) restricted to the output layer: cosine in Adam's metric with references.

With G the gradient of a row's loss with respect to the output layer W, V̂ Adam's second moment, and G_r the plain
gradients of the R references of a set,

    u = G / (√V̂ + ε),
    less_head     = (1/R) Σ_r ⟨u, G_r⟩ / (‖u‖ ‖G_r‖),
    less_head_max = max_r ⟨u, G_r⟩ / (‖u‖ ‖G_r‖).

As in LESS, the row's gradient is the step that Adam takes and the references' are plain, and several checkpoints are
added with their learning rates as weights (``selection/checkpoints.py``). LESS averages the cosines over the references
of a subtask and takes the largest over the subtasks, which have one to five references each: ``less_head`` is a single
subtask of all references, ``less_head_max`` has a subtask for each. The mean costs the same for any number of
references; the maximum is for small sets, as that of ``influence-max``.

What differs, and why this is called ``less-head`` and not LESS:

- *One layer.* LESS takes the gradients of LoRA matrices in every layer. Here it is the output layer alone, which needs
  no backward pass.
- *No projection.* LESS projects gradients to 8,192 random numbers, to store them. The output layer's gradient is a sum
  of outer products, and the mean of cosines is linear in the unit gradients of the references. So both columns are
  exact. A projection by a product of two small matrices (a · b = 8,192) errs by about 0.002 for gradients of a hundred
  tokens and by √(1/a + 1/b) = 0.15 in the worst case, and the mean cosine varies less than that between rows.
- *Factored moment.* V̂ is estimated from the references, as row sums R_v and column sums C_j of their squared gradients:
  V̂_vj = R_v C_j / Σ R (Adafactor, arXiv 1804.04235). LESS reads it from the state of a warm-up training. ε is added to
  the root mean square of a row, √(R_v / d); Adam adds it entry by entry. A metric that is not of this form (the fresh
  state's sign, G/(|G| + ε)) has no exact form of this kind.
- *No first moment.* Adam's running mean adds the same matrix to every row's gradient; it is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import torch
from torch import Tensor

from donod_fast.criteria.base import BatchView, Bound, Context, Need
from donod_fast.criteria.gradient_sums import (
    add_gradients,
    inverse_norms,
    joined,
    largest_cosine,
    zero_matrices,
)
from donod_fast.criteria.of_references import OfReferences
from donod_fast.criteria.reference import Census, ReferenceBatch, reference_batches
from donod_fast.kernels import gradient_dots, scaled_norms, scaled_products, squared_sums

EPS = 1e-8
"""Adam's ε."""
LABEL = "LESS, restricted to the output layer"
_LEAST_COLUMN = 1e-6  # of the mean column: one that no reference moves must not decide alone


class _InMetric(OfReferences):
    """Base of both criteria."""

    needs = frozenset({Need.SCORED_STATES, Need.REFERENCE})

    def settings(self) -> dict[str, Any]:
        """The sets, and how Adam's state is made."""
        return {**super().settings(), "second_moment": "factored, of the references", "eps": EPS}


class LessHead(_InMetric):
    """Mean cosine in Adam's metric with the gradients of each reference set; see the module's docstring."""

    name = "less-head"
    parts = (("less_head", f"mean cosine of the output layer's gradient in Adam's metric with references; {LABEL}"),)

    def bind(self, context: Context) -> Bound:
        """Run the reference sets: their second moment and the sum of their unit gradients."""
        sets = self.named_sets()
        matrices = zero_matrices(len(sets), len(sets), context, self.name)
        metrics = []
        for one, matrix in zip(sets, matrices, strict=True):
            census, moments = Census(), _Moments(context)
            for batch in reference_batches(one, context, census):
                add_gradients(batch, [inverse_norms(batch)], matrix.unsqueeze(0), context)
                moments.add(batch)
            metric = moments.metric(census.used)
            metrics.append(metric)
            with torch.inference_mode():
                matrix /= census.used
                matrix *= metric.rows.to(matrix.dtype).unsqueeze(1)
                matrix *= metric.columns.to(matrix.dtype)
        return _Means(self, matrices, metrics)


class LessHeadMax(_InMetric):
    """Largest cosine in Adam's metric with the gradient of a single reference; see the module's docstring."""

    name = "less-head-max"
    parts = (
        ("less_head_max", f"largest cosine of the output layer's gradient in Adam's metric with a reference; {LABEL}"),
    )

    def bind(self, context: Context) -> Bound:
        """Run the reference sets and keep the hidden states of their scored tokens."""
        references, metrics = [], []
        for one in self.named_sets():
            census, moments = Census(), _Moments(context)
            batches = []
            for batch in reference_batches(one, context, census):
                moments.add(batch)
                batches.append(batch)
            references.append(joined(batches))
            metrics.append(moments.metric(census.used))
        return _Largest(self, references, metrics)


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """1/(√V̂ + ε) of a factored second moment, as a product of two vectors; a common factor is arbitrary.

    Attributes:
        rows: (V,) float64.
        columns: (d,) float64.
    """

    rows: Tensor
    columns: Tensor

    @staticmethod
    def of(row_sums: Tensor, column_sums: Tensor) -> Metric:
        """Of the mean row and column sums of squared gradients, (V,) and (d,) float64."""
        rows = 1.0 / ((row_sums / len(column_sums)).sqrt() + EPS)
        share = column_sums / column_sums.mean().clamp_min(1e-300)
        columns = 1.0 / share.sqrt().clamp_min(_LEAST_COLUMN)
        return Metric(rows / rows.mean(), columns)  # within float32's range whatever the gradients' size


class _Means(LessHead):
    """:class:`LessHead` bound to a model.

    Attributes:
        matrices: (sets, V, d) mean unit gradient of each set, scaled by its metric.
        metrics: the metric of each set.
    """

    def __init__(self, criterion: LessHead, matrices: Tensor, metrics: Sequence[Metric]) -> None:
        self.sets, self.matrices, self.metrics = criterion.sets, matrices, tuple(metrics)

    def of_batch(self, view: BatchView) -> Tensor:
        """(n, sets)."""
        dots = gradient_dots(
            view.hidden, view.head.weight, view.labels, view.cu_seqlens, self.matrices, **_options(view)
        )
        return dots / torch.stack([_norms(view, metric) for metric in self.metrics], 1)


class _Largest(LessHeadMax):
    """:class:`LessHeadMax` bound to a model.

    Attributes:
        references: one batch per set.
        metrics: the metric of each set.
    """

    def __init__(self, criterion: LessHeadMax, references: Sequence[ReferenceBatch], metrics: Sequence[Metric]) -> None:
        self.sets, self.references, self.metrics = criterion.sets, tuple(references), tuple(metrics)

    def of_batch(self, view: BatchView) -> Tensor:
        """(n, sets)."""
        columns = []
        for one, metric in zip(self.references, self.metrics, strict=True):
            products = scaled_products(
                view.hidden,
                view.labels,
                view.cu_seqlens,
                one.hidden,
                one.labels,
                one.cu_seqlens,
                view.head.weight,
                metric.rows,
                metric.columns,
                **_options(view),
            )
            columns.append(largest_cosine(products, _norms(view, metric), one))
        return torch.stack(columns, 1)


def _norms(view: BatchView, metric: Metric) -> Tensor:
    """(n,) lengths of the rows' gradients in a metric."""
    return scaled_norms(
        view.hidden, view.head.weight, view.labels, view.cu_seqlens, metric.rows, metric.columns, **_options(view)
    )


class _Options(TypedDict):
    reduction: str
    workspace_bytes: int
    bias: Tensor | None
    logit_scale: float
    softcap: float | None


def _options(view: BatchView) -> _Options:
    head = view.head
    return {
        "reduction": view.reduction,
        "workspace_bytes": view.workspace_bytes,
        "bias": head.bias,
        "logit_scale": head.logit_scale,
        "softcap": head.softcap,
    }


class _Moments:
    """Row and column sums of the squared gradients of references, batch by batch."""

    def __init__(self, context: Context) -> None:
        self._context = context
        weight = context.head.weight
        self._rows, self._columns = (weight.new_zeros(size, dtype=torch.float64) for size in weight.shape)

    @torch.inference_mode()
    def add(self, batch: ReferenceBatch) -> None:
        """Add the references of a batch."""
        head = self._context.head
        rows, columns = squared_sums(
            batch.hidden,
            head.weight,
            batch.labels,
            batch.cu_seqlens,
            reduction=self._context.reduction,
            bias=head.bias,
            logit_scale=head.logit_scale,
            softcap=head.softcap,
        )
        self._rows, self._columns = self._rows + rows, self._columns + columns

    def metric(self, references: int) -> Metric:
        """The metric of so many references."""
        return Metric.of(self._rows / references, self._columns / references)


__all__ = ["EPS", "LessHead", "LessHeadMax", "Metric"]
