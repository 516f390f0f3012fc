"""Patterns find each file once, in whatever way links lead to it."""

from __future__ import annotations

import glob
import os
import random
from pathlib import Path

import pytest

from donod_fast.system.patterns import matching_files
from donod_fast.system.places import local_path, path_of


def tree(place: Path, seed: int, *, links: bool) -> None:
    """Folders of some files and hidden ones, with links to folders anywhere, loops among them."""
    draw = random.Random(seed)
    folders = [place]
    for number in range(8):
        folder = draw.choice(folders) / draw.choice([f"d{number}", f".h{number}", f"[{number}]", f"e {number}"])
        folder.mkdir()
        folders.append(folder)
    for number in range(12):
        name = draw.choice(["a{}.jsonl", "b{}.txt", ".c{}.jsonl", "[d]{}.jsonl"]).format(number)
        (draw.choice(folders) / name).write_bytes(b"x")
    for number in range(6 if links else 0):
        (draw.choice(folders) / f"l{number}").symlink_to(draw.choice([*folders, Path("nowhere"), Path()]))


PATTERNS = (
    "**/*.jsonl",
    "*/**/*.jsonl",
    "**",
    "**/d*/*.jsonl",
    "**/**/a*",
    "d*/**",
    "*.jsonl",
    "*/*",
    "**/.c*",
    "**/l*/*",
)


@pytest.mark.parametrize("seed", range(20))
def test_without_links_it_finds_what_glob_finds(seed: int, tmp_path: Path) -> None:
    tree(tmp_path, seed, links=False)
    for pattern in PATTERNS:
        found = matching_files(f"{tmp_path}/{pattern}")
        wanted = {one for one in glob.glob(f"{tmp_path}/{pattern}", recursive=True) if Path(one).is_file()}  # noqa: PTH207
        assert found == sorted(wanted), pattern


@pytest.mark.parametrize("seed", range(20))
def test_with_links_it_finds_each_file_once(seed: int, tmp_path: Path) -> None:
    tree(tmp_path, seed, links=True)
    for pattern in PATTERNS:
        found = matching_files(f"{tmp_path}/{pattern}")
        if "**" in pattern:
            assert len({os.path.realpath(one) for one in found}) == len(found), pattern
        plain = {one for one in glob.glob(f"{tmp_path}/{pattern}") if Path(one).is_file()}  # noqa: PTH207
        assert {os.path.realpath(one) for one in plain} <= {os.path.realpath(one) for one in found}
    everything = {os.path.realpath(file) for file in tmp_path.rglob("a*.jsonl") if "/.h" not in str(file)}
    assert everything <= {os.path.realpath(one) for one in matching_files(f"{tmp_path}/**/a*.jsonl")}


def test_loops_that_multiply_paths_end(tmp_path: Path) -> None:
    for number in range(12):  # 12 links in one folder: 12 ** 40 paths before the kernel refuses one
        (tmp_path / f"loop{number}").symlink_to(tmp_path)
    (tmp_path / "rows.jsonl").write_bytes(b"x")
    assert matching_files(f"{tmp_path}/**/*.jsonl") == [f"{tmp_path}/rows.jsonl"]


def test_relative_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "rows.jsonl").write_bytes(b"x")
    assert matching_files("**/*.jsonl") == matching_files("a/**/*.jsonl") == ["a/rows.jsonl"]


def test_a_tilde_is_a_home_only_where_it_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.chdir(tmp_path)
    assert path_of("~/x") == Path("/home/me/x") and path_of("~") == Path("/home/me")
    assert local_path("~nobody-has-this-name/x") == Path("~nobody-has-this-name/x")
    assert local_path("~x.jsonl") == Path("~x.jsonl")
    (tmp_path / "~").write_bytes(b"x")
    assert path_of("~") == Path("~")
