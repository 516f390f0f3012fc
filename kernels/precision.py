"""Compute float32 products in float32, whatever precision the caller has set."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

_lock = threading.Lock()
_calls = 0
_restore = ExitStack()


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Disable TF32, bfloat16 products on a CPU and autocast within the block, and restore the settings afterwards.

    The precision of products is a setting of the process. If several threads are inside, the first one changes it and
    the last one restores it. A thread that changes it in between changes it for all of them.
    """
    global _calls
    with _lock:
        if _calls == 0:
            _set_full()
        _calls += 1
    try:
        with torch.autocast(device_type=device.type, enabled=False):
            yield
    finally:
        with _lock:
            _calls -= 1
            if _calls == 0:
                _restore.close()


def _set_full() -> None:
    backends: Any = torch.backends  # type stubs lack the newer switches
    # Before torch 2.9 mkldnn has no switch of its own (2.6 not even the name); the old setting covers it there.
    products: list[Any] = [getattr(getattr(backends, name, None), "matmul", None) for name in ("cuda", "mkldnn")]
    if all(hasattr(product, "fp32_precision") for product in products):
        for product in products:
            _restore.callback(setattr, product, "fp32_precision", product.fp32_precision)
            product.fp32_precision = "ieee"
    else:
        _restore.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
        torch.set_float32_matmul_precision("highest")
