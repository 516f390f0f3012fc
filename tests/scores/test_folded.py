"""The file of folded summaries saves time and never changes a figure."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ranked_folders import drawn, folder_of

from donod_fast.errors import StoreError
from donod_fast.scores import folded
from donod_fast.scores.folded import SUMMARIES, KnownSummaries, write_summaries
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scores.monitoring import folder_status, status_of

PARTS = [3, 1, 7, 2] * 8
HOUR = 3600.0


def settled(folder: ScoresFolder) -> ScoresFolder:
    """The same folder, whose parts were written an hour ago."""
    for file in folder.path.glob("part-*"):
        then = file.stat().st_mtime - HOUR
        os.utime(file, (then, then))
    return folder


@pytest.fixture
def worth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folded, "WORTH", 4)


@pytest.fixture
def folder(tmp_path: Path, worth: None) -> ScoresFolder:
    return settled(folder_of(tmp_path / "scores", drawn(sum(PARTS), seed=1), PARTS))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that fills with the parts whose footers are read from now on."""
    found: list[int] = []
    real = ScoresFolder.summary

    def noted(self: ScoresFolder, part: int) -> Any:
        found.append(part)
        return real(self, part)

    monkeypatch.setattr(ScoresFolder, "summary", noted)
    return found


def figures(place: Path) -> str:
    """Everything that is said of a folder from its summaries, in a new process as far as memory is concerned."""
    status = asdict(folder_status(place, now=2e9))
    folder = ScoresFolder.open(place)
    try:
        don, nod = folder.constants()
        status["constants of TOPSIS"] = [float(getattr(c, name)) for c in (don, nod) for name in ("scale", "squares")]
        status["counts"] = [dict(folder.counts()), folder.sample_counts().as_json(), str(folder.signal_columns())]
    except StoreError as error:
        status["error"] = str(error)
    return json.dumps({**status, "step": str(status["step"])}, sort_keys=True, default=str)


def without_file(place: Path) -> str:
    """What :func:`figures` says without the file."""
    (place / SUMMARIES).unlink(missing_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folded, "WORTH", 10**9)
        return figures(place)


def test_a_second_look_reads_no_footer_and_says_the_same(folder: ScoresFolder, read: list[int]) -> None:
    wanted = without_file(folder.path)
    assert len(read) > 0 and not (folder.path / SUMMARIES).exists()
    assert write_summaries(ScoresFolder.open(folder.path)) and (folder.path / SUMMARIES).exists()
    read.clear()
    assert figures(folder.path) == wanted
    assert read == []


def test_status_writes_the_file_only_where_it_saves_much(folder: ScoresFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folded, "WORTH", len(PARTS) + 1)
    folder_status(folder.path)
    assert not (folder.path / SUMMARIES).exists()
    monkeypatch.setattr(folded, "WORTH", len(PARTS))
    folder_status(folder.path)
    written = (folder.path / SUMMARIES).stat().st_mtime_ns
    folder_status(folder.path)
    assert (folder.path / SUMMARIES).stat().st_mtime_ns == written


def test_a_part_that_was_just_written_is_not_folded_yet(tmp_path: Path, worth: None, read: list[int]) -> None:
    folder = folder_of(tmp_path / "scores", drawn(sum(PARTS), seed=1), PARTS)
    for file in folder.path.glob("part-*"):
        os.utime(file, (4e9, 4e9))  # a clock that is ahead
    assert not write_summaries(folder)
    read.clear()
    figures(folder.path)
    assert set(read) == set(range(len(PARTS)))


def flipped_part(folder: ScoresFolder, draw: random.Random) -> None:
    path = folder.path / folder.part_name(draw.randrange(folder.parts))
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content) - 400, len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def with_times_put_back(folder: ScoresFolder, draw: random.Random) -> None:
    path = folder.path / folder.part_name(draw.randrange(folder.parts))
    before = path.stat()
    path.write_bytes(path.read_bytes()[:-9] + b"x" * 9)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def removed_part(folder: ScoresFolder, draw: random.Random) -> None:
    (folder.path / folder.part_name(draw.randrange(folder.parts))).unlink()


def swapped_parts(folder: ScoresFolder, draw: random.Random) -> None:
    a, b = (folder.path / folder.part_name(part) for part in draw.sample(range(folder.parts), 2))
    a.rename(folder.path / "held")
    b.rename(a)
    (folder.path / "held").rename(b)


def other_scores(folder: ScoresFolder, draw: random.Random) -> None:
    part = draw.randrange(folder.parts)
    table = folder.read_part(part)
    assert table is not None
    at = table.column_names.index("don")
    folder.write_table(part, table.set_column(at, table.schema.field(at), [np.full(len(table), 7.0)]))
    os.utime(folder.path / folder.part_name(part), (1e9, 1e9))


def other_settings(folder: ScoresFolder, draw: random.Random) -> None:
    folder.write_manifest({**folder.manifest, "update": {**folder.manifest["update"], "lr": draw.random()}})


def another_folders_file(folder: ScoresFolder, draw: random.Random) -> None:
    other = folder_of(folder.path.parent / "other", drawn(sum(PARTS), seed=2), PARTS)
    for mine in folder.path.glob("part-*"):  # of the same size and times
        os.utime(other.path / mine.name, ns=(mine.stat().st_atime_ns, mine.stat().st_mtime_ns))
    assert write_summaries(ScoresFolder.open(other.path))
    shutil.copy2(other.path / SUMMARIES, folder.path / SUMMARIES)


CHANGES = [
    flipped_part,
    with_times_put_back,
    removed_part,
    swapped_parts,
    other_scores,
    other_settings,
    another_folders_file,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_whatever_changes_the_figures_are_those_of_the_footers(
    folder: ScoresFolder, change: Callable[[ScoresFolder, random.Random], None]
) -> None:
    assert write_summaries(folder)
    change(folder, random.Random(change.__name__))
    assert figures(folder.path) == without_file(folder.path)


@pytest.mark.parametrize("trials", [20, pytest.param(300, marks=pytest.mark.nightly)])
def test_a_damaged_file_is_ignored(folder: ScoresFolder, trials: int, caplog: pytest.LogCaptureFixture) -> None:
    from flips import damaged

    wanted = without_file(folder.path)
    assert write_summaries(folder)
    file = folder.path / SUMMARIES
    whole, draw, told = file.read_bytes(), random.Random(7), 0
    for _ in range(trials):
        what, content = damaged(whole, draw)
        file.write_bytes(content)
        caplog.clear()
        assert json.dumps(figures(folder.path)) == json.dumps(wanted), what
        told += "is damaged and is not used" in caplog.text
        assert content == whole or "is damaged and is not used" in caplog.text, what
        assert file.read_bytes() == whole, "status writes it again"
    assert told > trials // 2


def test_a_watch_reads_only_what_is_new(folder: ScoresFolder, read: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folded, "WORTH", 10**9)  # no file: what is known is in memory
    later = {part: folder.path / folder.part_name(part) for part in (3, 9, 30)}
    for path in later.values():
        path.rename(path.with_suffix(".away"))
    known = KnownSummaries()
    assert folder_status(folder.path, known=known).parts_done == len(PARTS) - 3
    read.clear()
    for count, path in enumerate(later.values()):
        path.with_suffix(".away").rename(path)
        assert folder_status(folder.path, known=known).parts_done == len(PARTS) - 2 + count
    assert read == list(later)
    folder_status(folder.path, known=known)
    assert read == list(later)


def test_a_folder_that_cannot_be_written_is_looked_at(folder: ScoresFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise StoreError("read-only")

    monkeypatch.setattr(type(folder.storage), "write", refused)
    assert not write_summaries(folder)
    assert folder_status(folder.path).finished


def test_two_writers_at_once_leave_a_whole_file(folder: ScoresFolder, read: list[int]) -> None:
    wanted = without_file(folder.path)
    first, second = KnownSummaries(), KnownSummaries()
    first.look(folder), second.look(folder)
    assert first.write(folder) and second.write(folder)
    read.clear()
    assert figures(folder.path) == wanted and read == []


@pytest.mark.nightly
def test_an_object_store_proves_parts_by_their_etags(folder: ScoresFolder, read: list[int]) -> None:
    from remote_files import s3_server

    from donod_fast.system.storage import open_storage

    with s3_server(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(folded, "_SETTLED_SECONDS", -HOUR)
        storage = open_storage("s3://bucket/folded")
        for file in folder.path.iterdir():
            if not file.name.startswith("."):
                storage.write(file.name, file.read_bytes())
        remote = ScoresFolder.open("s3://bucket/folded")
        wanted = status_of(remote).constants
        assert storage.exists(SUMMARIES)
        read.clear()
        assert status_of(ScoresFolder.open("s3://bucket/folded")).constants == wanted and read == []
        other_part = remote.read_part(5)
        assert other_part is not None
        remote.write_table(5, other_part.set_column(10, other_part.schema.field(10), other_part.column(11)))
        assert status_of(ScoresFolder.open("s3://bucket/folded")).parts_done == len(PARTS) and read == [5]
