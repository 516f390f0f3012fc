"""Manifests and plans that somebody edited, checksum included: an error that names the field, never an internal one."""

from __future__ import annotations

import copy
import json
import math
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from attack_counts import Attacks
from rotting import World
from scored_folders import without_checksum
from tiny_models import tiny_model, tiny_tokenizer

from donod_fast.data.shards import ShardPlan
from donod_fast.errors import DonodError, StoreError
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scoring.scorer import Scorer
from donod_fast.system.checked_json import with_checksum
from donod_fast.system.sealed_parquet import sealed_bytes

WRONG: tuple[Any, ...] = (
    None, True, -1, 0, 1, 10**30, 1e308, math.nan, math.inf, 0.5, "", "x", "../../x", "1", "\x1b[2J", [], [1], [None],
    {}, {"a": 1}, {"rows": -1}, "x" * 70_000,
)  # fmt: skip
FIELDS = ("shard", "run", "input", "start", "rows", "skip", "offset", "end", "line")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"), Scorer(tiny_model("llama"), tiny_tokenizer()), "lines.jsonl")


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all entries of a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def tampered(manifest: dict[str, Any], draw: random.Random) -> tuple[str, bytes]:
    """A manifest with a change that knows of the checksum, and what was changed."""
    edited = copy.deepcopy(manifest)
    path = draw.choice(list(places(edited)))
    within = edited
    for key in path[:-1]:
        within = within[key]
    how = draw.choice(("other", "other", "other", "gone", "twice", "deep"))
    what = f"{'.'.join(map(str, path))} {how}"
    if how == "gone":
        del within[path[-1]]
    elif how == "other":
        within[path[-1]] = draw.choice(WRONG)
    text = json.dumps(with_checksum(edited) if draw.random() < 0.7 else {**edited, "version": draw.choice((2, 3))})
    if how == "twice":
        text = text.replace('"input"', f'"{path[0]}": 1, "input"', 1)
    if how == "deep":
        depth = draw.choice((50, 3000, 200_000))
        text = text[:-1] + ', "deep": ' + "[" * depth + "]" * depth + "}"
    return what, text.encode()


def tried(world: World, file: Path, content: bytes, name: str) -> str:
    """What got through when a reader meets this content; empty if nothing did."""
    before = file.read_bytes()
    file.write_bytes(content)
    try:
        world.readers()[name][0]()
    except DonodError as error:
        return "" if str(error) else "an error without words"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        file.write_bytes(before)
        world.restore()
    return ""


@pytest.mark.attack
def test_a_tampered_manifest_gives_no_internal_error(world: World, attacks: Attacks) -> None:
    draw, through = random.Random(3), []
    manifest = json.loads(world.kept["manifest.json"])
    number = attacks.number(40, 1200)
    for _ in range(number):
        what, content = tampered(manifest, draw)
        name = draw.choices(list(world.readers()), [weight for _, weight in world.readers().values()])[0]
        found = tried(world, world.out / "manifest.json", content, name)
        through += [f"{what}: {name}: {found}"] if found else []
    attacks.count("folders", "tampered manifest", tried=number, got_through=len(through))
    assert not through, "\n".join(through[:20])


@pytest.mark.attack
def test_a_tampered_plan_gives_no_internal_error(world: World, attacks: Attacks) -> None:
    draw, through = random.Random(4), []
    number = attacks.number(40, 1200)
    for _ in range(number):
        what, content = tampered_plan(ScoresFolder.open(world.out).plan, draw)
        name = draw.choices(list(world.readers()), [weight for _, weight in world.readers().values()])[0]
        found = tried(world, world.out / "plan.parquet", content, name)
        through += [f"{what}: {name}: {found}"] if found else []
    attacks.count("folders", "tampered plan", tried=number, got_through=len(through))
    assert not through, "\n".join(through[:20])


def tampered_plan(plan: ShardPlan, draw: random.Random) -> tuple[str, bytes]:
    """A sealed plan with other numbers, columns or types."""
    segments = np.concatenate(list(plan.lines()))
    columns = {name: segments[:, at].copy() for at, name in enumerate(FIELDS)}
    field = draw.choice(FIELDS)
    how = draw.choice(("number", "number", "number", "column", "type", "fewer", "order"))
    arrays: dict[str, Any] = dict(columns)
    if how == "number":
        at = draw.randrange(len(segments))
        columns[field][at] = draw.choice((-(2**63), -2, -1, 0, 1, 7, 10**6, 2**40, 2**62, 2**63 - 1))
    elif how == "column":
        del arrays[field]
    elif how == "type":
        other: Any = draw.choice((pa.string(), pa.float64(), pa.int8(), pa.bool_(), pa.null()))
        arrays[field] = pa.array([None] * len(segments), other)
    elif how == "fewer":
        kept = draw.randrange(len(segments))
        arrays = {name: column[:kept] for name, column in columns.items()}
    else:
        arrays = {name: column[::-1].copy() for name, column in columns.items()}
    return f"{field} {how}", sealed_bytes(pa.table(arrays))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("input.rows", "40"),
        ("input.rows", -1),
        ("input.inputs.0.kind", "exe"),
        ("input.inputs.0.rows", 39),
        ("input.inputs.0.digest", None),
        ("input.inputs.0.size", 1.5),
        ("part_rows", 0),
        ("model.weight_norm", math.nan),
        ("model.weight_norm", "57"),
        ("update.storage_dtype", 3),
        ("update.reduction", "median"),
        ("masks.preference", "best"),
        ("plan.file", "../plan.parquet"),
        ("plan.parts", None),
        ("carry", ["a", 1]),
        ("signals", [{"name": "x"}]),
        ("generation", 10**30),
        ("version", "3"),
    ],
)
def test_a_wrong_entry_is_named(world: World, field: str, value: Any) -> None:
    manifest = json.loads(world.kept["manifest.json"])
    *path, last = [int(key) if key.isdigit() else key for key in field.split(".")]
    within: Any = manifest
    for key in path:
        within = within[key]
    within[last] = value
    file = world.out / "manifest.json"
    file.write_text(json.dumps(with_checksum(manifest)))
    named = field.replace(".inputs.0.rows", ".rows")
    try:
        with pytest.raises(StoreError, match=rf"manifest\.json is damaged \({named}") as caught:
            ScoresFolder.open(world.out)
        assert "--overwrite" in str(caught.value)
    finally:
        file.write_bytes(world.kept["manifest.json"])


def test_a_direction_or_kind_of_column_that_is_unknown_is_named(world: World) -> None:
    entry = {"name": "x", "settings": {}, "fingerprint": "f", "columns": [{"name": "c", "text": "t"}]}
    for field, value in (("better", "up"), ("kind", "tensor"), ("size", 0)):
        column = {"name": "c", "text": "t", field: value}
        manifest = {**json.loads(world.kept["manifest.json"]), "signals": [{**entry, "columns": [column]}]}
        (world.out / "manifest.json").write_text(json.dumps(with_checksum(manifest)))
        try:
            with pytest.raises(StoreError, match=rf"signals\.0\.columns\.0\.{field}"):
                ScoresFolder.open(world.out)
        finally:
            (world.out / "manifest.json").write_bytes(world.kept["manifest.json"])


def make_folder(file: Path) -> None:
    file.mkdir()


def make_loop(file: Path) -> None:
    file.symlink_to(file)


def make_pipe(file: Path) -> None:
    os.mkfifo(file)


def make_empty(file: Path) -> None:
    file.touch()


def make_nulls(file: Path) -> None:
    file.write_bytes(bytes(4096))


def make_digits(file: Path) -> None:
    file.write_text('{"version": ' + "9" * 10_000 + "}")


@pytest.mark.parametrize("make", [make_folder, make_loop, make_pipe, make_empty, make_nulls, make_digits])
@pytest.mark.parametrize("name", ["manifest.json", "plan.parquet", "part-000000.parquet", "problems.json"])
def test_something_else_in_place_of_a_file_is_refused(world: World, name: str, make: Callable[[Path], None]) -> None:
    file = world.out / name
    file.unlink()
    make(file)
    try:
        with pytest.raises(StoreError):
            world.status() if name == "problems.json" else world.readers()["select"][0]()
    finally:
        file.rmdir() if file.is_dir() and not file.is_symlink() else file.unlink()
        world.restore()


def test_a_checksum_cannot_be_switched_off_by_one_change(world: World) -> None:
    text = world.kept["manifest.json"].decode()
    file = world.out / "manifest.json"
    changed = text.replace('"weight_norm": ', '"weight_norm": 1', 1)
    for wrong in (
        changed,
        text.replace('"sha256": "', '"sha257": "') if text.count('"sha256"') == 1 else text[::-1],
        text.replace('"version": 3', '"version": 2'),
    ):
        file.write_text(wrong)
        try:
            with pytest.raises(StoreError, match=r"damaged"):
                ScoresFolder.open(world.out)
        finally:
            file.write_bytes(world.kept["manifest.json"])
    without_checksum(world.out)
    try:
        assert ScoresFolder.open(world.out).manifest["version"] == 2
    finally:
        file.write_bytes(world.kept["manifest.json"])
