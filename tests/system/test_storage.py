"""A scores folder on a disk, in memory and on a real S3 server: the same parts, one holder, no partial file."""

from __future__ import annotations

import os
import random
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from remote_files import put, s3_server
from score_runs import assert_one_line_error, assert_same_bits, command, invoke, short_rows, write_lines
from scored_folders import scored
from tiny_models import save_tiny, tiny_model, tiny_tokenizer

from donod_fast.errors import StoreError
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scoring.scorer import Scorer
from donod_fast.system import lock_objects, retrying
from donod_fast.system.locking import LOCK, is_locked, locked
from donod_fast.system.storage import open_storage

ROWS = short_rows(30, seed=3)


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer(tiny_model("llama"), tiny_tokenizer())


class FlakyStore(MemoryFileSystem):  # type: ignore[misc]
    """``flakystore://``: memory in which every call may fail, even after it has done its work."""

    protocol = "flakystore"
    store: dict[str, Any] = {}  # noqa: RUF012
    pseudo_dirs: list[str] = [""]  # noqa: RUF012
    chance = random.Random(5)
    failures = 0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.replace("flakystore://", "memory://", 1)))

    def _fail(self) -> None:
        if self.chance.random() < 0.15:
            type(self).failures += 1
            raise self.chance.choice([ConnectionResetError("reset"), TimeoutError("late"), OSError("503 slow down")])

    def cat_file(self, path: str, *arguments: Any, **options: Any) -> bytes:
        self._fail()
        return bytes(super().cat_file(path, *arguments, **options))

    def pipe_file(self, path: str, value: bytes, **options: Any) -> None:
        self._fail()
        super().pipe_file(path, value, **options)
        if options.get("mode") != "create":
            self._fail()

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        self._fail()
        return dict(super().info(path, **options))

    def ls(self, path: str, *arguments: Any, **options: Any) -> Any:
        self._fail()
        return super().ls(path, *arguments, **options)

    def rm_file(self, path: str) -> None:
        self._fail()
        super().rm_file(path)


fsspec.register_implementation("flakystore", FlakyStore, clobber=True)


@pytest.fixture(scope="module")
def s3() -> Iterator[None]:
    with s3_server():
        yield


@pytest.fixture(params=["disk", "memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """A new place for a folder."""
    if request.param == "disk":
        return tmp_path / "folder"
    if request.param == "s3":
        request.getfixturevalue("s3")
        return f"s3://bucket/{uuid.uuid4().hex}"
    return f"memory://{uuid.uuid4().hex}/folder"


def test_files_are_written_listed_read_and_removed(place: Path | str) -> None:
    storage = open_storage(place)
    storage.make()
    assert storage.names("*") == [] and not storage.exists("a.txt")
    with pytest.raises(FileNotFoundError):
        storage.read("a.txt")
    storage.write("a.txt", b"one")
    storage.write("b.txt", b"two" * 1000)
    storage.write("a.txt", b"other")
    assert storage.read("a.txt") == b"other" and storage.exists("a.txt")
    with storage.open("b.txt") as file:
        file.seek(-3, 2)
        assert file.read() == b"two"
    assert storage.names("*.txt") == ["a.txt", "b.txt"] and storage.names("b*") == ["b.txt"]
    assert set(storage.facts("*.txt")) == {"a.txt", "b.txt"} and storage.modified("a.txt") > 1e9
    assert not storage.create("a.txt", b"mine") and storage.create("c.txt", b"mine")
    assert storage.read("a.txt") == b"other" and storage.read("c.txt") == b"mine"
    storage.remove("a.txt")
    storage.remove("a.txt")
    assert storage.names("*") == ["b.txt", "c.txt"]


def test_a_file_url_is_a_folder_on_the_disk(tmp_path: Path) -> None:
    storage = open_storage(f"file://{tmp_path}/a%20b")
    assert storage.local == tmp_path / "a b" and storage.url("x") == f"{tmp_path}/a b/x"


def test_one_holds_a_folder_at_a_time(place: Path | str) -> None:
    assert not is_locked(place)
    with locked(place):
        assert is_locked(place)
        with pytest.raises(StoreError, match="in use"), locked(place):
            pass
        assert is_locked(place)
    assert not is_locked(place)
    with pytest.raises(KeyError), locked(place):
        raise KeyError
    with locked(place):
        pass


def test_a_lock_is_taken_over_only_if_its_holder_is_dead(s3: None, monkeypatch: pytest.MonkeyPatch) -> None:
    place = f"s3://bucket/{uuid.uuid4().hex}"
    open_storage(place).write(LOCK, b'{"token": "x", "host": "elsewhere", "process": 7}')
    with pytest.raises(StoreError, match="process 7 on elsewhere"), locked(place):
        pass
    with monkeypatch.context() as patch:
        patch.setattr(lock_objects, "DEAD_SECONDS", -1.0)
        with locked(place):
            pass
    assert not open_storage(place).exists(LOCK)


def test_scores_are_the_same_wherever_files_and_folder_lie(scorer: Scorer, place: Path | str, tmp_path: Path) -> None:
    data = write_lines(tmp_path / "rows.jsonl", ROWS)
    source = str(data) if isinstance(place, Path) else put(f"{place}-data/rows.jsonl", data.read_bytes())
    folder = scored(scorer, place, [source])
    wanted = scored(scorer, tmp_path / "wanted", [data])
    assert_same_bits(folder.table().drop_columns("detail"), wanted.table().drop_columns("detail"))
    for part in (1, 4):
        folder.storage.remove(folder.part_name(part))
    content = bytearray(folder.storage.read(folder.part_name(2)))
    content[100] ^= 4  # in the first column's page
    folder.storage.write(folder.part_name(2), bytes(content))
    assert folder.missing_parts() == [1, 2, 4]
    assert_same_bits(scored(scorer, place, [source]).table(), folder.table())
    assert [len(name) for name in folder.storage.names("*")] and folder.storage.names("*.tmp") == []


def test_an_object_store_whose_errors_come_and_go_costs_no_row(
    scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrying, "FIRST_WAIT", 0.0)
    monkeypatch.setattr(retrying, "ATTEMPTS", 12)
    data = write_lines(tmp_path / "rows.jsonl", ROWS)
    folder = scored(scorer, "flakystore://bucket/out", [data])
    assert FlakyStore.failures > 10
    assert_same_bits(folder.table(), scored(scorer, tmp_path / "wanted", [data]).table())


def test_the_commands_take_urls(s3: None, tmp_path: Path) -> None:
    model = save_tiny("llama", tmp_path / "model")
    place = f"s3://bucket/{uuid.uuid4().hex}"
    data = [
        put(
            f"{place}-data/{at}.jsonl", write_lines(tmp_path / f"{at}.jsonl", ROWS[10 * at : 10 * at + 10]).read_bytes()
        )
        for at in range(3)
    ]
    arguments = ["score", f"{place}-data/*.jsonl", "--model", model, "--device", "cpu", "--out", place]
    done = invoke(*arguments, "--part-rows", 4)
    assert done.code == 0 and f"30 rows in {place}" in done.out, done
    assert "finished" in invoke("status", place).out
    subset = tmp_path / "subset.jsonl"
    done = invoke("select", place, "--keep", "6", "--out", subset)
    assert done.code == 0, done
    lines = b"".join((tmp_path / f"{at}.jsonl").read_bytes() for at in range(3)).splitlines()
    assert len(subset.read_bytes().splitlines()) == 6 and set(subset.read_bytes().splitlines()) <= set(lines)
    put(data[1], write_lines(tmp_path / "1.jsonl", short_rows(11, seed=8)).read_bytes())
    assert_one_line_error(invoke(*arguments, "--part-rows", 4), 5, data[1], "--rescore-changed")
    done = invoke(*arguments, "--rescore-changed")  # part rows as in the folder
    assert done.code == 0 and "11 rows in " in done.out and "20 already done" in done.out, done
    assert ScoresFolder.open(place).rows == 31
    done = invoke("score", "-", "--model", model, "--out", place, stdin=b"{}")
    assert_one_line_error(done, 2, "standard input")


def test_two_commands_at_once_in_one_folder_of_an_object_store(s3: None, tmp_path: Path) -> None:
    model = save_tiny("llama", tmp_path / "model")
    place = f"s3://bucket/{uuid.uuid4().hex}"
    data = write_lines(tmp_path / "rows.jsonl", ROWS)
    with locked(place):
        server = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        done = command("score", data, "--model", model, "--device", "cpu", "--out", place, **server)
    assert_one_line_error(done, 5, f"{place} is in use")
