"""Damage to a study's cells, or to a training's folder, is an error, or changes no result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from attack_counts import Attacks
from flips import attack_files
from rotting_results import Study, Training

from donod_fast.errors import StoreError
from donod_fast.studies.core.cells import RESULT, CellStore
from donod_fast.system.checked_json import with_checksum
from donod_fast.training.folder import TrainingFolder


@pytest.mark.attack
def test_damage_to_a_cell_is_noticed(tmp_path: Path, attacks: Attacks) -> None:
    study = Study(tmp_path)
    found = attack_files(study.files, study.readers(), attacks.number(60, 1200), 6)
    attacks.count("folders", "study cells", tried=found.tried, got_through=len(found.through))
    assert found.errors and not found.through, "\n".join(found.through[:20])


@pytest.mark.attack
def test_damage_to_a_training_folder_is_noticed(tmp_path: Path, attacks: Attacks) -> None:
    training = Training(tmp_path)
    found = attack_files(training.files, training.readers(), attacks.number(60, 800), 7)
    attacks.count("folders", "training folder", tried=found.tried, got_through=len(found.through))
    assert found.errors and not found.through, "\n".join(found.through[:20])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seconds": "3"}, "seconds"),
        ({"seconds": -1}, "seconds"),
        ({"result": None}, "result"),
        ({"settings": []}, "settings"),
        ({"kind": "score"}, "kind, settings"),
        ({"settings": {"seed": 9}}, "kind, settings"),
        ({"files": {"a": 1}}, "files"),
    ],
)
def test_a_tampered_cell_is_refused_by_its_field(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    store = CellStore(tmp_path)
    path = store.result("train", {"seed": 1}, lambda _: {"loss": 1.0}).folder / RESULT
    path.write_text(json.dumps(with_checksum({**json.loads(path.read_text()), **change})))
    for read in (lambda: store.known("train", {"seed": 1}), lambda: list(store.all())):
        with pytest.raises(StoreError, match=rf"result\.json is damaged \({told}"):
            read()


def test_a_checksum_of_a_file_outside_is_not_followed(tmp_path: Path) -> None:
    store = CellStore(tmp_path / "study")
    path = store.result("train", {"seed": 1}, lambda _: {}).folder / RESULT
    path.write_text(json.dumps(with_checksum({**json.loads(path.read_text()), "files": {"../../../x": "1"}})))
    cell = store.known("train", {"seed": 1})
    assert cell is not None
    with pytest.raises(StoreError, match="outside"):
        cell.check_files("")


def test_a_cell_of_an_earlier_release_is_known(tmp_path: Path) -> None:
    store = CellStore(tmp_path)
    path = store.result("train", {"seed": 1}, lambda _: {"loss": 1.0}).folder / RESULT
    old = json.loads(path.read_text())
    for key in ("sha256", "version", "files"):
        del old[key]
    path.write_text(json.dumps(old))
    cell = store.known("train", {"seed": 1})
    assert cell is not None and cell.cached and cell.result == {"loss": 1.0}


def test_a_training_of_an_earlier_release_stays_finished(tmp_path: Path) -> None:
    training = Training(tmp_path)
    for name in ("manifest.json", "result.json"):
        old = json.loads((tmp_path / name).read_text())
        old.pop("sha256")
        old.pop("files", None)
        if "version" in old:
            old["version"] = 1
        (tmp_path / name).write_text(json.dumps(old))
    folder = TrainingFolder(tmp_path)
    folder.begin(training.MANIFEST)
    assert folder.result() == {"steps": 2, "loss": 0.25, "seconds": 3.5, "skipped": {}}


def test_a_damaged_mark_makes_an_earlier_checkpoint_the_newest(tmp_path: Path) -> None:
    folder = TrainingFolder(tmp_path)
    for step in (5, 12):
        checkpoint = folder.checkpoints / f"checkpoint-{step}"
        checkpoint.mkdir(parents=True)
        folder.mark(checkpoint, step, 1.5 * step)
    assert folder.newest_checkpoint()[1:] == (12, 18.0)
    mark = folder.checkpoints / "checkpoint-12" / "donod_complete.json"
    text = mark.read_text()
    for wrong in (text.replace("12", "13", 1), text.replace("sha256", "sha257"), "[" * 100_000, ""):
        mark.write_text(wrong)
        assert folder.newest_checkpoint()[1:] == (5, 7.5)
