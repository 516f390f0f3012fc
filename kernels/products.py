"""⟨G_i, G_j⟩ between two sets of samples: the streamed gradient interaction matrix of the output layer.

    ⟨G_i, G_j⟩ = Σ_{t ∈ i} Σ_{s ∈ j} (ε_t · ε_s)(h_t · h_s)

with ε and h as in ``softmax.py``. Neither a gradient nor a tokens × vocabulary array is formed: after the normalisers,
error signals are computed for one range of the vocabulary at a time, and their products are summed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from donod_fast.errors import BackendError, InputError
from donod_fast.kernels.arguments import (
    DEFAULT_WORKSPACE,
    HeadArguments,
    HeadBatch,
    check_plain_call,
    gather_batch,
    prefers_torch,
)
from donod_fast.kernels.precision import full_precision
from donod_fast.kernels.scores import precise_dtype
from donod_fast.kernels.softmax import (
    RunningRows,
    TokenStatistics,
    constant_slope,
    delta_columns,
    label_preactivations,
)

_BLOCK = 512  # tokens of either side multiplied at a time


def gradient_products(
    hidden: Tensor,  # (tokens, dim) float64, float32, bfloat16 or float16
    labels: Tensor,  # (tokens,) int64 or int32, −100 is not scored
    cu_seqlens: Tensor,  # (samples + 1,) int32
    other_hidden: Tensor,  # (other tokens, dim)
    other_labels: Tensor,  # (other tokens,)
    other_cu_seqlens: Tensor,  # (other samples + 1,) int32
    weight: Tensor,  # (vocab, dim)
    *,
    reduction: str = "mean",
    bias: Tensor | None = None,  # (vocab,)
    logit_scale: float = 1.0,
    softcap: float | None = None,
    backend: str = "auto",
    workspace_bytes: int = DEFAULT_WORKSPACE,
) -> Tensor:
    """Inner products of output-layer gradients between two sets of samples, (samples, other samples) float64.

    The diagonal for a set with itself is ‖G‖², the square of ``update_norm`` of ``don_nod(update="sgd")``. An entry is
    NaN if either sample has no scored token. The arguments are as in ``don_nod``. The workspace limits the memory
    in addition to the arguments, the result, and one number per pair of token tiles.

    Raises:
        InputError: names the argument with a wrong shape, dtype, device or value.
        BackendError: the named backend does not support the input.
    """
    if backend not in ("auto", "torch", "triton"):
        raise InputError(f"backend must be one of ('auto', 'torch', 'triton'), got {backend!r}")
    if other_hidden.ndim != 2 or other_hidden.shape[1:] != hidden.shape[1:]:
        raise InputError(f"other_hidden must be (tokens, {hidden.shape[-1]}), got {tuple(other_hidden.shape)}")
    if other_hidden.dtype != hidden.dtype or other_hidden.device != hidden.device:
        raise InputError(
            f"other_hidden must be {hidden.dtype} on {hidden.device}, got {other_hidden.dtype} on {other_hidden.device}"
        )
    sides = [
        check_plain_call(
            states,
            weight,
            targets,
            bounds,
            bias=bias,
            logit_scale=logit_scale,
            softcap=softcap,
            workspace_bytes=workspace_bytes,
            reduction=reduction,
        )
        for states, targets, bounds in ((hidden, labels, cu_seqlens), (other_hidden, other_labels, other_cu_seqlens))
    ]
    if backend == "torch" or (backend == "auto" and prefers_torch(hidden.device)):
        return torch_products(gather_batch(sides[0]), gather_batch(sides[1]))
    reason = _why_not_triton(sides[0], sides[1])
    if reason is None:
        from donod_fast.kernels.triton_backend.products import attempt_products

        found = attempt_products(sides[0], sides[1])
        if found is not None:
            return found
        reason = _why_not_triton(sides[0], sides[1])
    if backend == "triton":
        raise BackendError(f"backend 'triton' does not support this call: {reason}; use 'torch' or 'auto'")
    return torch_products(gather_batch(sides[0]), gather_batch(sides[1]))


def _why_not_triton(left: HeadArguments, right: HeadArguments) -> str | None:
    try:
        from donod_fast.kernels.triton_backend.products import supports
    except ImportError as error:
        return f"Triton cannot be imported ({error})"
    return supports(left, right)


@torch.no_grad()
def torch_products(left: HeadBatch, right: HeadBatch, scales: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Implementation in plain PyTorch, for any device.

    ``scales``, (vocab,) and (dim,) in the compute dtype, multiply the rows and the columns of the left gradients.
    """
    with full_precision(left.hidden.device):
        sides = (TokenSide.of(left), TokenSide.of(right))
        vocab, dim = left.weight.shape
        size = torch.finfo(left.compute_dtype).bits // 8
        tokens = max(1, len(sides[0].labels) + len(sides[1].labels))
        width = max(
            1, min(vocab, left.workspace_bytes // (4 * size * tokens), left.workspace_bytes // (4 * size * dim))
        )
        total = left.hidden.new_zeros((len(left.lengths), len(right.lengths)), dtype=precise_dtype(left.hidden.device))
        for first in range(0, vocab, width):
            signals = [side.signals(first, width) for side in sides]
            if scales is not None:
                signals[0] *= scales[0][first : first + width]
            for a in sides[0].blocks():
                own = sides[0].states(a) if scales is None else sides[0].states(a) * scales[1]
                for b in sides[1].blocks():
                    states = own @ sides[1].states(b).t()
                    product = (signals[0][a] @ signals[1][b].t()).mul_(states).to(total.dtype)
                    rows, columns = sides[0].members(a, total.dtype), sides[1].members(b, total.dtype)
                    total[rows[1], columns[1]] += rows[0].t() @ product @ columns[0]
        scale = sides[0].scale.unsqueeze(1) * sides[1].scale
        return total * scale


@dataclass(frozen=True, slots=True, eq=False)
class TokenSide:
    """One set of samples: its batch and the normalisers of its tokens.

    Attributes:
        labels, relative, sample: (scored,) labels, magnitudes relative to the sample's largest, sample numbers.
        log_rest: (scored,) normaliser of the softmax without the label.
        scale: (samples,) largest magnitude; NaN for a sample without a scored token.
    """

    batch: HeadBatch
    labels: Tensor
    relative: Tensor
    sample: Tensor
    log_rest: Tensor
    scale: Tensor

    @staticmethod
    def of(batch: HeadBatch) -> TokenSide:
        """Compute the normalisers, for one block of tokens and one range of the vocabulary at a time."""
        precise = precise_dtype(batch.hidden.device)
        vocab = batch.weight.shape[0]
        width = max(1, batch.workspace_bytes // (16 * _BLOCK * torch.finfo(batch.compute_dtype).bits // 8))
        parts = []
        for start in range(0, len(batch.labels), _BLOCK):
            rows, labels = batch.rows[start : start + _BLOCK], batch.labels[start : start + _BLOCK]
            hidden = batch.hidden[rows].to(batch.compute_dtype)
            label_a = label_preactivations(hidden, batch.weight, labels)
            running = RunningRows(labels, label_a, batch.head, batch.compute_dtype)
            for v in range(0, vocab, width):
                running.add(hidden @ batch.weight[v : v + width].to(batch.compute_dtype).t(), v)
            parts.append(running.finish())
        lengths = torch.tensor(batch.lengths, device=batch.labels.device)
        sample = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
        if not parts:
            empty = batch.hidden.new_zeros(0, dtype=precise)
            return TokenSide(batch, batch.labels, empty, sample, empty, empty.new_full((len(lengths),), torch.nan))
        statistics = TokenStatistics.cat(parts)
        largest = [
            statistics.log_miss[start:stop].amax() if stop > start else statistics.log_miss.new_tensor(torch.nan)
            for start, stop in zip(batch.bounds, batch.bounds[1:], strict=False)
        ]
        top = torch.stack(largest)
        slope = constant_slope(batch.head)
        weights = torch.tensor([batch.token_weight(max(n, 1)) for n in batch.lengths], dtype=precise, device=top.device)
        relative = torch.exp(statistics.log_miss - top[sample])
        return TokenSide(
            batch,
            batch.labels,
            relative.to(batch.compute_dtype),
            sample,
            statistics.log_rest,
            top.exp() * weights * slope,
        )

    def blocks(self) -> list[slice]:
        return [slice(start, start + _BLOCK) for start in range(0, len(self.labels), _BLOCK)]

    def states(self, block: slice) -> Tensor:
        """Hidden states of a block times magnitudes."""
        return self.batch.hidden[self.batch.rows[block]].to(self.batch.compute_dtype) * self.relative[block].unsqueeze(
            1
        )

    def signals(self, first: int, width: int) -> Tensor:
        """D of every token for some columns of the vocabulary."""
        batch = self.batch
        weight = batch.weight[first : first + width].to(batch.compute_dtype)
        out = weight.new_empty((len(self.labels), weight.shape[0]))
        for block in self.blocks():
            a = batch.hidden[batch.rows[block]].to(batch.compute_dtype) @ weight.t()
            out[block] = delta_columns(a, self.labels[block], first, self.log_rest[block], batch.head)
        return out

    def members(self, block: slice, dtype: torch.dtype) -> tuple[Tensor, slice]:
        """(tokens, samples) membership of the tokens of a block in the samples that it overlaps."""
        sample = self.sample[block]
        first, last = int(sample[0]), int(sample[-1]) + 1
        place = torch.nn.functional.one_hot(sample - first, last - first)
        return place.to(dtype), slice(first, last)
