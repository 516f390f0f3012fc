"""A folder on an object store that fails, lags and refuses: the same parts in the end, or a clear error."""

from __future__ import annotations

import random
import re
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from faulty_store import LASTING, FaultyStore, Weather, faulty_store
from remote_files import put
from score_runs import assert_one_line_error, invoke, short_rows, write_lines
from scored_folders import scored
from tiny_models import tiny_model, tiny_tokenizer

from donod_fast.errors import CorpusError, StoreError
from donod_fast.scores.copying import copy_folder
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scores.monitoring import folder_status
from donod_fast.scoring.scorer import Scorer
from donod_fast.system import lock_objects, storage
from donod_fast.system.locking import is_locked, locked
from donod_fast.system.storage import open_storage

ROWS = 24
REMEDY = re.compile(r"run the same command again|run again|check the credentials|same command scores the rest")
SEEDS = [pytest.param(seed, marks=[] if seed < 5 else [pytest.mark.nightly]) for seed in range(150)]


@pytest.fixture(scope="module")
def store() -> Iterator[FaultyStore]:
    with faulty_store() as running:
        yield running


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer(tiny_model("llama"), tiny_tokenizer())


@pytest.fixture(scope="module")
def data(store: FaultyStore, tmp_path_factory: pytest.TempPathFactory) -> str:
    file = write_lines(tmp_path_factory.mktemp("data") / "rows.jsonl", short_rows(ROWS, seed=3))
    return put("s3://bucket/data/rows.jsonl", file.read_bytes())


@pytest.fixture(scope="module")
def wanted(store: FaultyStore, scorer: Scorer, data: str) -> dict[str, bytes]:
    return parts(scored(scorer, "s3://bucket/wanted", [data], token_losses=True))


@pytest.fixture(autouse=True)
def dead_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits two minutes for the lock of a run that could not remove it."""
    monkeypatch.setattr(lock_objects, "DEAD_SECONDS", 0.0)


@pytest.fixture
def place(store: FaultyStore) -> Iterator[str]:
    yield f"s3://bucket/{uuid.uuid4().hex}"
    store.begin(None)


def parts(folder: ScoresFolder) -> dict[str, bytes]:
    """All files of parts and losses that the folder has, asked for by name."""
    names = [name for part in range(folder.parts) for name in (folder.part_name(part), folder.losses.name(part))]
    return {name: folder.storage.read(name) for name in sorted(folder.storage.existing(names))}


def committed(store: FaultyStore, place: str) -> dict[str, bytes]:
    """What the server has, whatever the weather."""
    with store.fair():
        return parts(ScoresFolder.open(place)) if open_storage(place).exists("manifest.json") else {}


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_a_store_does_the_parts_are_the_same_or_it_is_said(
    seed: int, store: FaultyStore, scorer: Scorer, data: str, wanted: dict[str, bytes], place: str, tmp_path: Path
) -> None:
    store.begin(Weather.of_seed(seed))
    for _ in range(40):
        try:
            scored(scorer, place, [data], token_losses=True)
            break
        except (StoreError, CorpusError) as error:
            assert place in str(error) or data in str(error)
            assert REMEDY.search(str(error)), str(error)
        there = committed(store, place)
        assert there.items() <= wanted.items()  # no wrong row at any time
        try:
            status = folder_status(place)
        except StoreError as error:
            assert place in str(error)
        else:
            assert not status.damaged
            assert status.rows_done <= status.rows
            assert status.finished == (len([name for name in there if name.startswith("part-")]) == len(wanted) // 2)
        store.renew()
    else:
        pytest.fail("it never ended")
    store.renew()
    assert committed(store, place) == wanted
    lost = {key for one in store.asked if one.fault and (key := one.key)}
    prefix = place.removeprefix("s3://bucket/")
    again = {key for key, count in store.puts().items() if count > 1 and key.startswith(f"{prefix}/part-")}
    assert again <= lost  # a part is written twice only if an answer about it went wrong
    done = invoke("select", place, "--keep", "6", "--out", tmp_path / "subset.jsonl")
    if done.code:
        assert_one_line_error(done, done.code, "s3://bucket/")
    else:
        assert len((tmp_path / "subset.jsonl").read_bytes().splitlines()) == 6


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("lag", [1, 1000])
def test_a_lagging_list_neither_finishes_nor_repeats_a_part(
    lag: int, store: FaultyStore, scorer: Scorer, data: str, wanted: dict[str, bytes], place: str
) -> None:
    class Always:
        def randint(self, least: int, most: int) -> int:
            return most

        def random(self) -> float:
            return 1.0

    store.begin(Weather(Always(), lag=lag, page=2))  # type: ignore[arg-type]
    folder = scored(scorer, place, [data], token_losses=True)
    assert parts(folder) == wanted
    once = {key.rpartition("/")[2]: count for key, count in store.puts().items()}
    assert {name: once[name] for name in wanted} == dict.fromkeys(wanted, 1)
    store.asked.clear()
    assert folder_status(place).finished and folder.missing_parts() == [] and len(folder.part_files()) == folder.parts
    assert parts(copy_folder(folder, f"{place}-copy")) == wanted
    scored(scorer, place, [data], token_losses=True)
    assert not [one for one in store.asked if one.method == "PUT" and f"{place[12:]}/part-" in one.key]
    folder.storage.remove(folder.part_name(2))  # which is still listed
    assert not folder_status(place).finished and folder.missing_parts() == [2]
    with pytest.raises(StoreError, match="5 of 6 parts committed"):
        folder.part_files()
    scored(scorer, place, [data], token_losses=True, overwrite=True)
    assert parts(ScoresFolder.open(place)) == wanted


@pytest.mark.parametrize("fault", LASTING)
def test_a_store_that_refuses_is_named_with_the_remedy_and_loses_nothing(
    fault: str, store: FaultyStore, scorer: Scorer, data: str, wanted: dict[str, bytes], place: str
) -> None:
    folder = scored(scorer, place, [data], token_losses=True)
    remedy = "set the clock" if fault == "skewed" else "renew"
    for call in (
        folder.missing_parts,
        folder.counts,
        folder.part_files,
        lambda: folder_status(place),
        lambda: folder.note_problem(0, "odd"),
        lambda: ScoresFolder.open(place),
        lambda: ScoresFolder(folder.storage, folder.manifest).plan,
        lambda: folder.is_committed(0),
        lambda: folder.storage.write("x", b""),
        lambda: folder.storage.create("x", b""),
    ):
        store.begin(Weather(random.Random(0), lasting=fault))
        with pytest.raises(StoreError, match=f"{place}.*(renew|set the clock).*run the same command again") as raised:
            call()  # type: ignore[no-untyped-call]
        assert remedy in str(raised.value) or "HEAD" in {one.method for one in store.asked}  # which has no body
        assert "--overwrite" not in str(raised.value)
        assert not [one for one in store.asked if one.method == "DELETE"]
    store.begin(None)
    assert parts(folder) == wanted


def test_every_object_is_written_by_one_put(store: FaultyStore, place: str) -> None:
    folder = open_storage(place)
    store.begin(None)
    folder.write("large.parquet", bytes(101 << 20))  # s3fs would cut it into parts
    written = [one for one in store.asked if one.method in ("PUT", "POST")]
    assert [(one.method, one.query) for one in written] == [("PUT", frozenset())]


def test_a_lock_whose_answer_was_lost_is_held(store: FaultyStore, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_objects, "DEAD_SECONDS", 120.0)

    class FirstPut(Weather):
        def fault(self, method: str) -> str:
            lost, self.chance = method == "PUT" and self.chance == 0.0, self.chance + (method == "PUT")
            return "answer lost" if lost else ""

    store.begin(FirstPut(random.Random(0)))
    with locked(place):
        assert [one.fault for one in store.asked if one.method == "PUT"] == ["answer lost", ""]
        with pytest.raises(StoreError, match="in use"), locked(place):
            pass
    assert not is_locked(place)


@pytest.mark.parametrize("days", [-1, 1])
def test_the_clock_of_a_machine_neither_frees_nor_keeps_a_lock(
    days: int, store: FaultyStore, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_objects, "DEAD_SECONDS", 120.0)
    with locked(place):
        shifted = SimpleNamespace(time=lambda: time.time() + days * 86_400)  # of this process; the server has its own
        monkeypatch.setattr(storage, "time", shifted)
        assert is_locked(place)
        with pytest.raises(StoreError, match="in use"), locked(place):
            pass
    assert not is_locked(place)


def test_of_two_that_begin_a_folder_at_once_one_is_refused(
    store: FaultyStore, scorer: Scorer, data: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = scored(scorer, place, [data])
    other = {**folder.manifest, "part_rows": 7, "update": {**folder.manifest["update"], "lr": 1.0}}
    late = open_storage(place)
    monkeypatch.setattr(late, "exists", lambda name: False)  # it looked before the other one wrote
    monkeypatch.setattr(late, "names", lambda pattern: [])
    with pytest.raises(StoreError, match=r"update\.lr"):
        ScoresFolder.open_or_create(late, other)
    assert ScoresFolder.open(place).manifest == folder.manifest
