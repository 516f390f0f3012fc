"""Hashes of large files are remembered while the file is the same, and never longer."""

from __future__ import annotations

import hashlib
import json
import os
import random
import stat
from pathlib import Path

import pytest

from donod_fast.system import file_hashes
from donod_fast.system.file_hashes import LARGE, cache_file, sha256_of


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(file_hashes, "_SETTLED_NS", -1)  # a file of a test is always new


def written(path: Path, seed: int = 0) -> Path:
    path.write_bytes(random.Random(seed).randbytes(LARGE + 10))
    return path


def right(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_large_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path / "w")
    assert sha256_of(file) == right(file)
    assert stat.S_IMODE(cache_file().stat().st_mode) == 0o600
    assert stat.S_IMODE(cache_file().parent.stat().st_mode) == 0o700
    wanted = right(file)
    monkeypatch.setattr(file_hashes.hashlib, "file_digest", None)
    assert sha256_of(file) == wanted
    (tmp_path / "link").symlink_to(file)
    assert sha256_of(tmp_path / "link") == wanted


def test_a_change_of_equal_size_and_time_is_seen(tmp_path: Path) -> None:
    file = written(tmp_path / "w")
    for at in range(5):
        before = file.stat()
        assert sha256_of(file) == right(file)
        content = bytearray(file.read_bytes())
        content[at * 1000] ^= 1
        file.write_bytes(content)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert sha256_of(file) == right(file)
        other = written(tmp_path / "other", at + 1)
        os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
        other.replace(file)
        assert sha256_of(file) == right(file)


def test_a_file_written_just_now_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_hashes, "_SETTLED_NS", 10**18)
    assert sha256_of(written(tmp_path / "w")) and not cache_file().exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"x": 1}', b"[" * 100_000])
def test_a_damaged_cache_is_no_error(tmp_path: Path, content: bytes) -> None:
    file = written(tmp_path / "w")
    cache_file().parent.mkdir(parents=True)
    cache_file().write_bytes(content)
    assert sha256_of(file) == right(file) == sha256_of(file)


def test_a_wrong_entry_of_the_cache_is_not_believed(tmp_path: Path) -> None:
    file = written(tmp_path / "w")
    for entry in ("null", "[]", "[1]", '[1, 2, 3, 4, 5, "no"]', '"x"', "{}"):
        cache_file().parent.mkdir(parents=True, exist_ok=True)
        cache_file().write_text(f'{{"{file}": {entry}}}')
        assert sha256_of(file) == right(file)


def test_a_flipped_digit_in_the_cache_is_not_believed(tmp_path: Path) -> None:
    file = written(tmp_path / "w")
    assert sha256_of(file) == right(file)
    content = cache_file().read_bytes()
    for at in range(0, len(content), 3):
        cache_file().write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        assert sha256_of(file) == right(file)


def test_an_entry_that_is_no_hash_is_not_believed(tmp_path: Path) -> None:
    file = written(tmp_path / "w")
    facts = file.stat()
    entry = [facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino, facts.st_dev, "no hash"]
    for one in (entry, [*entry, ""], [*entry, None]):
        cache_file().parent.mkdir(parents=True, exist_ok=True)
        cache_file().write_text(json.dumps({str(file.resolve()): one}))
        assert sha256_of(file) == right(file)


def test_a_pipe_in_the_place_of_the_cache_is_not_waited_for(tmp_path: Path) -> None:
    file = written(tmp_path / "w")
    cache_file().parent.mkdir(parents=True)
    os.mkfifo(cache_file())
    assert sha256_of(file) == right(file)


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path / "w")
    (tmp_path / "taken").write_text("")
    for place in (tmp_path / "taken", Path("/proc/nowhere")):
        monkeypatch.setenv("XDG_CACHE_HOME", str(place))
        assert sha256_of(file) == right(file)
