"""The caller's settings and imports do not affect the kernels, and the kernels do not change them."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest
import torch
from head_cases import MIB, assert_identical, make_case
from torch.utils._python_dispatch import TorchDispatchMode

from donod_fast.kernels import don_nod


@contextmanager
def matmul_precision(value: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(value)
    try:
        yield
        assert torch.get_float32_matmul_precision() == value, "the caller's setting was not restored"
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def default_dtype(value: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(value)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def autocast() -> Iterator[None]:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        yield
        assert torch.is_autocast_enabled("cpu"), "the caller's autocast was not restored"


@contextmanager
def grad(enabled: bool) -> Iterator[None]:
    with torch.set_grad_enabled(enabled):
        yield
        assert torch.is_grad_enabled() is enabled, "the caller's grad mode was not restored"


SURROUNDINGS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "medium matmul precision": lambda: matmul_precision("medium"),
    "high matmul precision": lambda: matmul_precision("high"),
    "autocast": autocast,
    "grad": lambda: grad(True),
    "no grad": lambda: grad(False),
    "inference mode": torch.inference_mode,
    "default dtype float64": lambda: default_dtype(torch.float64),
    "default dtype bfloat16": lambda: default_dtype(torch.bfloat16),
    "anomaly detection": lambda: torch.autograd.set_detect_anomaly(True),
}


@pytest.mark.parametrize("workspace", [MIB, 256 * MIB], ids=["streamed", "stored"])
@pytest.mark.parametrize("surroundings", SURROUNDINGS)
@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_the_callers_settings_neither_leak_in_nor_change(update: str, surroundings: str, workspace: int) -> None:
    case = make_case((1, 2, 150, 30), vocab=507, dim=67)
    expected = don_nod(*case, update=update, workspace_bytes=workspace)
    with SURROUNDINGS[surroundings]():
        found = don_nod(*case, update=update, workspace_bytes=workspace)
    assert_identical(found, expected)


@pytest.mark.parametrize("surroundings", [lambda: matmul_precision("medium"), autocast], ids=["medium", "autocast"])
def test_they_are_restored_after_an_error_too(
    surroundings: Callable[[], AbstractContextManager[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from donod_fast.kernels import torch_backend

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(torch_backend, "plan_workspace", broken)
    with surroundings(), pytest.raises(RuntimeError, match="out of memory"):
        don_nod(*make_case((3,), vocab=31, dim=7))


def products_are_full() -> bool:
    """Whether float32 products are float32, by whichever switch this torch has."""
    backends: Any = torch.backends
    switches = [getattr(getattr(backends, name, None), "matmul", None) for name in ("cuda", "mkldnn")]
    if all(hasattr(switch, "fp32_precision") for switch in switches):
        return all(switch.fp32_precision == "ieee" for switch in switches)
    return torch.get_float32_matmul_precision() == "highest"


class ProductsSeen(TorchDispatchMode):
    """Notes dtypes and precision setting of every matrix product: this CPU may have no lower precision to show."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[torch.dtype, bool]] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func.overloadpacket.__name__ in ("mm", "addmm", "addmm_", "bmm", "baddbmm"):
            self.seen.update((x.dtype, products_are_full()) for x in args if torch.is_tensor(x))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("workspace", [MIB, 256 * MIB], ids=["streamed", "stored"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_every_product_is_of_full_float32(update: str, dtype: torch.dtype, workspace: int) -> None:
    case = make_case((1, 2, 150, 30), vocab=507, dim=67, dtype=dtype)
    with matmul_precision("medium"), torch.autocast("cpu", dtype=torch.bfloat16), ProductsSeen() as products:
        don_nod(*case, update=update, workspace_bytes=workspace)
    assert products.seen == {(torch.float32, True)}


def test_precision_set_through_torchs_newer_switch_does_no_harm() -> None:
    """Torch 2.9 has a second way to ask for reduced products, and refuses to read the first beside it."""
    program = """
        import torch
        from donod_fast.kernels import don_nod
        switch = getattr(getattr(torch.backends, "mkldnn", None), "matmul", None)
        if not hasattr(switch, "fp32_precision"):
            raise SystemExit(0)
        switch.fp32_precision = "bf16"
        torch.manual_seed(0)
        hidden, weight = torch.randn(9, 64), torch.randn(300, 64)
        scores = don_nod(hidden, weight, torch.arange(9), torch.tensor([0, 9]))
        assert bool(scores.don.isfinite())
        assert switch.fp32_precision == "bf16"
    """
    run(program)


@pytest.mark.parametrize("parameter", [False, True])
@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_tensors_that_require_grad_are_scored_and_no_graph_is_kept(update: str, parameter: bool) -> None:
    case = make_case((3, 9), vocab=31, dim=7)
    expected = don_nod(*case, update=update)
    weight = torch.nn.Parameter(case.weight.clone()) if parameter else case.weight.clone().requires_grad_(True)
    found = don_nod(*case._replace(hidden=case.hidden.clone().requires_grad_(True), weight=weight), update=update)
    assert not any(column.requires_grad for column in found[:7])
    assert_identical(found, expected)
    assert weight.grad is None


def test_tensors_made_in_inference_mode_are_scored_outside_it() -> None:
    with torch.inference_mode():
        case = make_case((3, 9), vocab=31, dim=7)
    with nullcontext():
        assert_identical(don_nod(*case), don_nod(*make_case((3, 9), vocab=31, dim=7)))


def run(program: str) -> None:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_donod_fast_loads_no_torch_transformers_or_triton() -> None:
    run(
        """
        import sys
        import donod_fast
        heavy = {"torch", "transformers", "triton", "numpy", "datasets", "pyarrow"} & set(sys.modules)
        assert not heavy, heavy
        assert "don_nod" in dir(donod_fast)
        """
    )


def test_importing_the_kernels_loads_no_more_than_torch_itself() -> None:
    run(
        """
        import sys
        import torch
        torch_alone = set(sys.modules)
        import donod_fast.kernels
        added = {name.partition(".")[0] for name in set(sys.modules) - torch_alone}
        assert not added & {"transformers", "triton", "datasets", "pyarrow", "tokenizers"}, added
        """
    )


def test_the_kernels_work_where_triton_is_not_installed() -> None:
    run(
        """
        import sys

        class Blocked:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in ("triton", "transformers"):
                    raise ImportError(name + " is not installed")

        sys.meta_path.insert(0, Blocked())
        import torch
        import donod_fast
        torch.manual_seed(0)
        hidden, weight = torch.randn(4, 8), torch.randn(30, 8)
        for backend in ("auto", "torch"):
            scores = donod_fast.don_nod(hidden, weight, torch.arange(4), torch.tensor([0, 4]), backend=backend)
            assert bool(scores.don.isfinite())
        try:
            donod_fast.don_nod(hidden, weight, torch.arange(4), torch.tensor([0, 4]), backend="triton")
        except donod_fast.kernels.dispatch.BackendError:
            pass
        else:
            raise AssertionError("triton cannot have served this")
        """
    )
