"""‖G‖² of a linear update from two N × N Gram matrices (the "ghost norm"): no gradient is formed.

‖G‖² = Σ_t Σ_s (ε_t · ε_s)(h_t · h_s)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from donod_fast.kernels.scores import precise_dtype
from donod_fast.kernels.workspace import GRAM_BLOCK


def gram_norm_squared(
    signals: Tensor,  # (tokens, vocab) error signals D
    hidden: Tensor,  # (tokens, dim) hidden states times the tokens' magnitudes
) -> Tensor:
    """Compute Σ_ts (D_t · D_s)(h_t · h_s), a 0-dim tensor in the precise dtype.

    Each block of rows is multiplied with the rows up to its own end only. By symmetry this halves the work for long
    samples.
    """
    precise = precise_dtype(hidden.device)
    total = hidden.new_zeros((), dtype=precise)
    for start in range(0, hidden.shape[0], GRAM_BLOCK):
        stop = min(start + GRAM_BLOCK, hidden.shape[0])
        products = (hidden[start:stop] @ hidden[:stop].t()).mul_(signals[start:stop] @ signals[:stop].t())
        whole = products.sum(dtype=precise)
        total += 2.0 * whole - products[:, start:].sum(dtype=precise) if start else whole
    return total


def weighted_gram_sum(
    signal_gram: Tensor,  # (tokens, tokens) D Dᵀ
    hidden: Callable[[slice], Tensor],  # token block → its hidden states times magnitudes
    blocks: Sequence[slice],
) -> Tensor:
    """The same sum from a known D Dᵀ, with hidden states block by block."""
    precise = precise_dtype(signal_gram.device)
    total = signal_gram.new_zeros((), dtype=precise)
    for i, rows in enumerate(blocks):
        left = hidden(rows)
        for j, columns in enumerate(blocks[: i + 1]):
            right = left if i == j else hidden(columns)
            part = (left @ right.t()).mul_(signal_gram[rows, columns]).sum(dtype=precise)
            total += part if i == j else 2.0 * part
    return total
