"""‖G‖² of a linear update from two N × N Gram matrices (the "ghost norm"): no gradient is formed.

‖G‖² = Σ_t Σ_s (ε_t · ε_s)(h_t · h_s)
"""

from __future__ import annotations

from torch import Tensor

from donod_fast.kernels.scores import precise_dtype
from donod_fast.kernels.workspace import GRAM_BLOCK


def gram_norm_squared(
    signals: Tensor,  # (tokens, vocab) error signals D
    hidden: Tensor,  # (tokens, dim) hidden states times the tokens' magnitudes
    signal_gram: Tensor | None = None,  # (tokens, tokens) D Dᵀ where it is known already
) -> Tensor:
    """Σ_ts (D_t · D_s)(h_t · h_s), a 0-dim tensor in the precise dtype.

    Blocks of rows against the rows up to their own use the symmetry: half the work for long samples.
    """
    precise = precise_dtype(hidden.device)
    total = hidden.new_zeros((), dtype=precise)
    for start in range(0, hidden.shape[0], GRAM_BLOCK):
        stop = min(start + GRAM_BLOCK, hidden.shape[0])
        products = hidden[start:stop] @ hidden[:stop].t()
        if signal_gram is None:
            products.mul_(signals[start:stop] @ signals[:stop].t())
        else:
            products.mul_(signal_gram[start:stop, :stop])
        whole = products.sum(dtype=precise)
        total += 2.0 * whole - products[:, start:].sum(dtype=precise) if start else whole
    return total
