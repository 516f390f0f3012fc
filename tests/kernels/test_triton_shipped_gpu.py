"""The shipped large tiles on a CUDA device, on every path, against float64 on the device.

``test_triton_gpu.py`` uses 300 hidden dimensions, no multiple of 16, which selects the small tiles. Here there are 304,
and enough elements of W for error signals in 16 bits: every block is ragged, and every load aligned.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from head_cases import MIB, Case, assert_scores, make_bias, make_case, make_state
from torch import Tensor
from triton_cases import call_of, paths_of

from donod_fast.kernels import AdamState, AdamW, DonNod, don_nod, gradient_products, reference_don_nod
from donod_fast.kernels.triton_backend import configs, logits
from donod_fast.kernels.triton_backend.architectures import CONSERVATIVE

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

DEVICE = "cuda"
VOCAB, DIM = 27_648 + 7, 304
SHORT, LONG = (1, 150, 0, 30, 200), (700, 2, 400)
# Labels far below, near and far above the other logits; the first and the last are computed again (``rescue.py``).
MARGINS = (-60.0, 0.0, 9.0, 25.0, 45.0, 90.0)
BOUND = 1e-4
STORED, STREAMED = 512 * MIB, 16 * MIB
MAPPED: dict[str, Any] = {"bias": make_bias(VOCAB), "logit_scale": 0.7, "softcap": 20.0}


def case_of(
    lengths: tuple[int, ...], *, margins: Any = None, dtype: torch.dtype = torch.bfloat16, seed: int = 0
) -> Case:
    case = make_case(lengths, VOCAB, DIM, margins=margins, dtype=dtype, device=DEVICE, seed=seed)
    assert case.weight.numel() >= logits.SMALL_HEAD
    return case._replace(cu_seqlens=case.cu_seqlens.cpu())


def on_device(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value.to(DEVICE) if torch.is_tensor(value) else value for name, value in options.items()}


def truth(case: Case, **options: Any) -> DonNod:
    """The reference in float64 on the device, as columns on the CPU."""
    if "bias" in options:
        options["bias"] = options["bias"].double()
    found = reference_don_nod(case.hidden.double(), case.weight.double(), case.labels, case.cu_seqlens, **options)
    return DonNod(*(column.cpu() for column in found[:7]))


def assert_large_tiles(case: Case, *, mapped: bool, heavy: bool) -> None:
    """The call uses none of the small tiles (on an architecture that the table knows)."""
    if configs.architecture_of(case.hidden.device) == CONSERVATIVE:
        return
    samples = len(case.cu_seqlens) - 1
    chosen = configs.configs_for(
        case.hidden.device, case.hidden.dtype, torch.bfloat16, mapped=mapped, heavy=heavy, tokens=len(case.labels),
        samples=samples, dim=DIM,
    )  # fmt: skip
    small = configs.fixed_configs(CONSERVATIVE, torch.bfloat16, torch.bfloat16, mapped=mapped, direct="short")
    assert chosen.logits.vocab > small.logits.vocab
    assert chosen.direct.vocab > small.direct.vocab
    assert chosen.gram.tokens > small.gram.tokens


def assert_kept(case: Case, workspace: int, *, bound: float = BOUND, **options: Any) -> None:
    moved = on_device(options)
    update = moved.get("update", "adamw")
    heavy = not isinstance(update, str) or "storage_dtype" in options
    assert_large_tiles(case, mapped="bias" in options or "softcap" in options, heavy=heavy)
    found = don_nod(*case, backend="triton", workspace_bytes=workspace, **moved)
    assert_scores(DonNod(*(column.cpu() for column in found[:7])), truth(case, **moved), bound)


@pytest.mark.parametrize("workspace", [STORED, STREAMED], ids=["stored", "streamed"])
@pytest.mark.parametrize("margins", [None, MARGINS], ids=["random", "confident"])
@pytest.mark.parametrize("lengths", [SHORT, LONG], ids=["short", "long"])
@pytest.mark.parametrize("update", ["adamw", "sgd", "sign"])
def test_large_tiles_keep_the_bound(update: str, lengths: tuple[int, ...], margins: Any, workspace: int) -> None:
    assert_kept(case_of(lengths, margins=margins), workspace, update=update)


def test_the_small_workspace_streams_the_long_samples() -> None:
    case = case_of(LONG)
    paths = {size: paths_of(call_of(case, workspace_bytes=size), tiles_of(case)) for size in (STORED, STREAMED)}
    assert "stored" in paths[STORED]
    assert paths[STREAMED] & {"chunks", "kept first chunk of the longest group"}


def tiles_of(case: Case) -> configs.Configs:
    return configs.configs_for(
        case.hidden.device, case.hidden.dtype, torch.bfloat16, mapped=False, heavy=False, tokens=len(case.labels),
        samples=len(case.cu_seqlens) - 1, dim=DIM,
    )  # fmt: skip


@pytest.mark.parametrize("workspace", [STORED, STREAMED], ids=["stored", "streamed"])
@pytest.mark.parametrize("lengths", [SHORT, LONG], ids=["short", "long"])
@pytest.mark.parametrize("update", ["adamw", "sgd"])
@pytest.mark.parametrize("head", ["bias", "softcap", "all"])
def test_large_tiles_of_mapped_heads_keep_the_bound(
    head: str, update: str, lengths: tuple[int, ...], workspace: int
) -> None:
    options = MAPPED if head == "all" else {head: MAPPED[head]}
    assert_kept(case_of(lengths, margins=(0.0, 9.0, 25.0)), workspace, update=update, **options)


@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_large_tiles_of_float16_input_keep_the_bound(update: str) -> None:
    assert_kept(case_of(SHORT, dtype=torch.float16), STORED, update=update)


@pytest.mark.parametrize("workspace", [STORED, STREAMED], ids=["stored", "streamed"])
@pytest.mark.parametrize("lengths", [SHORT, LONG], ids=["short", "long"])
def test_large_tiles_of_a_given_state_keep_the_bound(lengths: tuple[int, ...], workspace: int) -> None:
    case = case_of(lengths)
    state = make_state(Case(*(x.cpu() for x in case)))
    moved = AdamState(state.exp_avg.to(DEVICE), state.exp_avg_sq.to(DEVICE), state.step)
    assert_kept(case, workspace, update=AdamW(state=moved))


@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_large_tiles_of_a_rounded_step_keep_the_bound(update: str) -> None:
    rounded = {"storage_dtype": torch.bfloat16, "lr": 1e-3, "weight_decay": 0.1}
    assert_kept(case_of(SHORT), STORED, update=update, **rounded)


@pytest.mark.parametrize("workspace", [STORED, STREAMED], ids=["stored", "streamed"])
@pytest.mark.parametrize("head", [{}, MAPPED], ids=["plain", "all"])
def test_products_of_two_sets_by_large_tiles_are_those_of_float64(head: dict[str, Any], workspace: int) -> None:
    left, right = case_of(SHORT, margins=(0.0, 9.0)), case_of((3, 0, 90), seed=1)._replace(weight=case_of(SHORT).weight)
    sides = [(case.hidden, case.labels, case.cu_seqlens) for case in (left, right)]
    options = on_device(head)
    found = gradient_products(*sides[0], *sides[1], left.weight, backend="triton", workspace_bytes=workspace, **options)
    wide: list[Tensor] = [sides[0][0].double(), *sides[0][1:], sides[1][0].double(), *sides[1][1:]]
    if "bias" in options:
        options["bias"] = options["bias"].double()
    expected = gradient_products(*wide, left.weight.double(), backend="torch", **options)
    assert torch.equal(found.isnan(), expected.isnan())
    norms = [truth(case, update="sgd", **on_device(head)).update_norm.to(DEVICE) for case in (left, right)]
    error = (found - expected).abs() / (norms[0].unsqueeze(1) * norms[1])
    assert float(error.nan_to_num(0.0).max()) <= BOUND


@pytest.mark.parametrize("update", ["adamw", "sgd"])
@pytest.mark.parametrize("margins", [(25.0,), (25.0, 5.0, -25.0)], ids=["sure", "mixed"])
def test_confident_tokens_of_4096_dimensions_keep_the_bound(margins: tuple[float, ...], update: str) -> None:
    """Tensor cores may truncate when they add; a common error of the other logits of 1e-4 nats would show in the loss.

    The loss of such a token is Σ e^{z_v − 25}, and the label's logit is computed in float64.
    """
    case = make_case((40, 3), 4096, 4096, margins=margins, dtype=torch.bfloat16, device=DEVICE)
    case = case._replace(cu_seqlens=case.cu_seqlens.cpu())
    found = don_nod(*case, update=update, backend="triton")
    assert_scores(DonNod(*(column.cpu() for column in found[:7])), truth(case, update=update), BOUND)


def test_large_logits_of_4096_dimensions_keep_the_bound() -> None:
    """Random logits of standard deviation 8, so that their largest is some 30 nats above the label's."""
    case = make_case((40, 3), 4096, 4096, dtype=torch.bfloat16, device=DEVICE)
    case = case._replace(hidden=case.hidden * (8.0 / 0.7), cu_seqlens=case.cu_seqlens.cpu())
    found = don_nod(*case, update="sgd", backend="triton")
    assert_scores(DonNod(*(column.cpu() for column in found[:7])), truth(case, update="sgd"), BOUND)
