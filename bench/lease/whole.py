"""(e) ``don_nod`` with AdamW and SGD at three output layers, beside the bare product and the fused losses there are."""

from __future__ import annotations

import torch
from head_case import Case
from head_rows import FLOOR
from shapes import LENGTHS

from lease.calls import shapes_of
from lease.rows import Setting, digits, median_ms

_SHAPES = ("llama-2-7b", "qwen2.5-7b", "gemma-2-2b")
_PROFILES = ("gsm8k", "1000")


def run(setting: Setting) -> None:
    """Add a row for each program: milliseconds, and how many bare products that is."""
    for shape in shapes_of(setting, *_SHAPES):
        for profile in _PROFILES[:1] if setting.dry else _PROFILES:
            tokens = 40 if setting.dry else 8192
            name = f"{shape.name}, {tokens} tokens, {profile}"
            case = setting.attempt(
                name,
                "inputs",
                lambda shape=shape, profile=profile, tokens=tokens: Case(
                    shape, LENGTHS[profile], tokens, device=setting.device, dtype=torch.bfloat16, loop_samples=1
                ),
            )
            if case is not None:
                _programs(setting, name, case)


def _programs(setting: Setting, name: str, case: Case) -> None:
    floor = 0.0
    for program in case.programs():
        if not program.name.startswith((FLOOR, "ours", "loss only")):
            continue
        if program.run is None:
            setting.add(name, program.name, note=program.note)
            continue
        ms = setting.attempt(name, program.name, lambda run=program.run: median_ms(run, rounds=7, seconds=1.0))
        if ms is None:
            continue
        floor = floor or ms  # the first program is the bare product
        setting.add(name, program.name, calls=1, median_ms=digits(ms), value=digits(ms / floor), unit="products",
                    note=program.note)  # fmt: skip
