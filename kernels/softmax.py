"""Token statistics and error signals of the softmax, exact at any confidence.

For a token with label y let q be the softmax over all columns *but* y and u = 1 − p_y. Then

    p − onehot(y) = u · (q − onehot(y)),          u = sigmoid(lse_{v≠y} z_v − z_y)
    ε = w · u · D,                                D = (q − onehot(y)) ∘ f′(a)
    loss = softplus(lse_{v≠y} z_v − z_y)
    entropy = p_y · loss + u · (−log u + H(q))
    ‖p − onehot(y)‖ = u · √(1 + Σ_{v≠y} q_v²)
    ε · a = w · u · (Σ_{v≠y} q_v f′_v a_v − f′_y a_y)

D is of order one for any confidence, and u has the magnitude. So nothing is rounded against 1: a token with
p_y = 1 − 1e-17 keeps all its digits. (Subtracting 1 from a rounded p_y would destroy them.)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from donod_fast.kernels.head_map import HeadMap
from donod_fast.kernels.scores import precise_dtype

# Replaces −∞ in an excluded column: exp gives 0, and 0 · z is 0, whereas 0 · (−inf) is NaN.
_LEFT_OUT = -1e30


@dataclass(frozen=True, slots=True)
class TokenStatistics:
    """Statistics of scored tokens, all (tokens,) in the precise dtype.

    Attributes:
        loss: −log p_y in nats.
        entropy: entropy of p in nats.
        log_miss: log u = log(1 − p_y).
        dot: Σ_v ε_v a_v / (w u), the token's share of ⟨W, G⟩.
        log_rest: lse_{v≠y} z_v, the normaliser of q.
        squares: Σ_{v≠y} q_v², or None unless requested.
    """

    loss: Tensor
    entropy: Tensor
    log_miss: Tensor
    dot: Tensor
    log_rest: Tensor
    squares: Tensor | None = None

    @property
    def error_norm(self) -> Tensor:
        """‖p − onehot(y)‖ of each token; requires ``squares``."""
        assert self.squares is not None
        return torch.exp(self.log_miss) * torch.sqrt(1.0 + self.squares)

    @staticmethod
    def of(
        log_rest: Tensor, mean_rest: Tensor, label_logit: Tensor, dot: Tensor, squares: Tensor | None = None
    ) -> TokenStatistics:
        """Compute the statistics from lse_{v≠y} z, Σ q z, z_y, the dot product above, and Σ q²."""
        margin = log_rest - label_logit
        # The threshold keeps softplus exact in float64 (by default it returns x from 20 on).
        loss = F.softplus(margin, threshold=60.0)
        log_miss = -F.softplus(-margin, threshold=60.0)
        label_share = torch.where(loss.isposinf(), 0.0, torch.exp(-loss) * loss)  # −p_y log p_y
        entropy = label_share + torch.exp(log_miss) * (log_rest - mean_rest - log_miss)
        return TokenStatistics(loss, entropy, log_miss, dot, log_rest, squares)

    @staticmethod
    def cat(parts: list[TokenStatistics]) -> TokenStatistics:
        """Join the statistics of consecutive token blocks."""
        names = [name for name in TokenStatistics.__slots__ if getattr(parts[0], name) is not None]
        return TokenStatistics(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def label_preactivations(
    hidden: Tensor,  # (tokens, dim) compute dtype
    weight: Tensor,  # (vocab, dim)
    labels: Tensor,  # (tokens,)
) -> Tensor:
    """Compute a_y = W_y · h of each token in the precise dtype, (tokens,); this is cheap, tokens · dim operations."""
    precise = precise_dtype(hidden.device)
    block = max(1, (1 << 18) // hidden.shape[1])
    parts = [
        torch.linalg.vecdot(hidden[i : i + block].to(precise), weight[labels[i : i + block]].to(precise))
        for i in range(0, hidden.shape[0], block)
    ]
    return torch.cat(parts)


def fill_preactivations(
    hidden: Tensor,  # (tokens, dim) compute dtype
    weight: Tensor,  # (vocab, dim) any floating dtype
    out: Tensor,  # (tokens, vocab) compute dtype
    block: int,
) -> None:
    """Compute out = hidden · Wᵀ; a W of another dtype is cast ``block`` rows at a time."""
    if weight.dtype == hidden.dtype:
        torch.mm(hidden, weight.t(), out=out)
        return
    for v in range(0, weight.shape[0], block):
        out[:, v : v + block] = hidden @ weight[v : v + block].to(hidden.dtype).t()


def normalise_rows(
    a: Tensor,  # (tokens, vocab) pre-activations; overwritten with D
    labels: Tensor,  # (tokens,)
    label_a: Tensor,  # (tokens,) precise: W_y · h
    head: HeadMap,
    row_block: int,
    *,
    squares: bool = False,
) -> TokenStatistics:
    """Turn whole rows of pre-activations into D in place and return the tokens' statistics.

    ``row_block`` rows are processed at a time; they should fit into a cache together with their scratch memory.
    ``squares`` requests the statistic of that name. D omits the factor ``logit_scale`` if f′ is constant;
    ``constant_slope`` returns it.
    """
    precise = label_a.dtype
    index = labels.unsqueeze(1)
    if head.plain:
        a.scatter_(1, index, _LEFT_OUT)
    # Rows: max z, Σ e^(z − max), Σ e^(z − max) z, Σ e^(z − max) f′ a if f′ a ≠ z, and on request Σ e^2(z − max).
    sums = a.new_empty((5 if squares else 4, len(labels), 1))
    scratch = a.new_empty((min(row_block, len(labels)), a.shape[1]))
    for start in range(0, len(labels), row_block):
        rows = slice(start, start + row_block)
        _normalise_block(a[rows], index[rows], head, scratch, sums[:, rows])
    top, rest, sum_z, sum_a, *sum_squares = sums.squeeze(2).to(precise)
    mean_rest = sum_z / rest
    slope = head.derivative(label_a, labels)
    if head.plain:
        dot = mean_rest - label_a
        label_column: Tensor | float = -1.0
    elif isinstance(slope, Tensor):
        dot = sum_a / rest - slope * label_a
        label_column = -slope.to(a.dtype).unsqueeze(1)
    else:
        dot = slope * (sum_a / rest - label_a)
        label_column = -1.0
    a.scatter_(1, index, label_column)
    square = sum_squares[0] / rest.square() if squares else None
    return TokenStatistics.of(top + rest.log(), mean_rest, head.logits(label_a, labels), dot, square)


def _normalise_block(a: Tensor, index: Tensor, head: HeadMap, scratch: Tensor, sums: Tensor) -> None:
    """Overwrite a block of pre-activations with q ∘ f′ (f′ only if it is not constant) and fill in its sums."""
    z = a
    if not head.plain:
        z = head.logits(a)
        if head.bias is not None:
            z.clamp_min_(_LEFT_OUT)  # vocabulary rows masked by a bias of −inf
        z.scatter_(1, index, _LEFT_OUT)
    top, rest, sum_z, sum_a, *sum_squares = sums
    torch.amax(z, 1, keepdim=True, out=top)
    e = torch.sub(z, top, out=scratch[: len(a)]).exp_()
    torch.sum(e, 1, keepdim=True, out=rest)
    sum_z.copy_(torch.linalg.vecdot(e, z).unsqueeze(1))
    for squares in sum_squares:
        squares.copy_(torch.linalg.vecdot(e, e).unsqueeze(1))
    if not head.plain:
        if head.softcap is not None:
            e.mul_(head.derivative(a))
        sum_a.copy_(torch.linalg.vecdot(e, a).unsqueeze(1))
    torch.mul(e, rest.reciprocal(), out=a)


def constant_slope(head: HeadMap) -> float:
    """Factor of D that ``normalise_rows`` and ``delta_columns`` omit; the caller multiplies by it."""
    return 1.0 if head.softcap is not None else head.logit_scale


class RunningRows:
    """Statistics of ``normalise_rows`` for a vocabulary in chunks, in one online pass."""

    def __init__(
        self, labels: Tensor, label_a: Tensor, head: HeadMap, dtype: torch.dtype, *, squares: bool = False
    ) -> None:
        """Start for (tokens,) ``labels`` with ``label_a`` = W_y · h in the precise dtype."""
        self._labels, self._label_a, self._head = labels, label_a, head
        self._top = torch.full_like(label_a, -torch.inf, dtype=dtype)
        self._rest = torch.zeros_like(label_a)
        self._sum_z = torch.zeros_like(label_a)
        self._sum_a = torch.zeros_like(label_a)
        self._squares = torch.zeros_like(label_a) if squares else None

    def add(self, a: Tensor, first: int) -> None:
        """Add the (tokens, n) pre-activations of vocabulary rows ``first`` … ``first + n``."""
        head, columns = self._head, slice(first, first + a.shape[1])
        precise = self._rest.dtype
        z = head.logits(a, columns)
        if head.bias is not None:
            z.clamp_min_(_LEFT_OUT)
        put_column(z, self._labels - first, _LEFT_OUT)
        top = torch.maximum(self._top, z.amax(1))
        shrink = torch.exp((self._top - top).to(precise))
        q = torch.exp(z - top.unsqueeze(1))
        self._rest = self._rest * shrink + q.sum(1).to(precise)
        self._sum_z = self._sum_z * shrink + torch.linalg.vecdot(q, z).to(precise)
        if self._squares is not None:
            self._squares = self._squares * shrink.square() + torch.linalg.vecdot(q, q).to(precise)
        if not head.plain:
            if head.softcap is not None:
                q.mul_(head.derivative(a, columns))
            self._sum_a = self._sum_a * shrink + torch.linalg.vecdot(q, a).to(precise)
        self._top = top

    def finish(self) -> TokenStatistics:
        """Statistics, after every vocabulary row has been added."""
        head, label_a = self._head, self._label_a
        mean_rest = self._sum_z / self._rest
        if head.plain:
            dot = mean_rest - label_a
        elif head.softcap is None:
            dot = head.logit_scale * (self._sum_a / self._rest - label_a)
        else:
            dot = self._sum_a / self._rest - head.derivative(label_a, self._labels) * label_a
        log_rest = self._top.to(mean_rest.dtype) + self._rest.log()
        squares = None if self._squares is None else self._squares / self._rest.square()
        return TokenStatistics.of(log_rest, mean_rest, head.logits(label_a, self._labels), dot, squares)


def delta_columns(
    a: Tensor,  # (tokens, n) pre-activations of vocabulary rows first … first + n; overwritten
    labels: Tensor,  # (tokens,)
    first: int,
    log_rest: Tensor,  # (tokens,)
    head: HeadMap,
) -> Tensor:
    """Compute D for some columns of the vocabulary from a known normaliser: (tokens, n)."""
    columns = slice(first, first + a.shape[1])
    q = torch.exp(head.logits(a, columns) - log_rest.to(a.dtype).unsqueeze(1))
    if head.softcap is None:
        return put_column(q, labels - first, -1.0)
    slope = head.derivative(a, columns)
    assert isinstance(slope, Tensor)
    q.mul_(slope)
    return put_column(q, labels - first, -slope)


def put_column(z: Tensor, index: Tensor, value: float | Tensor) -> Tensor:
    """Write ``value`` at column ``index[t]`` of row t in place, for the rows whose index lies inside."""
    inside = (index >= 0) & (index < z.shape[1])
    column = index.clamp(0, z.shape[1] - 1).unsqueeze(1)
    new = value.gather(1, column) if isinstance(value, Tensor) else torch.full_like(column, value, dtype=z.dtype)
    return z.scatter_(1, column, torch.where(inside.unsqueeze(1), new, z.gather(1, column)))
