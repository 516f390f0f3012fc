"""(d) Time of every launch function on its own, beside its prediction, and of variants that are not shipped.

One call runs while every ``launch_…`` function of the backend records its arguments. Then each recorded launch is
repeated on the same tensors, so that neither the host nor the neighbours of a kernel are part of its time.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import torch

from donod_fast.kernels import gradient_products, triton_backend
from donod_fast.kernels.float8 import LEAST_TOKENS
from donod_fast.kernels.triton_backend.configs import Configs
from donod_fast.kernels.triton_backend.run import Call, head_sums
from lease.calls import Inputs, Kind, configs_of, kinds, plan_of
from lease.rows import Setting, digits, median_ms

# Modules that compile ahead of time, which no call imports.
_ALSO_COMPILED = ("compiled", "variants")
# Changes of the direct kernel's tiles. None: exact division instead of the approximate reciprocal.
VARIANTS: dict[str, dict[str, Any] | None] = {
    "as shipped": {},
    "exact division": None,
    "no TMA": {"tma": False},
    "no TMA, W kept": {"tma": False, "keep": True},
    "step 64": {"step": 64},
    "8 warps": {"warps": 8},
    "3 stages": {"stages": 3},
}


@dataclass(frozen=True, slots=True)
class Launch:
    """A launch that can be repeated."""

    name: str
    run: Callable[[], Any]


def backend_modules() -> list[Any]:
    """The modules of the Triton backend that a call imports."""
    names = [module.name for module in pkgutil.iter_modules(triton_backend.__path__)]
    return [
        importlib.import_module(f"{triton_backend.__name__}.{name}") for name in names if name not in _ALSO_COMPILED
    ]


@contextmanager
def recorded() -> Iterator[list[Launch]]:
    """Every outermost launch of the block, in order."""
    found: list[Launch] = []
    depth = 0

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        def launch(*args: Any, **kwargs: Any) -> Any:
            nonlocal depth
            if not depth:
                found.append(Launch(name_of(function, args, kwargs), lambda: function(*args, **kwargs)))
            depth += 1
            try:
                return function(*args, **kwargs)
            finally:
                depth -= 1

        return launch

    with ExitStack() as stack:
        for module in backend_modules():
            for name, value in list(vars(module).items()):
                if name.startswith("launch_") and inspect.isfunction(value):
                    stack.enter_context(mock.patch.object(module, name, watched(value)))
        yield found


def name_of(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Name of a launch; the logits kernel without its sums is another kernel, ``again``."""
    name = function.__name__.removeprefix("launch_")
    if name == "logits" and inspect.signature(function).bind(*args, **kwargs).arguments.get("sums", 0) is None:
        return "again"
    return name


def run(setting: Setting) -> None:
    """Add the rows: every kernel at the shapes and lengths of ``kinds``, products of two sets, then the variants."""
    inputs: Inputs | None = None
    later: list[tuple[Kind, Inputs]] = []
    for kind in kinds(setting):
        if inputs is None or inputs.shape != kind.shape:
            inputs = Inputs(kind.shape, setting)
        setting.attempt(
            kind.name, "launches", lambda kind=kind, inputs=inputs: time_call(setting, kind, inputs.call(kind))
        )
        if kind.update == "sgd":
            setting.attempt(kind.name, "products", lambda kind=kind, inputs=inputs: _products(setting, kind, inputs))
        elif kind.shape.softcap is None:
            later.append((kind, inputs))
    for kind, inputs in later:
        if kind.length >= LEAST_TOKENS:
            setting.attempt(kind.name, "float8", lambda kind=kind, inputs=inputs: _float8(setting, kind, inputs))
        for name in VARIANTS:
            of = (setting, kind, inputs, name)
            setting.attempt(kind.name, f"direct: {name}", lambda of=of: _variant(*of))


def time_call(setting: Setting, kind: Kind, call: Call) -> None:
    """Add a row for each launch function of a call, and one for the call, beside the bare product."""
    configs = configs_of(call)
    tokens, (vocab, dim) = call.hidden.shape[0], call.weight.shape
    with recorded() as launches:
        head_sums(call, configs)
    predicted = _predictions(setting, kind, call, configs)
    product = median_ms(lambda: torch.mm(call.hidden, call.weight.t()), seconds=0.5)
    rate = digits(2e-9 * tokens * vocab * dim / product)
    setting.add(kind.name, "bare product", calls=1, median_ms=digits(product), value=rate,
                unit="TFLOP/s", note=f"{tokens} tokens")  # fmt: skip
    total = add_times(setting, kind.name, launches, predicted, product)
    from donod_fast.kernels.triton_backend.reduce import squared_norm

    norm = digits(median_ms(lambda: squared_norm(call.weight)))
    setting.add(kind.name, "squared_norm", calls=1, median_ms=norm, note="once a batch, not a group")
    whole = median_ms(lambda: head_sums(call, configs), rounds=8)
    setting.add(kind.name, "all launches", calls=len(launches), median_ms=digits(total), value=digits(total / product),
                unit="products")  # fmt: skip
    setting.add(kind.name, "one group", calls=1, median_ms=digits(whole), value=digits(whole / product),
                unit="products", note="with the tables and the host")  # fmt: skip


def add_times(
    setting: Setting, case: str, launches: list[Launch], predicted: dict[str, float], product: float
) -> float:
    """Add a row for each launch function; returns the milliseconds of all."""
    total = 0.0
    for name in dict.fromkeys(launch.name for launch in launches):
        mine = [launch for launch in launches if launch.name == name]
        ms = setting.attempt(case, name, lambda mine=mine: sum(median_ms(one.run, seconds=0.3) for one in mine))
        if ms is None:
            continue
        total += ms
        expected = predicted.get(name)
        setting.add(case, name, calls=len(mine), median_ms=digits(ms), value=digits(ms / product), unit="products",
                    predicted_ms="" if expected is None else digits(1e3 * expected))  # fmt: skip
    return total


def _predictions(setting: Setting, kind: Kind, call: Call, configs: Configs) -> dict[str, float]:
    """Seconds of each kernel by bench/roofline.py; empty, with a row, if it cannot tell."""

    def predict() -> dict[str, float]:
        import roofline

        group = plan_of(call, configs).groups[0]
        times: dict[str, float] = roofline.group_times(roofline.H200, configs, kind.shape, group, linear=call.linear)
        return times

    return setting.attempt(kind.name, "prediction", predict) or {}


@contextmanager
def varied(name: str, shipped: Configs) -> Iterator[Configs]:
    """Configs of a variant; inside the block the backend computes as it does."""
    from donod_fast.kernels.triton_backend import direct

    change = VARIANTS[name]
    with ExitStack() as stack:
        if change is None:
            stack.enter_context(mock.patch.object(direct, "RECIPROCAL", "divide"))
        yield replace(shipped, direct=replace(shipped.direct, **(change or {})))


def _variant(setting: Setting, kind: Kind, inputs: Inputs, name: str) -> None:
    """Time the direct kernel with tiles or instructions that are not shipped."""
    call = inputs.call(kind)
    with varied(name, configs_of(call)) as configs:
        with recorded() as launches:
            head_sums(call, configs)
        mine = [launch for launch in launches if launch.name == "direct"]
        ms = sum(median_ms(one.run, seconds=0.3) for one in mine)
    setting.add(kind.name, f"direct: {name}", calls=len(mine), median_ms=digits(ms))


def _float8(setting: Setting, kind: Kind, inputs: Inputs) -> None:
    """Kernels of a call that multiplies the gradient tiles in float8."""
    call = replace(inputs.call(kind), float8=True)
    with recorded() as launches:
        head_sums(call, configs_of(call))
    product = median_ms(lambda: torch.mm(call.hidden, call.weight.t()), seconds=0.3)
    add_times(setting, f"{kind.name}, float8", launches, {}, product)


def _products(setting: Setting, kind: Kind, inputs: Inputs) -> None:
    """Kernels of the products of two sets of samples."""
    call = inputs.call(kind)
    side = (call.hidden, call.labels, torch.tensor(call.host_bounds, dtype=torch.int32))
    with recorded() as launches:
        gradient_products(*side, *side, call.weight, softcap=call.head.softcap, backend="triton")
    product = median_ms(lambda: torch.mm(call.hidden, call.weight.t()), seconds=0.3)
    add_times(setting, f"products of two sets: {kind.name}", launches, {}, product)
