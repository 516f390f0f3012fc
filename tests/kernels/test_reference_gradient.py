"""⟨G_i, M⟩ and sums of gradients equal those of float64 autograd, and agree with ``gradient_products``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from allocation_counts import allocations, slack
from head_cases import MIB, Case, gradients, make_bias, make_case
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from donod_fast.errors import InputError
from donod_fast.kernels import accumulate_gradients, don_nod, gradient_dots, gradient_products, token_statistics

VOCAB, DIM = 507, 123
# At 1 MiB the logits of 150 tokens are cut into blocks, at 100,000 rows of W not even one token's are held.
WORKSPACES = {"stored": 256 * MIB, "blocks": MIB}
BOUNDS = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 1e-6, torch.float16: 1e-6}
HEADS: dict[str, dict[str, Any]] = {
    "plain": {},
    "scaled": {"logit_scale": -0.7},
    "bias": {"bias": make_bias(VOCAB)},
    "softcap": {"bias": make_bias(VOCAB), "softcap": 5.0, "logit_scale": 0.7},
}
LENGTHS = (3, 0, 150, 1, 20, 2)


def matrices(count: int, *, vocab: int = VOCAB, dim: int = DIM, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(count, vocab, dim, generator=torch.Generator().manual_seed(5)).to(dtype)


def work_dtype(case: Case) -> torch.dtype:
    return torch.float64 if case.hidden.dtype == torch.float64 else torch.float32


def assert_dots(case: Case, head: dict[str, Any], bound: float, **options: Any) -> None:
    given_matrices = matrices(3, dtype=work_dtype(case))
    found = gradient_dots(case.hidden, case.weight, case.labels, case.cu_seqlens, given_matrices, **head, **options)
    own = gradients(case, **head, **({"reduction": options["reduction"]} if "reduction" in options else {}))
    flat = given_matrices.double().flatten(1)
    wanted = own @ flat.t()
    assert found.dtype == torch.float64 and torch.equal(found.isnan(), wanted.isnan())
    error = (found - wanted).abs() / (own.norm(dim=1).unsqueeze(1) * flat.norm(dim=1))
    assert float(error.nan_to_num(0.0).max()) <= bound


def assert_sums(case: Case, head: dict[str, Any], bound: float, **options: Any) -> None:
    samples = len(case.cu_seqlens) - 1
    scales = torch.randn(samples, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    into = torch.zeros(3, VOCAB, DIM, dtype=work_dtype(case))
    accumulate_gradients(case.hidden, case.weight, case.labels, case.cu_seqlens, scales, into, **head, **options)
    own = gradients(case, **head, **({"reduction": options["reduction"]} if "reduction" in options else {}))
    wanted = scales.t() @ own.nan_to_num(0.0)
    size = scales.abs().t() @ own.norm(dim=1).nan_to_num(0.0)
    assert float(((into.double().flatten(1) - wanted).norm(dim=1) / size).max()) <= bound


@pytest.mark.parametrize("workspace", WORKSPACES)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("check", [assert_dots, assert_sums])
def test_both_are_those_of_autograd(check: Any, head: str, workspace: str) -> None:
    check(make_case(LENGTHS, VOCAB, DIM), HEADS[head], 1e-6, workspace_bytes=WORKSPACES[workspace])


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("check", [assert_dots, assert_sums])
def test_every_dtype_keeps_its_bound(check: Any, dtype: torch.dtype) -> None:
    check(make_case(LENGTHS, VOCAB, DIM, dtype=dtype), HEADS["softcap"], BOUNDS[dtype])


@pytest.mark.parametrize("check", [assert_dots, assert_sums])
def test_the_sum_over_tokens_too(check: Any) -> None:
    check(make_case(LENGTHS, VOCAB, DIM), {}, 1e-6, reduction="sum")


@pytest.mark.parametrize("check", [assert_dots, assert_sums])
def test_tokens_that_the_model_is_sure_of(check: Any) -> None:
    # Plain cross entropy in float64 knows 1 − p_y to 1e-16 only, which is the truth's error here.
    check(make_case(LENGTHS, VOCAB, DIM, margins=(4.0, 12.0)), {}, 1e-5)


@pytest.mark.parametrize("margin", [20.0, 45.0, 80.0])
def test_tiny_gradients_keep_their_digits_in_products_and_norms(margin: float) -> None:
    sure = make_case((5, 40, 1), VOCAB, DIM, margins=(margin,))
    norms = don_nod(*sure, update="sgd").update_norm
    into = torch.zeros(1, VOCAB, DIM)
    # Each brought to length one before float32 has it.
    accumulate_gradients(*sure[:1], sure.weight, sure.labels, sure.cu_seqlens, 1.0 / norms.unsqueeze(1), into)
    found = gradient_dots(sure.hidden, sure.weight, sure.labels, sure.cu_seqlens, into)[:, 0] / norms
    double = Case(sure.hidden.double(), sure.weight.double(), sure.labels, sure.cu_seqlens)
    side = (double.hidden, double.labels, double.cu_seqlens)
    products = gradient_products(*side, *side, double.weight)
    exact = products.diagonal().sqrt()
    wanted = (products / exact.unsqueeze(1) / exact).sum(1)
    torch.testing.assert_close(found, wanted, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("workspace", WORKSPACES.values(), ids=WORKSPACES)
def test_a_sum_over_a_wide_vocabulary_keeps_its_digits(workspace: int) -> None:
    case = make_case((5, 30), vocab=70_001, dim=3)
    into = torch.zeros(1, 70_001, 3)
    scales = torch.ones(2, 1, dtype=torch.float64)
    accumulate_gradients(
        case.hidden, case.weight, case.labels, case.cu_seqlens, scales, into, workspace_bytes=workspace
    )
    own = gradients(case)
    torch.testing.assert_close(into[0].double().flatten(), own.sum(0), rtol=0.0, atol=1e-6 * float(own.norm()))
    found = gradient_dots(case.hidden, case.weight, case.labels, case.cu_seqlens, into, workspace_bytes=workspace)
    torch.testing.assert_close(found[:, 0], own @ own.sum(0), rtol=1e-5, atol=0.0)


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=5),
    vocab=st.integers(2, 40),
    dim=st.integers(1, 9),
    scaled=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_mean_over_references_is_that_of_all_products(
    lengths: list[int], vocab: int, dim: int, scaled: bool, seed: int
) -> None:
    case = make_case(lengths, vocab, dim, dtype=torch.float64, seed=seed)
    references = make_case((4, 1, 7), vocab, dim, dtype=torch.float64, seed=seed + 1)
    head = {"logit_scale": -1.3, "softcap": 4.0} if scaled else {}
    into = torch.zeros(2, vocab, dim, dtype=torch.float64)
    norms = don_nod(*references._replace(weight=case.weight), update="sgd", **head).update_norm
    for one in range(3):  # a batch at a time
        a, b = references.cu_seqlens[one : one + 2].tolist()
        scales = torch.tensor([[1.0, 1.0 / float(norms[one])]], dtype=torch.float64)
        accumulate_gradients(
            references.hidden[a:b], case.weight, references.labels[a:b], torch.tensor([0, b - a]), scales, into, **head
        )
    found = gradient_dots(case.hidden, case.weight, case.labels, case.cu_seqlens, into, **head)
    every = gradient_products(
        case.hidden, case.labels, case.cu_seqlens,
        references.hidden, references.labels, references.cu_seqlens, case.weight, **head,
    )  # fmt: skip
    wanted = torch.stack([every.sum(1), (every / norms).sum(1)], 1)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("lengths", [(20, 3, 0, 11), (260, 3, 31)], ids=["stored", "streamed"])
@pytest.mark.parametrize("what", ["dots", "sums", "statistics", "extras"])
def test_no_more_than_the_workspace_is_held(what: str, lengths: tuple[int, ...]) -> None:
    case = make_case(lengths, vocab=3001, dim=257)
    arguments = (case.hidden, case.weight, case.labels, case.cu_seqlens)
    into, scales = torch.zeros(4, 3001, 257), torch.ones(len(lengths), 4)
    softcap = {"softcap": 20.0, "workspace_bytes": MIB}
    calls: dict[str, Callable[[], object]] = {
        "dots": lambda: gradient_dots(*arguments, into, **softcap),
        "sums": lambda: accumulate_gradients(*arguments, scales, into, **softcap),
        "statistics": lambda: token_statistics(*arguments[:3], **softcap),
        "extras": lambda: don_nod(*arguments, **softcap, weight_norm=1.0, extras=("error_norm", "gradient_norm")),
    }
    peak, _ = allocations(calls[what])
    assert MIB / 16 < peak <= MIB + slack(case)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"matrices": torch.zeros(2, 31, 8)}, r"matrices must be \(n, 31, 7\) to fit weight, got \(2, 31, 8\)"),
        ({"matrices": torch.zeros(31, 7)}, r"matrices must be \(n, 31, 7\)"),
        ({"matrices": torch.zeros(0, 31, 7)}, r"matrices must be \(n, 31, 7\)"),
        ({"matrices": torch.zeros(1, 31, 7).double()}, r"matrices must be torch.float32 on cpu, got torch.float64"),
        ({"cu_seqlens": torch.tensor([0, 4])}, r"cu_seqlens must run from 0 to 3"),
        ({"labels": torch.tensor([1, 31, 2])}, r"labels\[1\] is 31, outside the 31 rows"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(change: dict[str, Tensor], message: str) -> None:
    arguments: dict[str, Tensor] = {
        "hidden": torch.zeros(3, 7), "weight": torch.zeros(31, 7), "labels": torch.tensor([1, 2, 3]),
        "cu_seqlens": torch.tensor([0, 3]), "matrices": torch.zeros(1, 31, 7),
    }  # fmt: skip
    with pytest.raises(InputError, match=message):
        gradient_dots(**{**arguments, **change})


def test_so_are_wrong_scales() -> None:
    case = make_case((2, 3), 31, 7)
    arguments = (case.hidden, case.weight, case.labels, case.cu_seqlens)
    for wrong in (torch.ones(2), torch.ones(3, 1), torch.ones(2, 1, dtype=torch.int64)):
        with pytest.raises(InputError, match=r"scales must be a floating \(2, 1\) tensor"):
            accumulate_gradients(*arguments, wrong, torch.zeros(1, 31, 7))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("check", [assert_dots, assert_sums])
def test_a_cuda_device_has_the_same(check: Any) -> None:
    host = make_case(LENGTHS, VOCAB, DIM)
    case = Case(*(tensor.cuda() for tensor in host))
    scales = torch.ones(len(LENGTHS), 1, dtype=torch.float64, device="cuda")
    into = torch.zeros(1, VOCAB, DIM, device="cuda")
    accumulate_gradients(case.hidden, case.weight, case.labels, case.cu_seqlens, scales, into)
    found = gradient_dots(case.hidden, case.weight, case.labels, case.cu_seqlens, into).cpu()
    own = gradients(host)
    wanted = own @ own.nan_to_num(0.0).sum(0)
    torch.testing.assert_close(found[:, 0], wanted, rtol=1e-5, atol=1e-9, equal_nan=True)
