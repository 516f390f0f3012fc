"""Calls that the steps compile and time: the first group of a batch, for a shape, an update and a sample length."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

import torch
from shapes import SHAPES, Shape

from donod_fast.kernels.head_map import HeadMap
from donod_fast.kernels.triton_backend.configs import Configs, configs_for
from donod_fast.kernels.triton_backend.plan import Plan
from donod_fast.kernels.triton_backend.run import Call
from donod_fast.kernels.updates import resolve_update
from lease.rows import Setting

WORKSPACE = 256 << 20
LENGTHS = (150, 1000)
UPDATES = ("adamw", "sgd")
_TOKENS = 32768
_DRY = (Shape("tiny", 300, 48), Shape("tiny, capped", 300, 48, softcap=30.0))


@dataclass(frozen=True, slots=True)
class Kind:
    """A call by its shape, update and tokens of each sample."""

    shape: Shape
    update: str
    length: int

    @property
    def name(self) -> str:
        """For the table."""
        return f"{self.shape.name}, {self.update}, N = {self.length}"


def shapes_of(setting: Setting, *names: str) -> tuple[Shape, ...]:
    """Shapes by name, or the shapes of a dry run."""
    return _DRY[: len(names)] if setting.dry else tuple(SHAPES[name] for name in names)


def kinds(setting: Setting) -> Iterator[Kind]:
    """Calls of step (d): Llama-2's output layer and Gemma's."""
    for shape in shapes_of(setting, "llama-2-7b", "gemma-2-2b")[: 1 if setting.dry else None]:
        for length in (5,) if setting.dry else LENGTHS:
            for update in UPDATES:
                yield Kind(shape, update, length)


class Inputs:
    """Tensors of one output layer, shared by the calls that use it."""

    def __init__(self, shape: Shape, setting: Setting) -> None:
        generator = torch.Generator(setting.device).manual_seed(0)
        place = {"device": setting.device, "dtype": torch.bfloat16, "generator": generator}
        self.shape, self.setting = shape, setting
        self.weight = torch.randn(shape.vocab, shape.dim, **place).div_(shape.dim**0.5)
        self.hidden = torch.randn(64 if setting.dry else _TOKENS, shape.dim, **place)
        labels = torch.randint(shape.vocab, (len(self.hidden),), generator=torch.Generator().manual_seed(1))
        self.labels = labels.to(setting.device)

    def call(self, kind: Kind, *, samples: int | None = None) -> Call:
        """The first group of a batch of samples of equal length as a call of its own, or so many samples."""
        if samples is None and self.setting.dry:
            samples = 2
        if samples is None:
            whole = self._call(kind, max(1, len(self.hidden) // kind.length))
            plan = whole.plan(configs_of(whole))
            if isinstance(plan, str):
                raise ValueError(plan)
            samples = plan.groups[0].group.samples
        return self._call(kind, samples)

    def _call(self, kind: Kind, samples: int) -> Call:
        bounds = [0, *accumulate([kind.length] * samples)]
        rows = bounds[-1]
        return Call(
            hidden=self.hidden[:rows],
            weight=self.weight,
            labels=self.labels[:rows],
            bounds=torch.tensor(bounds, device=self.weight.device),
            host_bounds=bounds,
            head=HeadMap(None, 1.0, self.shape.softcap),
            update=resolve_update(kind.update),
            lr=2e-5,
            weight_decay=0.0,
            mean=True,
            storage_dtype=None,
            workspace_bytes=WORKSPACE,
        )


def configs_of(call: Call) -> Configs:
    """The shipped tiles of a call."""
    return configs_for(
        call.hidden.device,
        call.hidden.dtype,
        call.signals,
        mapped=call.mapped,
        heavy=False,
        tokens=call.hidden.shape[0],
        samples=call.bounds.shape[0] - 1,
        dim=call.hidden.shape[1],
    )


def plan_of(call: Call, configs: Configs) -> Plan:
    """The plan of a call that has one."""
    plan = call.plan(configs)
    assert isinstance(plan, Plan), plan
    return plan
