"""Shared by the tests of ranking past memory: the tiny models of ``tests/scoring`` are theirs too."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

pytest.importorskip("duckdb", reason="the extra `large` is not installed")
sys.path.append(str(Path(__file__).parent.parent / "scoring"))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The models and columns are tiny: threads cost them more than they give."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
