"""Every wrong argument is refused by name before any work, and right ones are accepted in any layout."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from head_cases import Case, assert_identical, assert_scores, make_bias, make_case

from donod_fast.errors import BackendError, InputError
from donod_fast.kernels import AdamState, AdamW, don_nod, reference_don_nod

CASE = make_case((3, 0, 5), vocab=31, dim=7)
TOKENS = len(CASE.labels)
ENDS = CASE.cu_seqlens.tolist()


def state_of(**changes: Any) -> AdamW:
    moments = {"exp_avg": torch.zeros(31, 7), "exp_avg_sq": torch.zeros(31, 7), "step": 1}
    return AdamW(state=AdamState(**{**moments, **changes}))


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("hidden", {"hidden": CASE.hidden[None]}),
    ("hidden", {"hidden": CASE.hidden[0]}),
    ("hidden", {"hidden": CASE.hidden.long()}),
    ("hidden", {"hidden": CASE.hidden.to(torch.complex64)}),
    ("hidden", {"hidden": CASE.hidden.to("meta")}),
    ("weight", {"weight": CASE.weight[:, :6]}),
    ("weight", {"weight": CASE.weight[0]}),
    ("weight", {"weight": CASE.weight[None]}),
    ("weight", {"weight": CASE.weight[:0]}),
    ("weight", {"weight": torch.zeros(0)}),
    ("weight", {"weight": CASE.weight.int()}),
    ("weight", {"weight": CASE.weight.to("meta")}),
    ("weight", {"hidden": CASE.hidden[:, :0], "weight": CASE.weight[:, :0]}),
    ("labels", {"labels": CASE.labels[1:]}),
    ("labels", {"labels": CASE.labels[None]}),
    ("labels", {"labels": CASE.labels.float()}),
    ("labels", {"labels": CASE.labels.bool()}),
    ("labels", {"labels": CASE.labels.to("meta")}),
    ("labels", {"labels": CASE.labels.masked_fill(CASE.labels != -100, -1)}),
    ("labels", {"labels": CASE.labels.masked_fill(CASE.labels != -100, 31)}),
    ("cu_seqlens", {"cu_seqlens": torch.tensor([0, TOKENS - 1])}),
    ("cu_seqlens", {"cu_seqlens": torch.tensor([0, TOKENS + 1])}),
    ("cu_seqlens", {"cu_seqlens": torch.tensor([1, TOKENS])}),
    ("cu_seqlens", {"cu_seqlens": torch.tensor([0, 5, 3, TOKENS])}),
    ("cu_seqlens", {"cu_seqlens": torch.tensor([0, TOKENS + 5, TOKENS])}),
    ("cu_seqlens", {"cu_seqlens": torch.tensor([0])}),
    ("cu_seqlens", {"cu_seqlens": torch.tensor([], dtype=torch.int32)}),
    ("cu_seqlens", {"cu_seqlens": torch.tensor(0)}),
    ("cu_seqlens", {"cu_seqlens": torch.tensor([[0, TOKENS]])}),
    ("cu_seqlens", {"cu_seqlens": torch.tensor([0.0, TOKENS])}),
    ("cu_seqlens", {"cu_seqlens": CASE.cu_seqlens.to("meta")}),
    ("bias", {"bias": torch.zeros(30)}),
    ("bias", {"bias": torch.zeros(31, 1)}),
    ("bias", {"bias": torch.zeros(31, dtype=torch.int64)}),
    ("bias", {"bias": torch.zeros(31, device="meta")}),
    ("lr", {"lr": -1e-5}),
    ("lr", {"lr": math.nan}),
    ("lr", {"lr": math.inf}),
    ("weight_decay", {"weight_decay": -0.1}),
    ("weight_decay", {"weight_decay": math.nan}),
    ("logit_scale", {"logit_scale": 0.0}),
    ("logit_scale", {"logit_scale": math.inf}),
    ("softcap", {"softcap": 0.0}),
    ("softcap", {"softcap": -30.0}),
    ("softcap", {"softcap": math.nan}),
    ("reduction", {"reduction": "none"}),
    ("reduction", {"reduction": None}),
    ("storage_dtype", {"storage_dtype": torch.int8}),
    ("storage_dtype", {"storage_dtype": torch.bfloat16, "lr": 0.0}),
    ("update", {"update": "adam"}),
    ("update", {"update": None}),
    ("update", {"update": AdamW}),
    ("update", {"update": state_of(exp_avg=torch.zeros(30, 7))}),
    ("update", {"update": state_of(exp_avg_sq=torch.zeros(7, 31))}),
    ("update", {"update": state_of(exp_avg_sq=torch.zeros(31, 7, device="meta"))}),
]
# What only ``don_nod`` takes.
WRONG_HERE: list[tuple[str, dict[str, Any]]] = [
    ("workspace_bytes", {"workspace_bytes": (1 << 20) - 1}),
    ("workspace_bytes", {"workspace_bytes": 0}),
    ("workspace_bytes", {"workspace_bytes": -1}),
    ("weight_norm", {"weight_norm": math.nan}),
    ("weight_norm", {"weight_norm": -1.0}),
    ("backend", {"backend": "cuda"}),
    ("backend", {"backend": ""}),
]


def arguments(changes: dict[str, Any]) -> tuple[Case, dict[str, Any]]:
    tensors = {name: value for name, value in changes.items() if name in Case._fields}
    return CASE._replace(**tensors), {name: value for name, value in changes.items() if name not in tensors}


def names(table: list[tuple[str, dict[str, Any]]]) -> list[str]:
    return [f"{index}-{name}" for index, (name, _) in enumerate(table)]


@pytest.mark.parametrize(("name", "changes"), WRONG + WRONG_HERE, ids=names(WRONG + WRONG_HERE))
def test_a_wrong_argument_is_refused_by_name(name: str, changes: dict[str, Any]) -> None:
    tensors, options = arguments(changes)
    with pytest.raises(InputError, match=rf"^{name}\b"):
        don_nod(*tensors, **options)


@pytest.mark.parametrize(("name", "changes"), WRONG, ids=names(WRONG))
def test_the_reference_refuses_the_same(name: str, changes: dict[str, Any]) -> None:
    tensors, options = arguments(changes)
    with pytest.raises(InputError, match=rf"^{name}\b"):
        reference_don_nod(*tensors, **options)


def test_a_label_outside_the_vocabulary_is_named_with_its_place() -> None:
    labels = CASE.labels.clone()
    labels[5] = 31
    with pytest.raises(InputError, match=r"labels\[5\] is 31\b.*31 rows"):
        don_nod(*CASE._replace(labels=labels))


def test_bounds_that_decrease_are_named_with_their_place() -> None:
    with pytest.raises(InputError, match=r"from 5 to 3 at 2"):
        don_nod(*CASE._replace(cu_seqlens=torch.tensor([0, 5, 3, TOKENS])))


def test_an_empty_weight_says_that_it_may_be_sharded() -> None:
    with pytest.raises(InputError, match="gather"):
        don_nod(*CASE._replace(weight=torch.zeros(0, 7)))


def test_input_errors_are_value_errors_too() -> None:
    with pytest.raises(ValueError, match="lr"):
        don_nod(*CASE, lr=-1.0)


def test_triton_asked_for_by_name_says_why_it_cannot_serve() -> None:
    with pytest.raises(BackendError, match=r"(?i)triton.*does not support.*float64"):
        don_nod(*CASE._replace(hidden=CASE.hidden.double()), backend="triton")


def test_a_wrong_argument_is_reported_before_the_backend() -> None:
    with pytest.raises(InputError, match="labels"):
        don_nod(*CASE._replace(labels=CASE.labels[1:]), backend="triton")


def test_torch_and_auto_serve_the_cpu_alike() -> None:
    assert_identical(don_nod(*CASE, backend="torch"), don_nod(*CASE, backend="auto"))


def test_no_argument_is_written_to() -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        case = make_case((3, 150), vocab=507, dim=67, dtype=dtype)
        bias = make_bias(507, dtype=dtype)
        before = [tensor.clone() for tensor in (*case, bias)]
        for workspace in (1 << 20, 1 << 28):
            for update in ("adamw", "sgd", "sign"):
                don_nod(*case, bias=bias, update=update, softcap=30.0, workspace_bytes=workspace)
                don_nod(*case, update=update, storage_dtype=torch.bfloat16, workspace_bytes=workspace)
        for tensor, copy in zip((*case, bias), before, strict=True):
            assert torch.equal(tensor, copy)


def strided(tensor: torch.Tensor, how: str) -> torch.Tensor:
    """The same values in another memory layout."""
    if how == "transposed":
        return tensor.t().contiguous().t()
    if how == "every-other":
        wide = torch.full((2 * tensor.shape[0], 3 * tensor.shape[1]), math.nan, dtype=tensor.dtype)
        wide[::2, ::3] = tensor
        return wide[::2, ::3]
    return torch.cat([torch.full_like(tensor[:1], math.nan), tensor])[1:]


@pytest.mark.parametrize("workspace", [1 << 20, 1 << 28], ids=["streamed", "stored"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("how", ["transposed", "every-other", "offset"])
@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_any_memory_layout_gives_the_same_scores(update: str, how: str, dtype: torch.dtype, workspace: int) -> None:
    case = make_case((1, 150, 4), vocab=507, dim=67, dtype=dtype)
    twice = torch.stack([case.labels, case.labels], 1)[:, 0]
    bias = make_bias(507)
    other = Case(strided(case.hidden, how), strided(case.weight, how), twice, case.cu_seqlens.repeat_interleave(2)[::2])
    options: dict[str, Any] = {"update": update, "bias": bias, "workspace_bytes": workspace}
    found = don_nod(*other, **{**options, "bias": bias.repeat_interleave(2)[::2]})
    assert_scores(found, don_nod(*case, **options), 1e-5)
