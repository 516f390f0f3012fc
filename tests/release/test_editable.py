"""An editable install: modules from the repository, types for type checkers, and nothing else on the path."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest
from repository import copy_tree

import donod_fast

BUILD = "import sys, setuptools.build_meta as backend; backend.build_editable(sys.argv[1])"


class Install(NamedTuple):
    """An editable install in an environment that has nothing else."""

    tree: Path
    wheel: Path
    python: Path

    def run(self, program: str) -> list[str]:
        """The lines that a program prints in the environment."""
        done = subprocess.run([self.python, "-c", program], capture_output=True, text=True, check=False, cwd="/")
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()


@pytest.fixture(scope="module")
def install(tmp_path_factory: pytest.TempPathFactory) -> Install:
    pytest.importorskip("setuptools", minversion="77")
    folder = tmp_path_factory.mktemp("editable")
    tree = folder / "tree"
    copy_tree(tree)
    done = subprocess.run([sys.executable, "-c", BUILD, folder], cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", symlinks=True)
    (packages,) = (folder / "venv").glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    return Install(tree, wheel, folder / "venv" / "bin" / "python")


FIND = """
import importlib, importlib.util, sys
for _ in range(2):
    for name in sys.argv[1:] or {names!r}:
        spec = importlib.util.find_spec(name)
        print(None if spec is None else spec.origin)
    importlib.invalidate_caches()
    for name in [name for name in sys.modules if name.startswith("donod_fast")]:
        del sys.modules[name]
"""


def test_modules_come_from_the_repository_and_nothing_else_is_importable(install: Install) -> None:
    tree = install.tree
    (tree / "donod_fast" / "later.py").write_text("", encoding="utf-8")
    found = {
        "donod_fast": tree / "donod_fast" / "__init__.py",
        "donod_fast.errors": tree / "donod_fast" / "errors.py",
        "donod_fast.later": tree / "donod_fast" / "later.py",
        "donod_fast.data.types": tree / "donod_fast" / "data" / "types.py",
        "donod_fast.kernels": tree / "kernels" / "__init__.py",
        "donod_fast.recipes": tree / "recipes" / "__init__.py",
        **dict.fromkeys(("kernels", "recipes", "tests", "bench", "docs", "setup"), None),
    }
    assert install.run(FIND.format(names=[*found])) == [str(one) for one in found.values()] * 2


def test_the_wheel_lists_every_file_with_its_hash(install: Install) -> None:
    with zipfile.ZipFile(install.wheel) as archive:
        (record,) = (name for name in archive.namelist() if name.endswith("/RECORD"))
        listed = {line.split(",")[0]: line.split(",")[1] for line in archive.read(record).decode().splitlines()}
        assert sorted(listed) == sorted(archive.namelist())
        for name in listed.keys() - {record}:
            digest = base64.urlsafe_b64encode(hashlib.sha256(archive.read(name)).digest()).rstrip(b"=").decode()
            assert listed[name] == f"sha256={digest}", name


SNIPPET = """
import donod_fast
from donod_fast.data.later import Later
from donod_fast.kernels import SGD
from donod_fast.kernels.later import LATER
from donod_fast.training.recipe import Recipe

reveal_type(Later.number)
reveal_type(LATER)
reveal_type(SGD())
reveal_type(Recipe)
reveal_type(donod_fast.Scorer("model").score_records)
reveal_type(donod_fast.Scorer.from_pretrained)
reveal_type(donod_fast.don_nod)
"""


def test_type_checkers_find_the_types_also_of_files_that_come_later(install: Install, tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    tree = install.tree
    (tree / "donod_fast" / "data" / "later.py").write_text("class Later:\n    number: int = 1\n", encoding="utf-8")
    (tree / "kernels" / "later.py").write_text("LATER: str = ''\n", encoding="utf-8")
    names = [name for name in donod_fast.__all__ if name != "Scorer"]
    program = SNIPPET + "".join(f"reveal_type(donod_fast.{name})\n" for name in names)
    (tmp_path / "snippet.py").write_text(program, encoding="utf-8")
    # The environment has no other package, so that mypy reads ours alone; names of others are Any.
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--ignore-missing-imports", "--no-incremental", "--cache-dir",
         "/dev/null", "--python-executable", install.python, "snippet.py"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    shown = re.findall(r'Revealed type is "(.*)"$', done.stdout, re.MULTILINE)
    assert len(shown) == 7 + len(names)
    assert shown[:3] == ["int", "str", "donod_fast.kernels.updates.SGD"] or "builtins.int" in shown[0]
    assert "Any" not in shown, "a name without a type"
    scored, loaded, called = shown[4:7]
    assert "donod_fast.data.types.Record]" in scored and "donod_fast.scores.rows.ScoreRow]" in scored
    assert re.search(r"-> donod_fast\.\w+\.scorer\.Scorer$", loaded)
    assert "'lr'?: " in loaded and "donod_fast.kernels.updates.AdamW" in loaded
    assert "donod_fast.kernels.updates.AdamW" in called and called.endswith("donod_fast.kernels.scores.DonNod]")
