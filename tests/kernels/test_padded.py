"""``don_nod_padded``: rows of a padded batch, against autograd, the packed call, and transformers' own loss."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from head_cases import BOUNDS, FLOATS
from tiny_models import tiny_model
from torch import Tensor

import donod_fast
from donod_fast.errors import InputError
from donod_fast.kernels import SGD, AdamState, AdamW, DonNod, Sign, don_nod, don_nod_padded
from donod_fast.kernels.padded import DonNodOptions

VOCAB, DIM = 41, 12


def batch(
    rows: int, length: int, *, dtype: torch.dtype = torch.float32, ignore: int = -100, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """A batch whose rows have prompts and padding on either side; the second row, if any, has nothing to score."""
    draw = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, length, DIM, generator=draw).to(dtype)
    weight = (torch.randn(VOCAB, DIM, generator=draw) * 0.3).to(dtype)
    labels = torch.randint(VOCAB, (rows, length), generator=draw)
    labels[torch.rand(rows, length, generator=draw) < 0.4] = ignore
    labels[1:2] = ignore
    return hidden, weight, labels


def stepped(hidden: Tensor, weight: Tensor, labels: Tensor, update: str, lr: float, reduction: str) -> list[float]:
    """[DON, NOD, loss] of one row by autograd and a step in float64; labels stand where their state does."""
    kept = labels != -100
    if not kept.any():
        return [float("nan")] * 3
    leaf = weight.double().clone().requires_grad_(True)
    logits = hidden[kept].double() @ leaf.t()
    loss = torch.nn.functional.cross_entropy(logits, labels[kept], reduction=reduction)
    (gradient,) = torch.autograd.grad(loss, leaf)
    direction = {"sgd": gradient, "sign": gradient.sign(), "adamw": gradient / (gradient.abs() + 1e-8)}[update]
    new = weight.double() - lr * direction
    return [float(weight.double().norm() - new.norm()), float((weight.double() - new).norm()), float(loss.detach())]


@pytest.mark.parametrize("update", ["adamw", "sgd", "sign"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("shift", [True, False])
def test_each_row_is_a_step_by_autograd(update: str, reduction: str, shift: bool) -> None:
    hidden, weight, labels = batch(5, 9, dtype=torch.float64)
    found = don_nod_padded(hidden, weight, labels, shift=shift, update=update, reduction=reduction, lr=1e-3)
    for row in range(5):
        states, targets = (hidden[row, :-1], labels[row, 1:]) if shift else (hidden[row], labels[row])
        wanted = stepped(states, weight, targets, update, 1e-3, reduction)
        assert int(found.scored_tokens[row]) == int((targets != -100).sum())
        for value, right in zip((found.don[row], found.nod[row], found.loss[row]), wanted, strict=True):
            assert float(value) == pytest.approx(right, rel=1e-9, abs=1e-10, nan_ok=True)


def packed(hidden: Tensor, labels: Tensor, shift: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The same rows without padding, as ``don_nod`` takes them."""
    if shift:
        hidden, labels = hidden[:, :-1], labels[:, 1:]
    kept = labels != -100
    ends = torch.cat([torch.zeros(1), kept.sum(1).cumsum(0)]).to(torch.int32)
    return hidden[kept], labels[kept], ends


def assert_same(found: DonNod, wanted: DonNod, bound: float) -> None:
    scale = wanted.nod
    for name in ("don", "nod"):
        error = (getattr(found, name) - getattr(wanted, name)).abs() / scale
        assert bool((error[~scale.isnan()] <= bound).all()), name
    for name, value in found._asdict().items():
        right = getattr(wanted, name)
        assert (value is None) == (right is None), name
        if value is not None:
            torch.testing.assert_close(value, right, rtol=10 * bound, atol=1e-9, equal_nan=True)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"update": AdamW(eps=1e-3), "weight_decay": 0.1, "lr": 1e-2},
    {"update": SGD(), "reduction": "sum", "extras": ("error_norm", "gradient_norm")},
    {"update": Sign(), "logit_scale": 0.5, "softcap": 3.0},
    {"bias": torch.linspace(-1, 1, VOCAB), "storage_dtype": torch.bfloat16, "lr": 1e-2, "workspace_bytes": 1 << 20},
    {"update": AdamW(state=AdamState(torch.ones(VOCAB, DIM) * 1e-3, torch.ones(VOCAB, DIM) * 1e-4, 3))},
    {"weight_norm": 7.0, "backend": "torch"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: ",".join(options) or "plain")
@pytest.mark.parametrize("shift", [True, False])
def test_a_batch_is_its_rows_packed_with_every_option(options: dict[str, Any], shift: bool) -> None:
    hidden, weight, labels = batch(4, 7)
    states, targets, ends = packed(hidden, labels, shift)
    wanted = don_nod(states, weight, targets, ends, **options)
    assert_same(don_nod_padded(hidden, weight, labels, shift=shift, **options), wanted, 1e-6)
    strange = labels.masked_fill(labels == -100, -1)
    again = don_nod_padded(hidden, weight, strange, ignore_index=-1, shift=shift, **options)
    assert_same(again, don_nod_padded(hidden, weight, labels, shift=shift, **options), 0.0)
    assert bool(wanted.don.isnan()[1]) and int(wanted.scored_tokens[1]) == 0


def test_every_option_of_don_nod_passes_through() -> None:
    options = {name for name, one in inspect.signature(don_nod).parameters.items() if one.kind is one.KEYWORD_ONLY}
    assert options == set(DonNodOptions.__annotations__)
    assert donod_fast.don_nod_padded is don_nod_padded


@pytest.mark.parametrize("dtype", FLOATS)
def test_every_dtype_any_strides_and_narrow_labels(dtype: torch.dtype) -> None:
    hidden, weight, labels = batch(3, 6, dtype=dtype)
    wanted = don_nod_padded(hidden, weight, labels)
    strided = hidden.transpose(0, 1).contiguous().transpose(0, 1)
    assert not strided.is_contiguous()
    assert_same(don_nod_padded(strided, weight, labels.int()), wanted, 0.0)
    exact = don_nod_padded(hidden.double(), weight.double(), labels)
    assert bool(((wanted.nod - exact.nod).abs() <= BOUNDS[dtype] * exact.nod)[[0, 2]].all())


def test_padding_on_either_side_changes_nothing() -> None:
    hidden, weight, labels = batch(1, 6)
    labels[0, 0] = -100
    wanted = don_nod_padded(hidden, weight, labels)
    pad = torch.full((1, 3, DIM), 1e4)
    nothing = torch.full((1, 3), -100)
    right = don_nod_padded(torch.cat([hidden, pad], 1), weight, torch.cat([labels, nothing], 1))
    left = don_nod_padded(torch.cat([pad, hidden], 1), weight, torch.cat([nothing, labels], 1))
    assert_same(right, wanted, 1e-7)
    assert_same(left, wanted, 1e-7)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_loss_is_that_of_transformers_for_the_same_labels(kind: str) -> None:
    model = tiny_model(kind)
    ids = torch.randint(3, 50, (3, 8), generator=torch.Generator().manual_seed(1))
    labels = ids.clone()
    labels[:, :2] = -100
    labels[2, 6:] = -100
    with torch.no_grad():
        hidden = model(ids, output_hidden_states=True).hidden_states[-1]
        losses = [float(model(ids[row : row + 1], labels=labels[row : row + 1]).loss) for row in range(3)]
    found = don_nod_padded(hidden, model.get_output_embeddings().weight, labels)
    assert found.loss.tolist() == pytest.approx(losses, rel=1e-5)
    assert found.scored_tokens.tolist() == [6, 6, 4]


@pytest.mark.parametrize("length", [0, 1])
def test_rows_too_short_to_predict_anything_have_no_scores(length: int) -> None:
    found = don_nod_padded(torch.ones(2, length, DIM), torch.ones(VOCAB, DIM), torch.ones(2, length, dtype=torch.int64))
    assert found.scored_tokens.tolist() == [0, 0]
    assert bool(found.don.isnan().all() and found.nod.isnan().all() and found.loss.isnan().all())


def test_wrong_arguments_are_refused_by_name() -> None:
    hidden, weight, labels = batch(2, 4)
    wrong: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
        (r"hidden must be \(batch, length, dim\).*cu_seqlens", (hidden[0], weight, labels[0]), {}),
        ("hidden must be a torch.Tensor, got a list", (hidden.tolist(), weight, labels), {}),
        ("weight must be a torch.Tensor, got a ndarray", (hidden, weight.numpy(), labels), {}),
        ("labels must be a torch.Tensor, got a ndarray", (hidden, weight, labels.numpy()), {}),
        (r"labels must be \(2, 4\)", (hidden, weight, labels[:, 1:]), {}),
        ("int64 or int32, got torch.float32", (hidden, weight, labels.float()), {}),
        ("batch of 0", (hidden[:0], weight, labels[:0]), {}),
        (r"weight must be \(vocab, 12\)", (hidden, weight.t(), labels), {}),
        ("labels hold -100, but ignore_index is 0", (hidden, weight, labels), {"ignore_index": 0}),
        ("outside the 41 rows", (hidden, weight, torch.full_like(labels, VOCAB)), {}),
        ("shift is True or False", (hidden, weight, labels), {"shift": "no"}),
        ("lr must be", (hidden, weight, labels), {"lr": -1.0}),
        ("did you mean 'sgd'", (hidden, weight, labels), {"update": "SGD"}),
    ]
    for said, arguments, options in wrong:
        with pytest.raises(InputError, match=said):
            don_nod_padded(*arguments, **options)
