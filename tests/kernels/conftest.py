"""Shared by the tests of ``donod_fast.kernels``. Builders to import stand in ``head_cases.py``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The heads are small: threads cost them more than they give, on a busy machine several times over."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
