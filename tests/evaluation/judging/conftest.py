"""The sandbox for judged programs: the best one that works on this machine."""

from __future__ import annotations

import sys

import pytest

from donod_fast.errors import SandboxError
from donod_fast.evaluation.sandbox import Isolation, Limits, Sandbox, find_isolation


@pytest.fixture(scope="session")
def sandbox() -> Sandbox:
    """For what must be true of any sandbox; without isolation where none can be had."""
    if sys.platform != "linux":
        pytest.skip("programs run on Linux")
    return Sandbox(find_isolation(unsafe=True), Limits(memory=512 << 20))


@pytest.fixture(scope="session")
def walls() -> Sandbox:
    """For programs that reach for what only isolation keeps from them."""
    try:
        isolation = find_isolation()
    except SandboxError as error:
        pytest.skip(f"no isolation on this machine: {str(error)[:200]}")
    assert isolation is not Isolation.NONE
    return Sandbox(isolation, Limits(memory=512 << 20))
