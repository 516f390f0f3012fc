"""The lock files agree with pyproject.toml and constraints.txt, and every entry has hashes."""

from __future__ import annotations

import re
import sys

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from repository import ROOT, pyproject, text

SETS = {"dev": "dev", "demo": "plot", "docs": "docs", "lowest": "dev"}
"""Lock files of this package, with the extra that each installs."""

PYTHONS = ("3.11", "3.12", "3.13")


def entries(name: str) -> list[str]:
    """The entries of a lock file, and of the packages of its set that have no wheel, each with its hashes."""
    files = [one for one in (name, f"{name}-sources") if (ROOT / f"requirements/{one}.txt").exists()]
    return [entry for one in files for entry in re.split(r"\n(?=[A-Za-z0-9])", text(f"requirements/{one}.txt"))[1:]]


def versions(name: str, python: str) -> dict[str, Version]:
    """Locked versions for one Python on Linux."""
    machine = {"python_version": python, "python_full_version": f"{python}.9", "sys_platform": "linux",
               "platform_system": "Linux", "platform_machine": "x86_64"}  # fmt: skip
    found: dict[str, Version] = {}
    for entry in entries(name):
        wanted = Requirement(entry.partition("\\")[0])
        if wanted.marker is None or wanted.marker.evaluate(machine):
            assert canonicalize_name(wanted.name) not in found, f"{wanted.name} is locked twice for Python {python}"
            (exact,) = wanted.specifier
            found[canonicalize_name(wanted.name)] = Version(exact.version)
    return found


def wanted_by(extra: str) -> list[Requirement]:
    """Requirements of this package with an extra, and with the extras that it includes."""
    project = pyproject()["project"]
    found, waiting = list(map(Requirement, project["dependencies"])), [extra]
    while waiting:
        for line in project["optional-dependencies"][waiting.pop()]:
            one = Requirement(line)
            if one.name == "donod-fast":
                waiting += one.extras
            else:
                found.append(one)
    return found


@pytest.mark.parametrize("path", sorted(ROOT.glob("requirements/*.txt")), ids=lambda path: path.stem)
def test_every_locked_package_has_a_version_and_hashes(path) -> None:
    for entry in entries(path.stem):
        assert re.match(r"[\w.-]+==\S+", entry), entry
        assert "--hash=sha256:" in entry, entry


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("python", PYTHONS)
def test_a_lock_satisfies_what_pyproject_asks_for(name: str, python: str) -> None:
    if name == "lowest" and python != "3.11":
        pytest.skip("the lower bounds are locked for Python 3.11 only")
    locked = versions(name, python)
    for one in [*wanted_by(SETS[name]), Requirement("setuptools")]:
        if one.marker is None or one.marker.evaluate({"python_version": python, "platform_system": "Linux"}):
            there = locked.get(canonicalize_name(one.name))
            assert there is not None, f"requirements/{name}.txt lacks {one.name}: run `make locks`"
            assert one.specifier.contains(there), f"requirements/{name}.txt has {one.name} {there}: run `make locks`"


@pytest.mark.parametrize("name", ["dev", "demo", "docs"])
def test_a_lock_obeys_the_constraints(name: str) -> None:
    locked = versions(name, "3.11")
    pins = [Requirement(line) for line in text("constraints.txt").splitlines() if line and not line.startswith("#")]
    for one in pins:
        there = locked.get(canonicalize_name(one.name))
        assert there is None or one.specifier.contains(there), f"{one.name} {there}: run `make locks`"


def test_the_sets_that_share_an_environment_have_equal_versions() -> None:
    for python in PYTHONS:
        dev = versions("dev", python)
        for name in ("demo", "docs", "cuda", "release"):
            for package, there in versions(name, python).items():
                # PyPI's torch requires an older Triton than the one that the suite compiles with.
                assert dev.get(package, there) == there or package == "triton", f"{package} in {name} and dev"


@pytest.mark.skipif(sys.platform != "linux", reason="the lock's markers are compared with this Linux installation")
def test_what_torch_needs_for_cuda_is_locked() -> None:
    cuda = versions("cuda", "3.11")
    assert {"nvidia-cudnn-cu13", "nvidia-nccl-cu13"} <= set(cuda)
    assert not any(name.startswith(("nvidia-", "cuda-")) for name in versions("dev", "3.11"))
