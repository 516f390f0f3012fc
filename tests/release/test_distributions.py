"""Wheel and source distribution: built offline from a copy of the tree, then compared with it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
from repository import PLACEHOLDER, ROOT, copy_tree, files, pyproject, text

import donod_fast

FOLDERS = {"donod_fast": "donod_fast", "kernels": "donod_fast/kernels", "recipes": "donod_fast/recipes"}
BUILD = "import sys, setuptools.build_meta as backend; getattr(backend, sys.argv[1])(sys.argv[2])"
RELEASED = f"donod_fast-{donod_fast.__version__}"


def build(kind: str, tree: Path, out: Path) -> None:
    """Build a distribution of ``tree`` as ``pip`` does, but with the setuptools of this environment."""
    done = subprocess.run(
        [sys.executable, "-c", BUILD, f"build_{kind}", str(out)], cwd=tree, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the source distribution, and the wheel that is built from it."""
    if importlib.util.find_spec("setuptools") is None or not setuptools_is_recent():
        pytest.skip("setuptools 77 or later is not installed")
    folder = tmp_path_factory.mktemp("distributions")
    copy_tree(folder / "tree")
    build("sdist", folder / "tree", folder)
    with tarfile.open(folder / f"{RELEASED}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    build("wheel", folder / RELEASED, folder)
    return folder


def setuptools_is_recent() -> bool:
    """Whether setuptools reads the license expression of pyproject.toml."""
    return int(importlib.metadata.version("setuptools").partition(".")[0]) >= 77


@pytest.fixture(scope="module")
def wheel(distributions: Path) -> dict[str, bytes]:
    """Files of the wheel."""
    with zipfile.ZipFile(distributions / f"{RELEASED}-py3-none-any.whl") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def metadata(wheel: dict[str, bytes]) -> Message:
    """Metadata of the wheel."""
    return Parser().parsestr(wheel[f"{RELEASED}.dist-info/METADATA"].decode())


def test_the_wheel_has_every_file_of_the_package(wheel: dict[str, bytes]) -> None:
    expected = {
        f"{home}/{path.relative_to(ROOT / folder)}": path.read_bytes()
        for folder, home in FOLDERS.items()
        for path in files(folder)
    }
    packaged = {name: data for name, data in wheel.items() if ".dist-info/" not in name}
    assert sorted(packaged) == sorted(expected)
    assert packaged == expected


def test_metadata_names_version_licence_and_command(wheel: dict[str, bytes], metadata: Message) -> None:
    assert metadata["Version"] == donod_fast.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Author"] == "the donod_fast contributors"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload() == text("README.md")
    assert all(PLACEHOLDER in url for url in metadata.get_all("Project-URL", []))
    assert b"donod-fast = donod_fast.cli:main" in wheel[f"{RELEASED}.dist-info/entry_points.txt"]
    assert wheel[f"{RELEASED}.dist-info/licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()


def test_an_extra_names_only_extras_that_exist(metadata: Message) -> None:
    extras = set(metadata.get_all("Provides-Extra", []))
    for requirement in metadata.get_all("Requires-Dist", []):
        if found := re.match(r"donod-fast\[([^]]+)]", requirement):
            assert set(found[1].split(",")) <= extras, requirement
    mentioned = {
        extra
        for path in files("donod_fast")
        if path.suffix == ".py"
        for names in re.findall(r"donod-fast\[([\w,-]+)]", path.read_text(encoding="utf-8"))
        for extra in names.split(",")
    }
    assert mentioned and mentioned <= extras


def test_the_source_distribution_can_be_tested(distributions: Path) -> None:
    unpacked = distributions / RELEASED
    for name in ("Makefile", "constraints.txt", "LICENSE", "CHANGELOG.md", "SECURITY.md", "CITATION.cff", ".ci/run"):
        assert (unpacked / name).read_bytes() == (ROOT / name).read_bytes()
    for folder in ("tests", "bench", "docker", "examples", "docs", ".github"):
        expected = {path.relative_to(ROOT) for path in files(folder)}
        packaged = {path.relative_to(unpacked) for path in (unpacked / folder).rglob("*") if path.is_file()}
        assert packaged == expected


def test_the_build_needs_a_setuptools_that_knows_its_metadata() -> None:
    assert pyproject()["build-system"]["requires"] == ["setuptools>=77"]
