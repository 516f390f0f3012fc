"""No kernel is compiled again for another batch: Triton compiles anew where an integer is 1, or a multiple of 16.

The launches are recorded and not run: nothing is read back from the device, so they follow from shapes alone.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
import triton
from torch import Tensor
from triton_cases import TINY, interpreted

from donod_fast.kernels import IGNORE_INDEX
from donod_fast.kernels.head_map import HeadMap
from donod_fast.kernels.triton_backend import products
from donod_fast.kernels.triton_backend.configs import Configs, fixed_configs, override
from donod_fast.kernels.triton_backend.run import Call, head_sums
from donod_fast.kernels.updates import resolve_update

pytestmark = interpreted

VOCAB, DIM, MIB = 1000, 48, 1 << 20
HOPPER = fixed_configs("sm_90", torch.bfloat16, torch.bfloat16, mapped=False, direct="short")
# Numbers of tokens and samples that are 1, odd, and multiples of 16.
BATCHES = ((1,), (3,), (16, 16), (5, 0, 40), (33,) * 7, (300, 1), (64,) * 16)
Launch = tuple[str, dict[str, Any], dict[str, Any]]  # kernel, its constants, how Triton sees its other arguments


class Launches:
    """Launches of kernels instead of which nothing happens."""

    def __init__(self) -> None:
        self.found: list[Launch] = []

    def __call__(self, kernel: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
        given = dict(zip(kernel.arg_names, args, strict=False)) | options
        annotations = kernel.fn.__annotations__
        constants = {name: value for name, value in given.items() if "constexpr" in str(annotations.get(name, ""))}
        constants |= {name: options[name] for name in options if name not in kernel.arg_names}
        free = kernel.kwargs.get("do_not_specialize") or ()
        seen = {
            name: view(value, name in free)
            for name, value in given.items()
            if name not in constants and name in kernel.arg_names
        }
        self.found.append((kernel.fn.__name__, constants, seen))


def view(value: Any, free: bool) -> Any:
    """What Triton's compiler knows of an argument."""
    if isinstance(value, Tensor):
        return str(value.dtype), "any address" if free else value.data_ptr() % 16 == 0
    if isinstance(value, int) and not isinstance(value, bool):
        if free:
            return "integer"
        return 1 if value == 1 else "a multiple of 16" if value % 16 == 0 else "no multiple of 16"
    return type(value).__name__


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Launches:
    recorder = Launches()

    def run(kernel: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
        recorder(kernel, *args, grid=grid, warmup=warmup, **options)

    monkeypatch.setattr(triton.runtime.interpreter.InterpretedFunction, "run", run)
    return recorder


def batch(lengths: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states, labels and bounds."""
    bounds = torch.tensor([0, *lengths]).cumsum(0)
    rows = int(bounds[-1])
    labels = torch.arange(rows) % VOCAB
    labels[1::5] = IGNORE_INDEX
    return torch.zeros(rows, DIM, dtype=torch.bfloat16), labels, bounds


def check(launches: Launches) -> None:
    """One view of its arguments for each kernel and each set of constants."""
    views: dict[str, dict[str, Any]] = {}
    for name, constants, seen in launches.found:
        first = views.setdefault(f"{name} {constants}", seen)
        differ = {argument: (first[argument], seen[argument]) for argument in seen if first[argument] != seen[argument]}
        assert not differ, f"{name} is compiled again for another batch: {differ}"


def on_path(lengths: tuple[int, ...], update: str, on_host: bool, nbytes: int, head: HeadMap, configs: Configs) -> None:
    hidden, labels, bounds = batch(lengths)
    call = Call(
        hidden=hidden,
        weight=torch.zeros(VOCAB, DIM, dtype=torch.bfloat16),
        labels=labels,
        bounds=bounds,
        host_bounds=bounds.tolist() if on_host else None,
        head=head,
        update=resolve_update(update),
        lr=1e-5,
        weight_decay=0.0,
        mean=True,
        storage_dtype=None,
        workspace_bytes=nbytes,
    )
    head_sums(call, configs)


@pytest.mark.parametrize("update", ["sgd", "adamw", "sign"])
@pytest.mark.parametrize("head", [HeadMap(), HeadMap(torch.zeros(VOCAB), 1.5, 9.0)], ids=["plain", "bias-cap"])
@pytest.mark.parametrize("configs", [TINY, HOPPER], ids=["small tiles", "shipped tiles"])
def test_no_kernel_is_compiled_again_for_another_batch(
    update: str, head: HeadMap, configs: Configs, launches: Launches
) -> None:
    for lengths in BATCHES:
        for on_host in (True, False):
            for nbytes in (2 * MIB, 4 * MIB, 64 * MIB):
                on_path(lengths, update, on_host, nbytes, head, configs)
    names = {name for name, _, _ in launches.found}
    assert {"logits_kernel", "gram_kernel" if update == "sgd" else "direct_kernel"} <= names
    check(launches)


def test_no_kernel_is_compiled_again_for_another_pair_of_sets(launches: Launches) -> None:
    weight = torch.zeros(VOCAB, DIM, dtype=torch.bfloat16)
    with override(HOPPER):
        for one, two in pairwise((*BATCHES, BATCHES[0])):
            for nbytes in (MIB, 64 * MIB):
                products.gradient_products_op(*batch(one), *batch(two), weight, None, True, 1.0, None, nbytes)
    assert {"gram_kernel", "states_kernel", "rectangle_sums_kernel"} <= {name for name, _, _ in launches.found}
    check(launches)


@pytest.mark.parametrize("value", [1, 15])
def test_the_check_reports_an_argument_that_varies(value: int, launches: Launches) -> None:
    def seen(number: int) -> dict[str, Any]:
        return {"first": view(number, False)}

    launches.found += [("kernel", {}, seen(16)), ("kernel", {}, seen(value))]
    with pytest.raises(AssertionError, match=r"kernel is compiled again .*first"):
        check(launches)
