"""One case of the head phase: its inputs, the compared programs, and the float64 reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from head_rows import FLOOR, UPDATES
from peers import peers
from shapes import Lengths, Shape, sample_lengths
from torch import Tensor

from donod_fast.benchmark.paper_loop import score_head
from donod_fast.kernels import DonNod, don_nod, frobenius_norm, reference_don_nod

# Necessary products of tokens × vocab × dim: the logits, and the gradient if it is formed.
_PRODUCTS = {"ours sgd": 1, "torch closed form sgd": 1, "ours adamw": 2, "torch closed form adamw": 2}
_CHECKED = 2
# Bytes of W in float64 that the reference differentiates at a time.
_TRUTH_SLICE = 1 << 30


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """A row of the table.

    Attributes:
        run: computes it once, or None if it cannot run.
        tokens, samples: numbers that one run processes.
        products: products of tokens × vocab × dim counted for its TFLOP/s.
        held_bytes: bytes that it keeps between runs, in addition to the inputs.
        errors: computes the largest errors of DON, NOD (over NOD) and loss (over itself) from the result of ``run``.
    """

    name: str
    run: Callable[[], Any] | None
    tokens: int = 0
    samples: int = 0
    products: int = 1
    held_bytes: int = 0
    note: str = ""
    errors: Callable[[Any], dict[str, float]] | None = None


class Case:
    """Inputs of one shape, token count and length profile on a device. All tokens are scored."""

    def __init__(
        self,
        shape: Shape,
        lengths: Lengths,
        tokens: int,
        *,
        device: torch.device,
        dtype: torch.dtype,
        loop_samples: int,
    ) -> None:
        self.shape, self.tokens, self.device, self.dtype = shape, tokens, device, dtype
        self.lengths = sample_lengths(lengths, tokens)
        self.bounds = [0, *accumulate(self.lengths)]
        self.cu_seqlens = torch.tensor(self.bounds, dtype=torch.int32)
        generator = torch.Generator(device).manual_seed(0)
        place: dict[str, Any] = {"device": device, "dtype": dtype, "generator": generator}
        self.hidden = torch.randn(tokens, shape.dim, **place)
        self.weight = torch.randn(shape.vocab, shape.dim, **place).div_(shape.dim**0.5)
        self.labels = torch.randint(shape.vocab, (tokens,), device=device, generator=generator)
        self.norm = frobenius_norm(self.weight)
        # The loop processes only the first samples; the two shortest of them are compared with the reference.
        self.loop_samples = min(loop_samples, len(self.lengths))
        self.checked = sorted(range(self.loop_samples), key=lambda i: self.lengths[i])[:_CHECKED]
        self._truths: dict[str, DonNod] = {}

    def rows(self, sample: int) -> slice:
        """The tokens of a sample."""
        return slice(self.bounds[sample], self.bounds[sample + 1])

    def truth(self, update: str) -> DonNod:
        """The checked samples by float64 autograd and a real optimizer step."""
        if update not in self._truths:
            rows = torch.cat([torch.arange(self.tokens, device=self.device)[self.rows(i)] for i in self.checked])
            bounds = [0, *accumulate(self.lengths[i] for i in self.checked)]
            self._truths[update] = reference_don_nod(
                self.hidden[rows].double(),
                self.weight.double(),
                self.labels[rows],
                torch.tensor(bounds, dtype=torch.int32),
                update=update,
                softcap=self.shape.softcap,
                rows_per_slice=max(1, min(self.shape.vocab, _TRUTH_SLICE // (8 * self.shape.dim))),
            )
        return self._truths[update]

    def programs(self) -> Iterator[Program]:
        """Every row of the table, in order."""
        yield self._floor()
        # The backend that "auto" picks, requested by name, so that no other one can replace it.
        on_cpu = self.device.type == "cpu"
        for update in UPDATES:
            yield self._closed_form("ours", update, "torch" if on_cpu else "triton")
        for update in UPDATES:
            if on_cpu:
                yield Program(f"torch closed form {update}", None, note="on a CPU the same program as ours")
            else:
                yield self._closed_form("torch closed form", update, "torch")
        for update in UPDATES:
            yield self._paper_loop(update)
        yield from self._loss_only()

    def _floor(self) -> Program:
        height = min(self.tokens, 4096 if self.device.type == "cuda" else 1024)
        buffer = torch.empty(height, self.shape.vocab, device=self.device, dtype=self.dtype)

        def run() -> None:
            for start in range(0, self.tokens, height):
                block = self.hidden[start : start + height]
                torch.mm(block, self.weight.t(), out=buffer[: len(block)])

        note = f"into one buffer, {height} tokens at a time"
        held = buffer.numel() * buffer.element_size()
        return Program(FLOOR, run, self.tokens, len(self.lengths), held_bytes=held, note=note)

    def _closed_form(self, name: str, update: str, backend: str) -> Program:
        def run() -> DonNod:
            return don_nod(
                self.hidden,
                self.weight,
                self.labels,
                self.cu_seqlens,
                update=update,
                softcap=self.shape.softcap,
                weight_norm=self.norm,
                backend=backend,
            )

        def errors(found: DonNod) -> dict[str, float]:
            loss = [float(found.loss[i]) for i in self.checked]
            return self._errors(update, [(float(found.don[i]), float(found.nod[i])) for i in self.checked], loss)

        row = f"{name} {update}"
        note = f"backend {backend}"
        return Program(row, run, self.tokens, len(self.lengths), _PRODUCTS[row], note=note, errors=errors)

    def _paper_loop(self, update: str) -> Program:
        def run() -> list[tuple[float, float]]:
            return [
                score_head(
                    self.hidden[self.rows(i)], self.weight, self.labels[self.rows(i)], update, self.shape.softcap
                )
                for i in range(self.loop_samples)
            ]

        def errors(found: list[tuple[float, float]]) -> dict[str, float]:
            return self._errors(update, [found[i] for i in self.checked], None)

        tokens = self.bounds[self.loop_samples]
        note = "" if tokens == self.tokens else f"the first {self.loop_samples} samples only"
        return Program(f"paper loop {update}", run, tokens, self.loop_samples, 2, note=note, errors=errors)

    def _loss_only(self) -> Iterator[Program]:
        for peer in peers(self.shape.softcap):
            name, loss = f"loss only: {peer.name}", peer.loss
            if loss is None:
                yield Program(name, None, note=peer.note)
                continue

            def run(loss=loss) -> Tensor:  # type: ignore[no-untyped-def]
                with torch.no_grad():
                    return loss(self.hidden, self.weight, self.labels)

            def errors(_: Tensor, loss=loss) -> dict[str, float]:  # type: ignore[no-untyped-def]
                with torch.no_grad():
                    rows = [self.rows(i) for i in self.checked]
                    found = [float(loss(self.hidden[at], self.weight, self.labels[at])) for at in rows]
                return {"loss_error": self._loss_error(found, "sgd")}

            yield Program(
                name,
                run,
                self.tokens,
                len(self.lengths),
                note=peer.note,
                errors=errors if peer.exact else None,
            )

    def _errors(self, update: str, scores: list[tuple[float, float]], loss: list[float] | None) -> dict[str, float]:
        truth = self.truth(update)
        don, nod = truth.don.tolist(), truth.nod.tolist()
        found = {
            "don_error": max(abs(a - b) / n for (a, _), b, n in zip(scores, don, nod, strict=True)),
            "nod_error": max(abs(a - n) / n for (_, a), n in zip(scores, nod, strict=True)),
        }
        return found if loss is None else {**found, "loss_error": self._loss_error(loss, update)}

    def _loss_error(self, found: list[float], update: str) -> float:
        return max(abs(a - b) / b for a, b in zip(found, self.truth(update).loss.tolist(), strict=True))
