"""Before anything is imported: without a CUDA device the Triton kernels run under Triton's interpreter."""

from __future__ import annotations

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out the long trials, unless asked for."""
    if os.environ.get("DONOD_FAST_NIGHTLY") == "1":
        return
    for item in items:
        if item.get_closest_marker("nightly") is not None:
            item.add_marker(pytest.mark.skip(reason="many trials of one fault: DONOD_FAST_NIGHTLY=1 runs it"))
