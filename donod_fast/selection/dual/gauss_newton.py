"""Exact products with the Gauss–Newton matrix of the reference set's mean loss, H = (1/N) Σ_s J_sᵀ S_s J_s.

The final hidden states h_s of the reference set are computed once, with autograd's graph back to the chosen inner
weights; the output layer's part has a closed form. For a direction g (of a candidate i: inner parts g_A, and
G = E_iᵀ H_i of the output layer, with error signals E_i and hidden states H_i of its tokens), at token s

    ḣ_s = Σ_A (∂h_s/∂A) g_A                   a Jacobian times a vector
    ȧ_s = W ḣ_s + E_iᵀ (H_i h_s)              no V × d gradient in it
    r_s = (1/N) f′_s ∘ S_s (f′_s ∘ ȧ_s),      S_s = diag(p_s) − p_s p_sᵀ
    gᵀHg = Σ_s ȧ_s · r_s
    (Hg)_A = Σ_s (∂h_s/∂A)ᵀ Wᵀ r_s,           (Hg)_W = Σ_s r_s h_sᵀ

The Jacobian times a vector is the derivative of the vector times the Jacobian (which is linear in that vector): two
backward passes over a retained graph. This works for every operation that can be differentiated twice. A product
costs a few backward passes over the chosen part of the trunk, and 6 V d + 2 N_i (V + d) operations a reference token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from donod_fast.errors import ModelError
from donod_fast.kernels.head_map import HeadMap
from donod_fast.models.batching import collate
from donod_fast.selection.dual.backward import final_states
from donod_fast.selection.dual.layers import Chosen
from donod_fast.selection.dual.objective import Objective
from donod_fast.system.wording import shortened


@dataclass(frozen=True, slots=True, eq=False)
class CurvatureProduct:
    """The product H g of one candidate.

    Attributes:
        quadratic: gᵀHg.
        inner: (Hg)_A in the weight's shape, by parameter name.
        residuals: r of each reference batch, (tokens, V); with the hidden states they give (Hg)_W.
    """

    quadratic: float
    inner: dict[str, Tensor]
    residuals: list[Tensor]


@dataclass(slots=True, eq=False)
class _Part:
    """A reference batch: hidden states with their graph, the probe u and ∂(u·h)/∂A as a function of it."""

    hidden: Tensor
    states: Tensor
    probabilities: Tensor
    slope: Tensor | float
    probe: Tensor | None
    pulled: tuple[Tensor, ...]


class GaussNewton:
    """The Gauss–Newton matrix of an objective as a linear operator. Use it within ``Chosen.differentiable``.

    It holds the graph of the chosen part of the trunk over the reference set, and (reference tokens × V) probabilities.

    Raises:
        ModelError: an operation of the model cannot be differentiated twice.
    """

    def __init__(self, chosen: Chosen, objective: Objective) -> None:
        self._chosen, self._tokens = chosen, objective.tokens
        self._weights = [layer.weight for layer in chosen.inner]
        self._map = HeadMap(chosen.head.bias, chosen.head.logit_scale, chosen.head.softcap)
        self._matrix = chosen.head.weight.to(chosen.compute)
        try:
            self._parts = [self._part(collate(objective.samples, group)) for group in objective.groups]
        except (RuntimeError, NotImplementedError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise ModelError(
                f"{chosen.loaded.name}: its trunk cannot be differentiated twice "
                f"({shortened(error, 200)}); use --order first, or attention 'eager' or 'sdpa'"
            ) from error

    def _part(self, batch: Any) -> _Part:
        # Only the math implementation of attention has a second derivative.
        with torch.set_grad_enabled(bool(self._weights)), sdpa_kernel(SDPBackend.MATH):
            hidden = final_states(self._chosen, batch)
        states = hidden.detach().to(self._chosen.compute)
        a = states @ self._matrix.t()
        slope = self._map.derivative(a)
        probabilities = torch.softmax(self._map.logits(a), dim=1)
        if not self._weights:
            return _Part(hidden, states, probabilities, slope, None, ())
        probe = torch.zeros_like(hidden, requires_grad=True)
        with torch.enable_grad():
            pulled = torch.autograd.grad(hidden, self._weights, probe, create_graph=True)
        return _Part(hidden, states, probabilities, slope, probe, pulled)

    @torch.no_grad()
    def product(self, inner: dict[str, Tensor], signals: Tensor | None, states: Tensor | None) -> CurvatureProduct:
        """Compute H g.

        Args:
            inner: g_A of every chosen inner layer, by parameter name.
            signals: E_i (N_i, V); None if the output layer is not chosen.
            states: H_i (N_i, d); None if the output layer is not chosen.
        """
        direction = [inner[layer.parameter] for layer in self._chosen.inner]
        total = [torch.zeros_like(part) for part in direction]
        quadratic, residuals = 0.0, []
        for part in self._parts:
            tangent = torch.zeros_like(part.probabilities)
            if direction:
                tangent += self._pushed(part, direction) @ self._matrix.t()
            if signals is not None and states is not None:
                tangent += (part.states @ states.t()) @ signals
            through = tangent * part.slope
            mean = torch.linalg.vecdot(part.probabilities, through).unsqueeze(1)
            residual = part.probabilities * (through - mean) * part.slope / self._tokens
            quadratic += float(torch.linalg.vecdot(tangent, residual).double().sum())
            residuals.append(residual)
            if direction:
                back = (residual @ self._matrix).to(part.hidden.dtype)
                found = torch.autograd.grad(part.hidden, self._weights, back, retain_graph=True)
                for at, value in enumerate(found):
                    total[at] += value.to(total[at].dtype)
        named = {layer.parameter: value for layer, value in zip(self._chosen.inner, total, strict=True)}
        return CurvatureProduct(quadratic, named, residuals)

    def output_columns(self, residuals: list[Tensor], columns: slice) -> Tensor:
        """Some rows of (Hg)_W: (columns, d)."""
        pieces = [r[:, columns].t() @ part.states for r, part in zip(residuals, self._parts, strict=True)]
        return torch.stack(pieces).sum(0) if len(pieces) > 1 else pieces[0]

    def _pushed(self, part: _Part, direction: list[Tensor]) -> Tensor:
        """ḣ (tokens, d)."""
        assert part.probe is not None
        with torch.enable_grad():
            (found,) = torch.autograd.grad(
                part.pulled,
                part.probe,
                [value.to(of.dtype) for value, of in zip(direction, part.pulled, strict=True)],
                retain_graph=True,
            )
        return found.to(self._chosen.compute)


__all__ = ["CurvatureProduct", "GaussNewton"]
