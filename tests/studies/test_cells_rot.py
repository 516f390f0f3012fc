"""Damage to a study's cells, or to a training's folder, is an error, or changes no result."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
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


def swapped_sets(ours: Path, others: Path) -> list[dict[str, bytes | None]]:
    """Some files of one folder replaced by those of another, files added, and files removed."""
    names = [file.relative_to(ours).as_posix() for file in sorted(ours.rglob("*")) if file.is_file()]
    made: list[dict[str, bytes | None]] = []
    for count in range(1, len(names)):
        for chosen in itertools.combinations(names, count):
            made.append({name: (others / name).read_bytes() for name in chosen})
    added = ("adapter_config.json", "chat_template.jinja", "model.safetensors.index.json", "modeling.py", "sub/x.json")
    made += [{f"model/{name}": b"{}"} for name in added]
    made += [{name: None} for name in names if name.startswith("model/")]
    return made


def unnoticed(folder: Path, change: dict[str, bytes | None], read: Callable[[], bytes], whole: bytes) -> bool:
    """Whether a reader takes the change for what was written."""
    before = {name: (folder / name).read_bytes() if (folder / name).exists() else None for name in change}

    def put(files: dict[str, bytes | None]) -> None:
        for name, content in files.items():
            (folder / name).unlink(missing_ok=True)
            if content is not None:
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_bytes(content)

    put(change)
    try:
        found = read()
        unread = all(name.startswith("model/") and was is None for name, was in before.items())
        return found != whole or unread
    except StoreError:
        return False
    finally:
        put(before)


@pytest.mark.attack
def test_files_of_another_training_are_refused(tmp_path: Path, attacks: Attacks) -> None:
    ours, others = Training(tmp_path / "ours"), Training(tmp_path / "others")
    others.refill({"lr": 1e-3, "epochs": 2}, bytes(range(1, 201)), '{"layers": 3}', 0.5)
    read = ours.readers()["train"][0]
    whole, changes = read(), swapped_sets(ours.path, others.path)
    through = [set(change) for change in changes if unnoticed(ours.path, change, read, whole)]
    attacks.count("folders", "files of another training", tried=len(changes), got_through=len(through))
    assert not through and read() == whole


@pytest.mark.attack
def test_files_of_another_cell_are_refused(tmp_path: Path, attacks: Attacks) -> None:
    study = Study(tmp_path)
    folders = [CellStore(tmp_path).folder("train", one) for one in study.SETTINGS]
    read = study.readers()["known"][0]
    whole, changes = read(), swapped_sets(folders[0], folders[1])
    through = [set(change) for change in changes if unnoticed(folders[0], change, read, whole)]
    attacks.count("folders", "files of another cell", tried=len(changes), got_through=len(through))
    assert not through and read() == whole


def test_a_model_that_was_removed_as_a_whole_is_left_to_its_reader(tmp_path: Path) -> None:
    study = Study(tmp_path)
    cell = CellStore(tmp_path).known("train", study.SETTINGS[0])
    assert cell is not None
    shutil.rmtree(cell.folder / "model")
    cell.check_files("model")
