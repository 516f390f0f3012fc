"""Row and column sums of the gradient interaction matrix, in one pass over the candidates.

To first order M_ip = η v_p g_ip: its row sum is η⟨v, g_i⟩ and its column sum η v_p Σ_i g_ip, so a batch adds one
product of error signals and inputs to each parameter, and per-sample gradients are not formed. The output layer's row
sums come from the cross-sample kernel (⟨G_i, G_j⟩ of candidate and reference row, see ``kernels/products.py``) if the
reference set is small, otherwise from the matrix v (Σ_t ε_t · (v h_t)); both are equal, and the cheaper one is used.

The second order adds −(η²/2) g_ip (H g_i)_p, one candidate at a time (``gauss_newton.py``). Then the gradient g_i and
H g_i are formed for the inner layers, and for the output layer in blocks of vocabulary rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import torch
from torch import Tensor

from donod_fast.data.types import Status, TokenizedSample
from donod_fast.errors import InputError, ModelError
from donod_fast.kernels import DEFAULT_WORKSPACE, gradient_products
from donod_fast.models.batching import make_batches
from donod_fast.scoring.sample_scorer import Progress
from donod_fast.selection.dual.backward import Backward, run_backward
from donod_fast.selection.dual.gauss_newton import GaussNewton
from donod_fast.selection.dual.layers import Chosen
from donod_fast.selection.dual.objective import Objective
from donod_fast.selection.settings import ORDERS
from donod_fast.system.memory import is_out_of_memory
from donod_fast.system.wording import plural

ROW_SUMS = ("auto", "kernel", "matrix")


@dataclass(frozen=True, slots=True)
class Utility:
    """The row sum of one candidate.

    Attributes:
        row, id: number and id of the input row.
        status: ``scored``, or why it is not scored.
        detail: one line that explains the status, "" if scored.
        scored_tokens: number of target tokens.
        loss: mean loss in nats.
        first: Σ_p M_ip to first order: how much a step on this row alone lowers the reference loss; NaN if not scored.
        second: the same to second order; NaN if only the first order was requested.
    """

    row: int
    id: str
    status: str
    detail: str = ""
    scored_tokens: int = 0
    loss: float = math.nan
    first: float = math.nan
    second: float = math.nan


@dataclass(frozen=True, eq=False)
class Interactions:
    """Row and column sums of the matrix.

    Attributes:
        utilities: one per candidate, in the given order.
        importance: Σ_i M_ip in the weight's shape, by parameter name, to the chosen order.
        order: ``"first"`` or ``"second"``.
    """

    utilities: list[Utility] = field(repr=False)
    importance: dict[str, Tensor] = field(repr=False)
    order: str


def interact(
    chosen: Chosen,
    objective: Objective,
    chunks: Iterable[Sequence[TokenizedSample]],
    *,
    lr: float,
    order: str = "first",
    row_sums: str = "auto",
    token_budget: int = 2048,
    workspace_bytes: int = DEFAULT_WORKSPACE,
    progress: Progress | None = None,
) -> Interactions:
    """Compute the row and column sums of the matrix.

    Args:
        chosen: model and parameters.
        objective: the reference set's loss.
        chunks: tokenised candidates in chunks; each chunk is batched separately.
        lr: η, the step size of plain gradient descent on one candidate.
        order: ``"first"`` or ``"second"``.
        row_sums: method for the output layer's row sums: ``"kernel"``, ``"matrix"`` or ``"auto"`` (the cheaper one).
        token_budget: number of token slots of a batch.
        workspace_bytes: memory limit of the output layer's computation, in bytes.
        progress: called with (rows, tokens) after each batch.

    Raises:
        InputError: an argument has an unknown value.
        ModelError: the trunk cannot be differentiated twice, or memory is too small for that (second order).
    """
    if order not in ORDERS:
        raise InputError(f"order must be first or second, got {order!r}")
    if row_sums not in ROW_SUMS:
        raise InputError(f"row_sums must be one of {ROW_SUMS}, got {row_sums!r}")
    if not (math.isfinite(lr) and lr > 0):
        raise InputError(f"lr must be a finite number above zero, got {lr!r}")
    with chosen.differentiable():
        curvature = GaussNewton(chosen, objective) if order == "second" else None
        pass_ = _Pass(chosen, objective, curvature, lr, row_sums, workspace_bytes)
        utilities: list[Utility] = []
        for chunk in chunks:
            utilities += pass_.chunk(chunk, token_budget, progress)
    return Interactions(utilities, pass_.importance(), order)


class _Pass:
    """Accumulates the sums."""

    def __init__(
        self,
        chosen: Chosen,
        objective: Objective,
        curvature: GaussNewton | None,
        lr: float,
        row_sums: str,
        workspace_bytes: int,
    ) -> None:
        self._chosen, self._objective, self._curvature = chosen, objective, curvature
        self._lr, self._row_sums, self._workspace = lr, row_sums, workspace_bytes
        self._gradients = chosen.zeros()  # Σ_i g_i
        self._curved = chosen.zeros() if curvature is not None else {}  # Σ_i g_i ∘ H g_i

    def importance(self) -> dict[str, Tensor]:
        """Column sums: Σ_i M_ip."""
        lr, v = self._lr, self._objective.gradient
        first = {name: lr * v[name] * total for name, total in self._gradients.items()}
        if self._curvature is None:
            return first
        return {name: value - 0.5 * lr * lr * self._curved[name] for name, value in first.items()}

    def chunk(self, samples: Sequence[TokenizedSample], token_budget: int, progress: Progress | None) -> list[Utility]:
        found = [_unscored(sample) for sample in samples]
        ready = [at for at, sample in enumerate(samples) if sample.status is Status.SCORED and sample.scored_tokens]
        if progress is not None:
            progress(len(samples) - len(ready), 0)
        waiting = make_batches([samples[at] for at in ready], token_budget, packs=False)
        groups = [tuple(ready[i] for i in group) for group in waiting][::-1]
        while groups:
            group = groups.pop()
            rows = self._tried(samples, group)
            if rows is None and len(group) > 1:  # out of memory: try its halves
                groups += [group[len(group) // 2 :], group[: len(group) // 2]]
                continue
            for at, row in zip(group, rows or [_too_large(samples[at]) for at in group], strict=True):
                found[at] = row
            if progress is not None:
                progress(len(group), sum(len(samples[at].input_ids) for at in group))
        return found

    def _tried(self, samples: Sequence[TokenizedSample], group: tuple[int, ...]) -> list[Utility] | None:
        """The row sums of the group, after adding its share to the columns; None if memory ran out before that."""
        try:
            done = run_backward(self._chosen, samples, group, workspace_bytes=self._workspace)
            first = self._first(done)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return None
        losses = done.losses()
        rows = []
        for at, (member, loss, value) in enumerate(zip(group, losses, first, strict=True)):
            sample = samples[member]
            if not (math.isfinite(loss) and math.isfinite(value)):
                rows.append(_non_finite(sample))
                continue
            row = Utility(sample.row, sample.id, str(Status.SCORED), "", sample.scored_tokens, loss, self._lr * value)
            if self._curvature is not None:
                quadratic = self._curved_row(done, at)
                if not math.isfinite(quadratic):
                    rows.append(_non_finite(sample))
                    continue
                row = replace(row, second=row.first - 0.5 * self._lr**2 * quadratic)
            rows.append(row)
        self._add(done, [at for at, row in enumerate(rows) if row.status == Status.SCORED])
        return rows

    def _first(self, done: Backward) -> list[float]:
        """⟨v, g_i⟩ of each sample."""
        chosen, v = self._chosen, self._objective.gradient
        total = torch.zeros(len(done.bounds) - 1, dtype=torch.float64)
        for layer in chosen.inner:
            name = layer.parameter
            total += layer.dot(v[name], done.inputs[name], done.deltas[name]).cpu()
        if chosen.output is not None:
            how = self._row_sums
            if how == "auto":
                how = "kernel" if self._kernel_is_less(len(done.labels)) else "matrix"
            total += (self._by_kernel(done) if how == "kernel" else self._by_matrix(done, v[chosen.output])).cpu()
        return list(map(float, total))

    def _kernel_is_less(self, tokens: int) -> bool:
        """Multiply-adds per candidate token: of all pairs and the reference's logits, and of one product with v."""
        vocab, dim = self._chosen.head.weight.shape
        return self._objective.tokens * (vocab + dim + vocab * dim / max(1, tokens)) < vocab * dim

    def _by_kernel(self, done: Backward) -> Tensor:
        head, reference = self._chosen.head, self._objective
        # A sample that is not finite shows in its loss; in the kernel's sums it would affect other samples.
        states = torch.where(done.signals.loss.isfinite().unsqueeze(1), done.signals.hidden, 0)
        products = gradient_products(
            states,
            done.labels,
            torch.tensor(done.bounds, dtype=torch.int32, device=states.device),
            reference.hidden,
            reference.labels,
            reference.bounds.to(states.device),
            head.weight,
            bias=head.bias,
            logit_scale=head.logit_scale,
            softcap=head.softcap,
            workspace_bytes=self._workspace,
        )
        found: Tensor = products.double().cpu() @ reference.shares
        return found

    def _by_matrix(self, done: Backward, v: Tensor) -> Tensor:
        signals = done.signals
        tokens = torch.zeros(len(done.labels), dtype=torch.float64)
        for columns, tile in signals.tiles():
            tokens += torch.linalg.vecdot(tile, signals.hidden @ v[columns].t()).double().cpu()
        return torch.stack([tokens[a:b].sum() for a, b in pairwise(done.bounds)])

    def _curved_row(self, done: Backward, at: int) -> float:
        try:
            return self._second(done, at)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            reason = (
                f"memory ran out in a product with the curvature of "
                f"{plural(self._objective.tokens, 'reference token')}; give "
                "fewer reference rows or layers, or --order first"
            )
        raise ModelError(reason)

    def _second(self, done: Backward, at: int) -> float:
        """gᵀHg of one sample, and g ∘ Hg added to the columns."""
        assert self._curvature is not None
        chosen = self._chosen
        inner = {
            layer.parameter: layer.gradient(done.inputs[layer.parameter][at], done.deltas[layer.parameter][at])
            for layer in chosen.inner
        }
        tokens = slice(done.bounds[at], done.bounds[at + 1])
        states = done.signals.hidden[tokens]
        signals = None if chosen.output is None else done.signals.whole(tokens)
        product = self._curvature.product(inner, signals, None if signals is None else states)
        if not math.isfinite(product.quadratic):
            return product.quadratic
        for name, gradient in inner.items():
            self._curved[name] += gradient * product.inner[name]
        if chosen.output is not None and signals is not None:
            vocab, dim = chosen.head.weight.shape
            width = max(1, self._workspace // (4 * states.element_size() * dim))
            for first in range(0, vocab, width):
                columns = slice(first, first + width)
                gradient = signals[:, columns].t() @ states
                curved = self._curvature.output_columns(product.residuals, columns)
                self._curved[chosen.output][columns] += gradient * curved
        return product.quadratic

    def _add(self, done: Backward, good: list[int]) -> None:
        """Σ_i g_i of the samples that have a score."""
        chosen, whole = self._chosen, len(good) == len(done.bounds) - 1
        for layer in chosen.inner:
            a, delta = done.inputs[layer.parameter], done.deltas[layer.parameter]
            self._gradients[layer.parameter] += layer.gradient(*((a, delta) if whole else (a[good], delta[good])))
        if chosen.output is not None:
            keep = torch.cat([torch.arange(done.bounds[at], done.bounds[at + 1]) for at in good]) if good else None
            if keep is None:
                return
            for columns, tile in done.signals.tiles():
                states = done.signals.hidden
                if not whole:
                    tile, states = tile[keep], states[keep]
                self._gradients[chosen.output][columns] += tile.t() @ states


def _unscored(sample: TokenizedSample) -> Utility:
    status = Status.ALL_MASKED if sample.status is Status.SCORED else sample.status
    return Utility(sample.row, sample.id, str(status), sample.detail)


def _non_finite(sample: TokenizedSample) -> Utility:
    detail = "the model's gradient is NaN or infinite on this row; try --dtype float32"
    return Utility(sample.row, sample.id, str(Status.NON_FINITE), detail)


def _too_large(sample: TokenizedSample) -> Utility:
    detail = f"{len(sample.input_ids)} tokens do not fit in memory, even alone; lower --max-length"
    return Utility(sample.row, sample.id, str(Status.OUT_OF_MEMORY), detail)


__all__ = ["Interactions", "Utility", "interact"]
