"""Choose tile shapes by measurement, if requested with ``DONOD_FAST_AUTOTUNE=1``.

The first call of a kind (device, element type, output layer, update, length class) runs once per candidate, kernel by
kernel, and keeps the fastest candidate of each. The choice is written to ``autotune.json`` in ``DONOD_FAST_CACHE``
(default ``~/.cache/donod_fast``), so that later processes need not measure. Tuning waits for the device and never
happens during the capture of a CUDA graph. Scores of different choices agree within their error bounds, but not bit for
bit; therefore the fixed table is the default.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import triton
from triton.runtime.errors import OutOfResources

from donod_fast.kernels.triton_backend.configs import (
    Configs,
    DirectConfig,
    GramConfig,
    LogitsConfig,
    is_brief,
    shape_class,
)
from donod_fast.kernels.triton_backend.direct import rule_of
from donod_fast.kernels.triton_backend.run import Call, head_sums

_log = logging.getLogger(__name__)
_chosen: dict[str, Configs] = {}
_CLASSES: dict[str, Callable[..., Any]] = {
    "logits": LogitsConfig,
    "statistics": LogitsConfig,
    "direct": DirectConfig,
    "gram": GramConfig,
}


def tuned(call: Call, fixed: Configs) -> Configs:
    """``fixed``, or the fastest measured choice if tuning is requested."""
    if os.environ.get("DONOD_FAST_AUTOTUNE", "") in ("", "0"):
        return fixed
    key = _key(call)
    if key not in _chosen:
        stored = _parsed(_read().get(key))
        if stored is not None:
            _chosen[key] = replace(stored, float8=fixed.float8)
        elif _capturing(call):
            return fixed
        else:
            _chosen[key] = tune(call, fixed, lambda configs: measure(call, configs))
            _write(key, _chosen[key])
    return _chosen[key]


def tune(call: Call, fixed: Configs, seconds: Callable[[Configs], float]) -> Configs:
    """Fastest candidates, kernel by kernel; those that do not run (for example, too large) are skipped."""
    try:
        best, least = fixed, seconds(fixed)
    except OutOfResources as error:
        _log.info("the fixed choice %s skipped: %s", fixed, error)
        best, least = fixed, float("inf")
    for name in ("gram",) if call.linear else ("direct",):
        best, least = _best_of(name, best, least, seconds)
    return _best_of("logits", best, least, seconds)[0]


def _best_of(name: str, best: Configs, least: float, seconds: Callable[[Configs], float]) -> tuple[Configs, float]:
    for candidate in candidates(name, best):
        configs = replace(best, **{name: candidate})  # type: ignore[arg-type]
        try:
            found = seconds(configs)
        except Exception as error:  # compilers and drivers raise many kinds of errors
            _log.info("candidate %s of %s skipped: %s", candidate, name, error)
            continue
        if found < least:
            best, least = configs, found
    return best, least


def candidates(name: str, configs: Configs) -> list[LogitsConfig | DirectConfig | GramConfig]:
    """Neighbours of a choice; the compiler refuses those that exceed the limits of the architecture."""
    if name == "logits":
        logits = configs.logits
        return [
            replace(logits, vocab=128, dim=64, split=2, warps=8, stages=3),
            replace(logits, vocab=128, dim=64, split=4, warps=4, stages=3),
            replace(logits, vocab=256, dim=64, split=4, warps=8, stages=3),
            replace(logits, vocab=256, dim=32, split=4, warps=8, stages=4),
        ]
    if name == "direct":
        direct = configs.direct
        return [
            replace(direct, vocab=128, dim=128, step=32, split=8, warps=4, stages=3),
            replace(direct, vocab=128, dim=128, step=64, split=8, warps=4, stages=3),
            replace(direct, vocab=128, dim=128, step=32, split=4, warps=8, stages=4),
            replace(direct, vocab=128, dim=128, step=32, split=4, warps=8, stages=4, tma=False, keep=True),
            replace(direct, vocab=128, dim=256, step=32, split=8, warps=8, stages=4),
            replace(direct, vocab=128, dim=256, step=64, split=8, warps=8, stages=3),
            replace(direct, vocab=128, dim=64, step=64, split=4, warps=4, stages=3),
        ]
    gram = configs.gram
    return [
        replace(gram, tokens=64, columns=64, dim=64, split=1, warps=4, stages=3),
        replace(gram, tokens=64, columns=64, dim=64, split=1, warps=8, stages=4),
        replace(gram, tokens=128, columns=64, dim=64, split=2, warps=8, stages=4),
        replace(gram, tokens=128, columns=64, dim=64, split=4, warps=8, stages=3),
    ]


def measure(call: Call, configs: Configs, rounds: int = 5) -> float:
    """Median time of a call in seconds, after one run that compiles. Waits for the device."""
    times = []
    for turn in range(rounds + 1):
        _wait(call)
        start = time.perf_counter()
        head_sums(call, configs)
        _wait(call)
        if turn:
            times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def _wait(call: Call) -> None:
    if call.hidden.device.type == "cuda":
        torch.cuda.synchronize(call.hidden.device)


def _capturing(call: Call) -> bool:
    return call.hidden.device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def _key(call: Call) -> str:
    device = call.hidden.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    vocab, dim = call.weight.shape
    tokens, samples = call.hidden.shape[0], call.bounds.shape[0] - 1
    shape = "brief" if call.linear and is_brief(tokens, samples) else shape_class(tokens, samples)
    rounded = "" if call.storage_dtype is None else f"+{call.storage_dtype}"
    head = "mapped" if call.mapped else "plain"
    rule = rule_of(call.update) + rounded
    return f"{name}|triton {triton.__version__}|{call.hidden.dtype}|{vocab}x{dim}|{head}|{rule}|{shape}"


def cache_file() -> Path:
    """File of the stored choices."""
    folder = os.environ.get("DONOD_FAST_CACHE")
    return (Path(folder) if folder else Path.home() / ".cache" / "donod_fast") / "autotune.json"


def _read() -> dict[str, Any]:
    try:
        found = json.loads(cache_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _parsed(entry: Any) -> Configs | None:
    """Stored choice, or None if it does not belong to this version."""
    try:
        return Configs(**{name: make(**entry[name]) for name, make in _CLASSES.items()})
    except (KeyError, TypeError):
        return None


def _write(key: str, configs: Configs) -> None:
    path = cache_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(f".{os.getpid()}.tmp")
        scratch.write_text(json.dumps({**_read(), key: asdict(configs)}, indent=1), encoding="utf-8")
        scratch.replace(path)
    except OSError as error:
        _log.warning("the tuned tile shapes could not be saved in %s: %s", path, error)
