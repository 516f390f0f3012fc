"""The interaction matrix by brute force: the model's own logits, autograd per sample, whole Jacobians; real rows."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tiny_models import tiny_tokenizer
from torch import Tensor
from torch.func import functional_call

from donod_fast.data.masking import Masker, MaskSettings
from donod_fast.data.types import Record, TokenizedSample
from donod_fast.models.loading import LoadedModel, load_model, wrap_model

DEMO = Path(__file__).parents[2] / "donod_fast" / "demo" / "data"


def question_rows(count: int) -> list[dict[str, Any]]:
    """Short questions and answers of differing length."""
    return [{"question": f"{i} + {i * 7 % 13}?", "answer": f"{i + i * 7 % 13}" + " ok" * (i % 3)} for i in range(count)]


def tokenised(records: Sequence[dict[str, Any]], tokenizer: Any, vocab: int) -> list[TokenizedSample]:
    """Records through the masks of scoring."""
    masker = Masker(tokenizer, MaskSettings(max_length=256), vocab_size=vocab)
    return masker.tokenize_many([Record(at, "data.jsonl", f"line {at + 1}", data) for at, data in enumerate(records)])


def tiny_rows(count: int) -> list[TokenizedSample]:
    return tokenised(question_rows(count), tiny_tokenizer(), 101)


def in_double(model: Any, tokenizer: Any = None) -> LoadedModel:
    """A model in float64, on its own, with the tokenizer of the tiny models unless one is given."""
    return wrap_model(copy.deepcopy(model).double(), tokenizer or tiny_tokenizer())


def trained_demo() -> LoadedModel:
    """The small trained model that comes with the package, in float64."""
    loaded = load_model(DEMO / "model", device="cpu")
    return in_double(loaded.model, loaded.tokenizer)


def own_logits(model: Any, sample: TokenizedSample, values: dict[str, Tensor] | None = None) -> tuple[Tensor, Tensor]:
    """(targets, V) of the model's own forward where a token is scored, and the targets."""
    ids = torch.tensor([sample.input_ids])
    scored = torch.tensor(sample.scored)[1:]
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        out = functional_call(model, values or {}, (), {"input_ids": ids, "use_cache": False})
    return out.logits[0, :-1][scored], ids[0, 1:][scored]


def token_losses(model: Any, sample: TokenizedSample, values: dict[str, Tensor] | None = None) -> Tensor:
    logits, targets = own_logits(model, sample, values)
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none")


def reference_loss(model: Any, samples: Sequence[TokenizedSample]) -> float:
    """The mean over all their targets, by the model's own logits."""
    with torch.no_grad():
        return float(torch.cat([token_losses(model, sample) for sample in samples]).mean())


def weights_of(model: Any, names: Sequence[str]) -> dict[str, Tensor]:
    """The model's parameters of these names, which need a gradient from now on."""
    found = {name: parameter for name, parameter in model.named_parameters() if name in names}
    for parameter in found.values():
        parameter.requires_grad_(True)
    return found


def flat(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.flatten() for part in parts])


def brute_matrix(
    model: Any,
    names: Sequence[str],
    candidates: Sequence[TokenizedSample],
    reference: Sequence[TokenizedSample],
    lr: float,
    *,
    second: bool,
) -> Tensor:
    """M (candidates, parameters) in the order of ``names``, every entry of it, from whole Jacobians."""
    weights = weights_of(model, names)
    values = [weights[name] for name in names]
    v = flat(torch.autograd.grad(torch.cat([token_losses(model, s) for s in reference]).mean(), values))
    rows = [flat(torch.autograd.grad(token_losses(model, s).mean(), values)) for s in candidates]
    matrix = torch.stack([lr * v * g for g in rows])
    if not second:
        return matrix
    pieces, tokens = [], 0
    for sample in reference:
        logits, targets = own_logits(model, sample)
        tokens += len(targets)
        for at in range(len(targets)):
            every = torch.eye(logits.shape[1], dtype=logits.dtype)
            found = torch.autograd.grad(logits[at], values, every, retain_graph=True, is_grads_batched=True)
            jacobian = torch.cat([part.flatten(1) for part in found], 1)  # (V, parameters)
            p = logits[at].detach().softmax(0)
            pieces.append((jacobian, torch.diag(p) - torch.outer(p, p)))
    curved = [sum(j.T @ (s @ (j @ g)) for j, s in pieces) / tokens for g in rows]
    return matrix - 0.5 * lr**2 * torch.stack([g * h for g, h in zip(rows, curved, strict=True)])


def measured_decrease(
    model: Any,
    names: Sequence[str],
    candidate: TokenizedSample,
    reference: Sequence[TokenizedSample],
    lr: float,
    before: float,
) -> float:
    """How far a real step of torch's SGD on one candidate lowers the reference loss; the model is put back."""
    weights = weights_of(model, names)
    saved = {name: weight.detach().clone() for name, weight in weights.items()}
    optimizer = torch.optim.SGD(list(weights.values()), lr=lr)
    optimizer.zero_grad()
    token_losses(model, candidate).mean().backward()
    optimizer.step()
    after = reference_loss(model, reference)
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(saved[name])
            weight.grad = None
    return before - after
