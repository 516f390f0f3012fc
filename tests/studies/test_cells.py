"""Cells: computed once, cached, found again; after a kill; and with two processes on one cell."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from donod_fast.errors import StoreError
from donod_fast.studies.core.cells import RESULT, Cell, CellStore

_PROGRAM = """
import os, sys, time
from pathlib import Path
from donod_fast.studies.core.cells import CellStore
root, how = Path(sys.argv[1]), sys.argv[2]
def work(folder):
    with open(root / "log", "a") as file:
        file.write("began\\n")
    if how == "die":
        (folder / "half").write_text("half")
        os._exit(9)
    if how == "slow":
        (root / "working").touch()
        time.sleep(0.5)
    return {"before": (folder / "half").exists(), "pid": os.getpid()}
cell = CellStore(root).result("train", {"seed": 1}, work)
print(cell.result["pid"], cell.cached)
"""


def start(root: Path, how: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-P", "-c", _PROGRAM, str(root), how], stdout=subprocess.PIPE, text=True)


def refuse(folder: Path) -> Mapping[str, Any]:
    raise AssertionError("the cell is known")


def test_work_is_done_once_and_later_readers_get_its_result(tmp_path: Path) -> None:
    seen: list[Cell] = []
    store = CellStore(tmp_path, seen.append)
    first = store.result("train", {"rows": (1, 2), "seed": 0}, lambda _: {"loss": (1.5, 2), "at": {3: None}})
    again = CellStore(tmp_path, seen.append).result("train", {"seed": 0, "rows": [1, 2]}, refuse)
    assert first.result == again.result == {"loss": [1.5, 2], "at": {"3": None}}
    assert (first.cached, again.cached) == (False, True)
    assert (first.seconds, first.folder) == (again.seconds, again.folder)
    assert seen == [first, again]


def test_other_settings_and_other_kinds_are_other_cells(tmp_path: Path) -> None:
    store = CellStore(tmp_path)
    for number, (kind, settings) in enumerate(
        [("a", {"x": 1}), ("a", {"x": 1.5}), ("b", {"x": 1}), ("a", {"x": None})]
    ):
        assert store.result(kind, settings, lambda _, number=number: {"number": number}).result["number"] == number
    assert len(list(store.all())) == 4


def test_work_that_raises_leaves_no_result_and_is_done_again(tmp_path: Path) -> None:
    store = CellStore(tmp_path)

    def fail(folder: Path) -> Mapping[str, Any]:
        (folder / "half").touch()
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        store.result("a", {}, fail)
    assert store.known("a", {}) is None
    assert store.result("a", {}, lambda folder: {"half": (folder / "half").exists()}).result == {"half": True}


def test_a_killed_process_leaves_what_it_began_and_no_result(tmp_path: Path) -> None:
    killed = start(tmp_path, "die")
    assert killed.wait() == 9
    store = CellStore(tmp_path)
    assert store.known("train", {"seed": 1}) is None
    assert list(store.all()) == []
    cell = store.result("train", {"seed": 1}, lambda folder: {"before": (folder / "half").read_text()})
    assert cell.result == {"before": "half"}, "the lock went with the process, and its files are there"


def test_two_processes_at_one_cell_do_its_work_once(tmp_path: Path) -> None:
    both = [start(tmp_path, "slow"), start(tmp_path, "slow")]
    answers = [process.communicate()[0].split() for process in both]
    assert (tmp_path / "log").read_text() == "began\n"
    assert answers[0][0] == answers[1][0], "both have the result of the one that worked"
    assert sorted(cached for _, cached in answers) == ["False", "True"]


def test_a_damaged_result_is_named(tmp_path: Path) -> None:
    store = CellStore(tmp_path)
    path = store.result("a", {}, lambda _: {}).folder / RESULT
    for text in ("{", "[]", "null", json.dumps({"kind": "a"})):
        path.write_text(text)
        with pytest.raises(StoreError, match=r"result.json is damaged \(.*\); delete its folder"):
            store.known("a", {})
        with pytest.raises(StoreError, match=r"result.json is damaged \(.*\); delete its folder"):
            list(store.all())


def test_what_is_no_json_value_is_refused(tmp_path: Path) -> None:
    store = CellStore(tmp_path)
    with pytest.raises(StoreError, match="must be JSON values"):
        store.result("a", {"path": tmp_path}, lambda _: {})
    with pytest.raises(StoreError, match="must be JSON values"):
        store.result("a", {}, lambda _: {"path": tmp_path})
    assert store.known("a", {}) is None


def test_a_forgotten_cell_is_computed_anew(tmp_path: Path) -> None:
    store = CellStore(tmp_path)
    folder = store.result("a", {}, lambda folder: {"left": (folder / "model").write_text("x")}).folder
    store.forget("a", {})
    assert not folder.exists()
    assert store.result("a", {}, lambda _: {"new": True}).result == {"new": True}


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot write"):
        CellStore(tmp_path / "file")
