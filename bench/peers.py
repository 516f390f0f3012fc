"""Loss-only peers: fused linear + cross entropy of Liger, CCE and PyTorch, if available.

They compute one number (or one per token), but DON and NOD need the error signals too. They show the cost of a
forward pass that never stores all logits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # hidden (tokens, dim), weight (vocab, dim), labels → mean loss


@dataclass(frozen=True, slots=True)
class Peer:
    """A loss function, or the reason why there is none, and a note on what its numbers do not include."""

    name: str
    loss: Loss | None
    note: str = ""
    exact: bool = True  # whether it computes this head's loss (without the soft-cap it computes a different one)


def peers(softcap: float | None) -> list[Peer]:
    """The three peers, for a head with this soft-cap."""
    found = []
    for name, make in (("Liger", _liger), ("CCE", _cce), ("torch", _torch)):
        try:
            peer = make(softcap)
        except ImportError as error:
            missing = error.name or str(error)
            peer = Peer(name, None, f"not installed: {missing}")
        except Exception as error:  # any failure at import is the reason in its row
            peer = Peer(name, None, f"cannot be imported: {type(error).__name__}")
        found.append(peer)
    return found


def _liger(softcap: float | None) -> Peer:
    module = import_module("liger_kernel.transformers.fused_linear_cross_entropy")
    loss = module.LigerFusedLinearCrossEntropyLoss(softcap=softcap)
    return Peer("Liger", lambda hidden, weight, labels: loss(weight, hidden, labels))


def _cce(softcap: float | None) -> Peer:
    module = import_module("cut_cross_entropy")
    return Peer(
        "CCE",
        lambda hidden, weight, labels: module.linear_cross_entropy(hidden, weight, labels, softcap=softcap, impl="cce"),
    )


def _torch(softcap: float | None) -> Peer:
    function = getattr(torch.nn.functional, "linear_cross_entropy", None)
    if function is None:
        return Peer("torch", None, f"torch {torch.__version__} has no linear_cross_entropy")
    make_options = getattr(torch.nn, "LinearCrossEntropyOptions", None)
    options = {} if make_options is None else {"options": make_options()}  # in chunks, the logits are not held
    note = "" if softcap is None else "without the soft-cap: it has none"
    return Peer("torch", lambda hidden, weight, labels: function(hidden, weight, labels, **options), note, not note)
