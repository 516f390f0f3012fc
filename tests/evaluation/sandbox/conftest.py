"""Every kind of isolation that works on this machine, in turn."""

from __future__ import annotations

import shutil
import sys

import pytest

from donod_fast.errors import SandboxError
from donod_fast.evaluation.sandbox import Isolation, Limits, Sandbox, find_isolation

_WHY_NOT: dict[Isolation, str] = {}


def why_not(isolation: Isolation) -> str:
    """Why a kind cannot be had here. Only that: one that can be had and has holes is not skipped, but fails."""
    if isolation not in _WHY_NOT:
        try:
            if isolation == Isolation.BUBBLEWRAP and not shutil.which("bwrap"):
                raise SandboxError("bwrap is not installed")
            Sandbox(isolation).run({}, ["{python}", "-c", "pass"])
            _WHY_NOT[isolation] = ""
        except SandboxError as error:
            _WHY_NOT[isolation] = str(error)
    return _WHY_NOT[isolation]


@pytest.fixture(params=[Isolation.BUBBLEWRAP, Isolation.NAMESPACES], ids=str)
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    """A sandbox of each kind that can be had on this machine."""
    if why_not(request.param):
        pytest.skip(f"{request.param}: {why_not(request.param)}")
    return Sandbox(request.param, Limits(seconds=20))


@pytest.fixture
def best_sandbox() -> Sandbox:
    """The sandbox that is used here, for slow tests of what does not hang on its kind."""
    try:
        return Sandbox(find_isolation(), Limits(seconds=20))
    except SandboxError as error:
        pytest.skip(str(error))


@pytest.fixture
def unsafe_sandbox() -> Sandbox:
    """A sandbox without walls."""
    if sys.platform == "win32":
        pytest.skip("needs a POSIX system")
    return Sandbox(Isolation.NONE, Limits(seconds=20))
