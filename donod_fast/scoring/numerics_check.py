"""The numerics self-check: our scores against float64 autograd on a model's own hidden states and head."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from donod_fast.data.types import Record, Status, TokenizedSample
from donod_fast.errors import InputError
from donod_fast.kernels import DonNod, reference_don_nod
from donod_fast.kernels.float8 import ERROR_LIMIT, LEAST_TOKENS, is_long
from donod_fast.models.batching import collate
from donod_fast.scoring.forward import HeadCall
from donod_fast.scoring.scorer import Scorer
from donod_fast.scoring.settings import UPDATES, UpdateSettings

TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-5, torch.bfloat16: 1e-4, torch.float16: 1e-4}
"""Largest error of DON and NOD over NOD, and of the loss over itself, by the dtype of hidden and weight."""

# Elements of W whose float64 gradient and optimizer state the reference may hold at once.
_SLICE_ELEMENTS = 1 << 26

SENTENCES = (
    ("Name three primary colours.", "Red, yellow and blue."),
    ("What is 12 times 12?", "12 times 12 is 144."),
    ("Write a Python function that doubles a number.", "def double(x):\n    return 2 * x"),
    ("Where does the sun rise?", "The sun rises in the east and sets in the west."),
    ("Repeat the word 'echo' four times.", "echo echo echo echo"),
    ("Why is the sky blue?", "Air scatters short wavelengths of sunlight more than long ones."),
)


@dataclass(frozen=True, slots=True)
class CheckLine:
    """Largest errors of one way to compute the scores, over the samples, against float64 autograd.

    Attributes:
        method: ``ours``, ``ours, one by one``, ``ours, float8``, ``naive float32`` or ``naive bfloat16``.
        update: name of the update.
        don_error: |DON − truth| / NOD.
        nod_error: |NOD − truth| / NOD.
        loss_error: |loss − truth| / loss.
        limit: the tolerance that must hold, or None for the naive programs.
    """

    method: str
    update: str
    don_error: float
    nod_error: float
    loss_error: float
    limit: float | None

    @property
    def passed(self) -> bool | None:
        """Whether the errors are within the limit; None without a limit."""
        if self.limit is None:
            return None
        # Not by their maximum: Python's max() passes over a NaN.
        return all(error <= self.limit for error in (self.don_error, self.nod_error, self.loss_error))


def check_scorer(scorer: Scorer, records: Sequence[Record] | None = None, *, naive: bool = True) -> list[CheckLine]:
    """Compare ours, batched and one by one, and the obvious program with float64 autograd.

    Args:
        scorer: the model to check with; if its head precision is float8, that is compared as well.
        records: rows to check on; built-in sentences if None. For float8 those of ``long_records``.
        naive: also run the obvious program (copy of W, optimizer step, difference of norms).

    Raises:
        InputError: none of the rows can be scored, or none is long enough for float8.
    """
    samples = [s for s in scorer.masker.tokenize_many(list(records or _built_in())) if s.status is Status.SCORED]
    if not samples:
        raise InputError("none of the rows can be scored; give rows in a known format (--data)")
    precision = scorer.update.head_precision
    if precision == "float8" and not any(is_long(sample.scored_tokens) for sample in samples):
        raise InputError(
            f"none of the rows has {LEAST_TOKENS} scored tokens, and float8 is for those only; give longer rows"
        )
    hidden, labels, cu_seqlens = _head_input(scorer, samples)
    weight = scorer.head.weight
    limit = TOLERANCE[weight.dtype]
    lines = []
    for name in UPDATES:
        settings = UpdateSettings(name, lr=scorer.update.lr, weight_decay=scorer.update.weight_decay)
        call = HeadCall(scorer.head, settings)
        truth = _reference(call, hidden, labels, cu_seqlens, torch.float64)
        ours = call.scores(hidden, labels, cu_seqlens)
        lines.append(_line("ours", name, ours, truth, limit))
        single = [
            call.scores(hidden[a:b], labels[a:b], torch.tensor([0, b - a], dtype=torch.int32))
            for a, b in pairwise(cu_seqlens.tolist())
        ]
        joined = DonNod(*(torch.cat(column) for column in zip(*(one[:7] for one in single), strict=True)))
        lines.append(_line("ours, one by one", name, joined, truth, limit))
        if precision == "float8" and name != "sgd":
            rounded = replace(call, settings=replace(settings, head_precision=precision))
            found = rounded.scores(hidden, labels, cu_seqlens)
            lines.append(_line("ours, float8", name, found, truth, ERROR_LIMIT))
        for dtype in (torch.float32, torch.bfloat16) if naive else ():
            scores = _reference(call, hidden, labels, cu_seqlens, dtype, literal=True)
            lines.append(_line(f"naive {str(dtype)[6:]}", name, scores, truth, None))
    return lines


def long_records(scorer: Scorer, records: Iterable[Record], rows: int) -> list[Record]:
    """The first ``rows`` records with enough scored tokens for float8."""
    found: list[Record] = []
    for record in records:
        sample = scorer.masker.tokenize_many([record])[0]
        if sample.status is Status.SCORED and is_long(sample.scored_tokens):
            found.append(record)
        if len(found) == rows:
            break
    return found


def _built_in() -> list[Record]:
    return [
        Record(i, "built-in", f"sentence {i + 1}", {"instruction": question, "output": answer})
        for i, (question, answer) in enumerate(SENTENCES)
    ]


def _head_input(scorer: Scorer, samples: list[TokenizedSample]) -> tuple[Tensor, Tensor, Tensor]:
    batch = collate(samples, range(len(samples)))
    with torch.no_grad():
        states = scorer.trunk(batch.input_ids)
        # A clone of the inference tensor: the reference needs autograd to see it.
        flat = states.reshape(-1, states.shape[-1])[batch.predictors.to(states.device)].clone()
    device = scorer.head.weight.device
    return flat.to(device), batch.labels.to(device), batch.cu_seqlens


def _reference(
    call: HeadCall,
    hidden: Tensor,  # (tokens, dim)
    labels: Tensor,  # (tokens,)
    cu_seqlens: Tensor,  # (samples + 1,)
    dtype: torch.dtype,
    *,
    literal: bool = False,
) -> DonNod:
    """The scores by autograd and an optimizer step in ``dtype``; ``literal``: as the obvious program computes them."""
    head, settings = call.head, call.settings
    return reference_don_nod(
        hidden.to(dtype),
        head.weight.to(dtype),
        labels,
        cu_seqlens,
        lr=settings.lr,
        update=settings.rule(),
        weight_decay=settings.weight_decay,
        reduction=settings.reduction,
        storage_dtype=settings.rounding(),
        bias=None if head.bias is None else head.bias.to(dtype),
        logit_scale=head.logit_scale,
        softcap=head.softcap,
        literal=literal,
        rows_per_slice=None if literal else max(1, _SLICE_ELEMENTS // head.weight.shape[1]),
    )


def _line(method: str, update: str, scores: DonNod, truth: DonNod, limit: float | None) -> CheckLine:
    def worst(a: Tensor, b: Tensor, scale: Tensor) -> float:
        return float(((a.double() - b) / scale).abs().max())

    return CheckLine(
        method,
        update,
        worst(scores.don, truth.don, truth.nod),
        worst(scores.nod, truth.nod, truth.nod),
        worst(scores.loss, truth.loss, truth.loss),
        limit,
    )
