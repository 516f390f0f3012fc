"""EL2N, the gradient norm and token statistics equal float64 brute force and do not change other columns."""

from __future__ import annotations

import sys
from itertools import pairwise
from typing import Any

import pytest
import torch
from head_cases import BOUNDS, FLOATS, MIB, UPDATES, Case, assert_identical, every_update, make_bias, make_case
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from donod_fast.errors import InputError
from donod_fast.kernels import IGNORE_INDEX, SGD, DonNod, dispatch, don_nod, fused, gradient_dots, token_statistics
from donod_fast.kernels.triton_backend import configs

EXTRAS = ("error_norm", "gradient_norm", "token_loss")
LENGTHS = (0, 1, 2, 37, 3, 150, 0, 20)
CONFIDENT = (0.0, 3.0, 9.0, 18.0, 40.0, 70.0)
VOCAB, DIM = 507, 123
# At 1 MiB 150 tokens × 507 columns are streamed.
WORKSPACES = {"stored": 256 * MIB, "streamed": MIB}
HEADS: dict[str, dict[str, Any]] = {
    "plain": {},
    "scaled": {"logit_scale": -0.7},
    "bias": {"bias": make_bias(VOCAB)},
    "softcap": {"bias": make_bias(VOCAB), "softcap": 20.0, "logit_scale": 0.7},
}


def logits_of(case: Case, head: dict[str, Any]) -> Tensor:
    z = case.hidden.double() @ case.weight.double().t()
    if head.get("bias") is not None:
        z = z + head["bias"].double()
    z = z * head.get("logit_scale", 1.0)
    return z if head.get("softcap") is None else head["softcap"] * torch.tanh(z / head["softcap"])


def softplus(x: Tensor) -> Tensor:
    return torch.nn.functional.softplus(x, threshold=60.0)


def margins_of(z: Tensor, column: Tensor) -> Tensor:
    """(tokens, 1) lse_{v≠c} z_v − z_c: −log p_c is softplus of it at any confidence."""
    return z.scatter(1, column, -torch.inf).logsumexp(1, keepdim=True) - z.gather(1, column)


def tokens_by_hand(case: Case, head: dict[str, Any]) -> Tensor:
    """(3, tokens) float64 loss, entropy and ‖p − onehot‖, by logarithms of sums that leave the label out."""
    z = logits_of(case, head)
    label, top = case.labels.clamp_min(0).unsqueeze(1), z.argmax(1, keepdim=True)
    log_p = z - z.logsumexp(1, keepdim=True)
    for column in (label, top):  # the two whose probability may be near 1, where a difference of logarithms is none
        log_p = log_p.scatter(1, column, -softplus(margins_of(z, column)))
    loss = -log_p.gather(1, label)
    entropy = torch.where(log_p > -700.0, -log_p.exp() * log_p, 0.0).sum(1)
    # 1 − p_y is also not rounded against 1.
    errors = log_p.exp().scatter(1, label, torch.exp(-softplus(-margins_of(z, label))))
    found = torch.stack([loss.squeeze(1), entropy, errors.norm(dim=1)])
    return torch.where(case.labels == IGNORE_INDEX, torch.nan, found)


def extras_by_hand(case: Case, head: dict[str, Any], *, mean: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """(samples,) mean error norm, the norm of autograd's gradient of the exact loss in W, and the tokens' losses."""
    losses, _, tokens = tokens_by_hand(case, head)
    errors, norms = [], []
    for start, stop in pairwise(case.cu_seqlens.tolist()):
        scored = (case.labels[start:stop] != IGNORE_INDEX).nonzero().squeeze(1) + start
        errors.append(tokens[scored].mean())
        if not len(scored):
            norms.append(torch.tensor(torch.nan, dtype=torch.float64))
            continue
        weight = case.weight.double().requires_grad_(True)
        z = logits_of(case._replace(hidden=case.hidden[scored], weight=weight), head)
        loss = softplus(margins_of(z, case.labels[scored].unsqueeze(1))).sum() / (len(scored) if mean else 1)
        norms.append(torch.autograd.grad(loss, weight)[0].norm())
    return torch.stack(errors), torch.stack(norms), losses


def assert_extras(case: Case, head: dict[str, Any], bound: float, **options: Any) -> None:
    """Every extra to ``bound`` of itself; the other fields as without them, bit by bit."""
    found = don_nod(*case, **head, **options, extras=EXTRAS)
    by_hand = extras_by_hand(case, head, mean=options.get("reduction") != "sum")
    for name, wanted in zip(EXTRAS, by_hand, strict=True):
        torch.testing.assert_close(getattr(found, name), wanted, rtol=bound, atol=0.0, equal_nan=True)
    assert_sums(found, case, mean=options.get("reduction") != "sum")
    plain = don_nod(*case, **head, **options)
    assert [getattr(plain, name) for name in EXTRAS] == [None] * len(EXTRAS)
    assert_identical(found._replace(**dict.fromkeys(EXTRAS)), plain)


def assert_sums(found: DonNod, case: Case, *, mean: bool) -> None:
    """The losses of a sample's tokens add up to its loss, to the rounding of float64 sums."""
    assert found.token_loss is not None and found.token_loss.dtype == torch.float64
    for loss, (start, stop) in zip(found.loss, pairwise(case.cu_seqlens.tolist()), strict=True):
        tokens = found.token_loss[start:stop]
        total = tokens.nanmean() if mean or not len(tokens) else torch.where(loss.isnan(), torch.nan, tokens.nansum())
        torch.testing.assert_close(total, loss, rtol=1e-12, atol=1e-300, equal_nan=True)


@pytest.mark.parametrize("workspace", WORKSPACES)
@pytest.mark.parametrize("margins", [None, CONFIDENT], ids=["random", "confident"])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_extras_are_those_of_autograd(name: str, head: str, margins: tuple[float, ...] | None, workspace: str) -> None:
    case = make_case(LENGTHS, VOCAB, DIM, margins=margins)
    assert_extras(case, HEADS[head], BOUNDS[torch.float32], update=name, workspace_bytes=WORKSPACES[workspace])


@pytest.mark.parametrize("name", UPDATES)
@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1}, {"storage_dtype": torch.bfloat16}], ids=str)
def test_the_gradients_norm_knows_no_update_decay_or_rounding(name: str, options: dict[str, Any]) -> None:
    case = make_case((2, 0, 30, 90), VOCAB, DIM)
    # Without an update of G's own kind ‖G‖ comes from tiles, else from what is there.
    assert_extras(case, {}, 1e-5, update=every_update(case)[name], reduction="sum", lr=1e-3, **options)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("workspace", WORKSPACES)
def test_every_dtype_keeps_its_bound(workspace: str, dtype: torch.dtype) -> None:
    case = make_case(LENGTHS, VOCAB, DIM, margins=CONFIDENT, dtype=dtype)
    assert_extras(case, HEADS["softcap"], BOUNDS[dtype], workspace_bytes=WORKSPACES[workspace])


@pytest.mark.parametrize("workspace", [MIB, 256 * MIB])
def test_many_samples_past_every_token_block(workspace: int) -> None:
    case = make_case((*range(24), 1400, *([1] * 40), 90), vocab=123, dim=33)
    for update in ("adamw", "sgd"):
        assert_extras(case, {}, BOUNDS[torch.float32], update=update, workspace_bytes=workspace)


@pytest.mark.skipif(fused.why_not_inductor() is not None, reason=str(fused.why_not_inductor()))
def test_compiled_passes_give_them_too() -> None:
    case = make_case((3, 0, 40, 7), VOCAB, DIM)
    assert_extras(case, {}, BOUNDS[torch.float32], backend="inductor")


@pytest.mark.parametrize("extra", EXTRAS)
def test_one_alone_is_what_it_is_beside_the_others(extra: str) -> None:
    case = make_case(LENGTHS, VOCAB, DIM)
    every, one = don_nod(*case, extras=EXTRAS), don_nod(*case, extras={extra})
    assert_identical(one, every._replace(**{other: None for other in EXTRAS if other != extra}))


@pytest.mark.parametrize("extras", ["error_norm", ("el2n",), ["error_norm", "grand"]], ids=str)
def test_another_name_is_refused(extras: Any) -> None:
    with pytest.raises(InputError, match=r"extras must be a collection of names among \('error_norm'"):
        don_nod(*make_case((3,), 31, 7), extras=extras)


# ---- token by token -------------------------------------------------------------------------------


def assert_tokens(case: Case, head: dict[str, Any], bound: float, **options: Any) -> None:
    found = token_statistics(case.hidden, case.weight, case.labels, **head, **options)
    # A token sure of another than its label: its entropy is a difference of logarithms, good to their last digit.
    slack = torch.where(logits_of(case, head).argmax(1) == case.labels, 0.0, 1e-14 if bound < 1e-6 else 1e-6)
    for name, value, wanted in zip(found._fields, found, tokens_by_hand(case, head), strict=True):
        assert value.dtype == torch.float64 and torch.equal(value.isnan(), wanted.isnan()), name
        allowed = bound * wanted.abs() + (slack * logits_of(case, head).abs().amax(1) if name == "entropy" else 0.0)
        assert bool(((value - wanted).abs() <= allowed)[~wanted.isnan()].all()), f"{name}: {value} for {wanted}"


@pytest.mark.parametrize("workspace", [MIB, 3 * MIB, 256 * MIB])
@pytest.mark.parametrize("margins", [None, CONFIDENT], ids=["random", "confident"])
@pytest.mark.parametrize("head", HEADS)
def test_token_statistics_are_those_of_brute_force(
    head: str, margins: tuple[float, ...] | None, workspace: int
) -> None:
    assert_tokens(make_case(LENGTHS, VOCAB, DIM, margins=margins), HEADS[head], 1e-5, workspace_bytes=workspace)


@pytest.mark.parametrize("margin", [250.0, 400.0])
def test_nothing_is_lost_of_tokens_far_below_float32(margin: float) -> None:
    case = make_case((40,), VOCAB, DIM, margins=(margin,), dtype=torch.float64)
    assert 0.0 < float(tokens_by_hand(case, {})[2].nanmean()) < 1e-45
    assert_tokens(case, {}, 1e-9)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_token_statistics_of_every_dtype(dtype: torch.dtype) -> None:
    assert_tokens(make_case(LENGTHS, VOCAB, DIM, margins=(4.0, 20.0), dtype=dtype), {}, BOUNDS[dtype])


def test_a_vocabulary_whose_rows_do_not_fit_is_streamed() -> None:
    case = make_case((5, 30), vocab=70_001, dim=3)
    assert_tokens(case, {}, 1e-5, workspace_bytes=MIB)


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=5),
    vocab=st.integers(1, 40),
    dim=st.integers(1, 9),
    margins=st.sampled_from([None, (2.0, 30.0)]),
    softcap=st.sampled_from([None, 12.0]),
    seed=st.integers(0, 99),
)
def test_any_shape_agrees_with_brute_force_and_tokens_with_samples(
    lengths: list[int],
    vocab: int,
    dim: int,
    margins: tuple[float, ...] | None,
    softcap: float | None,
    seed: int,
) -> None:
    case = make_case(lengths, vocab, dim, margins=margins, dtype=torch.float64, seed=seed)
    head = {"softcap": softcap}
    if vocab > 1:  # else nothing can be wrong, and autograd has no logarithm of nothing
        assert_extras(case, head, 1e-8)
        assert_tokens(case, head, 1e-8)
    tokens = token_statistics(case.hidden, case.weight, case.labels, **head)
    scores = don_nod(*case, **head, extras=EXTRAS)
    for per_token, per_sample in ((tokens.error_norm, scores.error_norm), (tokens.loss, scores.loss)):
        parts = [per_token[a:b].nanmean() for a, b in pairwise(case.cu_seqlens.tolist())]
        torch.testing.assert_close(torch.stack(parts), per_sample, rtol=1e-12, atol=1e-300, equal_nan=True)


def test_no_scored_token_and_no_token_at_all_give_nan_and_nothing() -> None:
    case = make_case((0, 0), 31, 7, unscored=3)
    assert all(bool(column.isnan().all()) for column in token_statistics(case.hidden, case.weight, case.labels))
    nothing = token_statistics(case.hidden[:0], case.weight, case.labels[:0])
    assert [column.shape for column in nothing] == [(0,)] * 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.tensor([1, 31, 2])}, r"labels\[1\] is 31, outside the 31 rows of weight"),
        ({"labels": torch.tensor([1, 2])}, r"labels must be \(3,\)"),
        ({"hidden": torch.zeros(3, 8)}, r"weight must be \(vocab, 8\)"),
        ({"hidden": torch.zeros(())}, r"hidden must be \(tokens, dim\)"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(change: dict[str, Tensor], message: str) -> None:
    arguments = {"hidden": torch.zeros(3, 7), "weight": torch.zeros(31, 7), "labels": torch.tensor([1, 2, 3])}
    with pytest.raises(InputError, match=message):
        token_statistics(**{**arguments, **change})


# ---- together with the Triton kernels -------------------------------------------------------------


def _interpreted(case: Case, **options: Any) -> None:
    triton_cases = pytest.importorskip("triton_cases")
    if not triton_cases.INTERPRETING:
        pytest.skip("runs on CPU tensors under TRITON_INTERPRET=1")
    with configs.override(triton_cases.TINY):
        assert_extras(case, options.pop("head", {}), 1e-5, backend="triton", **options)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("options", [{"update": "adamw"}, {"update": "sgd", "weight_decay": 0.1}, {"update": "sgd"}])
def test_the_triton_backend_has_all_beside_its_kernels(options: dict[str, Any]) -> None:
    _interpreted(make_case((2, 0, 20), 67, 17, margins=(1.0, 25.0)), **options)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_and_for_a_capped_head_with_the_sum() -> None:
    head = {"bias": make_bias(67), "softcap": 15.0}
    _interpreted(make_case((3, 18), 67, 17), head=head, update="adamw", reduction="sum")


def test_bounds_that_are_none_read_nothing_past_the_end() -> None:
    from donod_fast.kernels.arguments import check_call

    case = make_case((2, 3), 31, 7)
    options: dict[str, Any] = {
        "lr": 0.0, "update": SGD(), "weight_decay": 0.0, "reduction": "mean", "bias": None, "logit_scale": 1.0,
        "softcap": None, "storage_dtype": None, "weight_norm": 0.0, "workspace_bytes": MIB,
    }  # fmt: skip
    for wrong in ([0, 10**6, 7], [0, 5, 3], [1, 3, 7]):
        call = check_call(*case._replace(cu_seqlens=torch.tensor(wrong)), **options)
        assert bool(dispatch.mean_error_norm(call).isnan().all())


def test_computing_every_token_gives_the_same_as_scored_tokens_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = make_case(LENGTHS, VOCAB, DIM, margins=CONFIDENT)
    unscored = (case.labels == IGNORE_INDEX).unsqueeze(1)
    states = (case.hidden, torch.where(unscored, torch.nan, case.hidden))
    matrices = torch.randn(2, VOCAB, DIM, generator=torch.Generator().manual_seed(1))

    def everything() -> list[Tensor]:
        found: list[Tensor] = []
        for hidden in states:
            arguments = (hidden, case.weight, case.labels)
            dots = gradient_dots(*arguments, case.cu_seqlens, matrices, reduction="sum")
            found += [*token_statistics(*arguments), *dots.unbind(1)]
        return found

    expected = everything()
    monkeypatch.setattr(
        sys.modules[token_statistics.__module__], "_can_gather", lambda device: False
    )  # as on an accelerator
    for value, wanted in zip(everything(), expected, strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-5, atol=1e-12, equal_nan=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_a_cuda_device_has_the_same(backend: str) -> None:
    host = make_case(LENGTHS, VOCAB, DIM, margins=CONFIDENT)
    case = Case(*(tensor.cuda() for tensor in host))
    found = don_nod(*case, backend=backend, extras=EXTRAS)
    for name, wanted in zip(EXTRAS, extras_by_hand(host, {}), strict=True):
        torch.testing.assert_close(getattr(found, name).cpu(), wanted, rtol=1e-5, atol=0.0, equal_nan=True)
    assert_identical(found._replace(**dict.fromkeys(EXTRAS)), don_nod(*case, backend=backend))
    tokens = torch.stack([*token_statistics(case.hidden, case.weight, case.labels)]).cpu()
    torch.testing.assert_close(tokens, tokens_by_hand(host, {}), rtol=1e-5, atol=0.0, equal_nan=True)
