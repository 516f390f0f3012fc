"""Whole files in the place of others: each is undamaged, but none belongs there; an error, or the same output."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from attack_counts import Attacks
from rotting import PART_ROWS, World
from tiny_models import tiny_model, tiny_tokenizer

from donod_fast.data.reading import open_corpus
from donod_fast.engines.local import score_corpus
from donod_fast.errors import DonodError
from donod_fast.scores.folder import ScoresFolder, locked
from donod_fast.scoring.scorer import Scorer

NAMES = ("lines.jsonl", "document.json", "plain.parquet", "sheet.csv")


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer(tiny_model("llama"), tiny_tokenizer())


def files_of(folder: Path) -> dict[str, bytes]:
    """The files of a folder that decide an output; what went wrong in a run decides none."""
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.suffix in (".json", ".parquet")
            and file.name != "problems.json"}  # fmt: skip


def other_states(world: World, scorer: Scorer) -> Iterator[dict[str, bytes]]:
    """Files of the folder at other times: of an input that was edited, and scored again."""
    content = world.input.read_bytes()
    world.input.write_bytes(content.replace(b"What", b"When"))
    try:
        with locked(world.half):
            score_corpus(open_corpus([str(world.input)]), scorer, world.half, part_rows=PART_ROWS)
        yield files_of(world.half)
    finally:
        world.input.write_bytes(content)


def swaps(ours: Mapping[str, bytes], others: Mapping[str, bytes]) -> Iterator[tuple[str, dict[str, bytes | None]]]:
    """Some files of one folder replaced by those of another, by others of their own, or by nothing."""
    names = sorted(ours.keys() & others.keys())
    for count in (1, 2, 3):
        for chosen in itertools.combinations(names, count):
            if len(chosen) < len(names):
                yield f"{', '.join(chosen)} of another folder", {name: others[name] for name in chosen}
    for one, two in itertools.permutations(names, 2):
        yield f"{one} in the place of {two}", {two: ours[one]}
    for name in names:
        content = ours[name]
        yield f"{name} empty", {name: b""}
        yield f"{name} twice", {name: content * 2}
        yield f"{name} with CRLF", {name: content.replace(b"\n", b"\r\n")}
        yield f"{name} and more", {name: content + b"\n{}\n"}
        yield f"{name} absent", {name: None}


def got_through(world: World, change: Mapping[str, bytes | None], reader: str, whole: bytes) -> str:
    """What a consumer of the changed folder does that it must not do; empty if nothing."""
    ours = {name: (world.out / name).read_bytes() for name in change}
    try:
        for name, content in change.items():
            (world.out / name).unlink()
            if content is not None:
                (world.out / name).write_bytes(content)
        return "" if world.readers()[reader][0]() == whole else "another output"
    except DonodError as error:
        return "" if str(error) else "an error without words"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        for name, content in ours.items():
            (world.out / name).write_bytes(content)
        world.restore()


@pytest.mark.attack
@pytest.mark.parametrize("name", NAMES)
def test_whole_files_that_belong_elsewhere_are_refused(
    name: str, scorer: Scorer, tmp_path: Path, attacks: Attacks
) -> None:
    for place in ("ours", "others"):
        (tmp_path / place).mkdir()
    world = World(tmp_path / "ours", scorer, name)
    others = World(tmp_path / "others", scorer, name, seed=5)
    ours = files_of(world.out)
    cases = [one for found in (files_of(others.out), *other_states(world, scorer)) for one in swaps(ours, found)]
    draw, through = random.Random(7), []
    number = attacks.number(40, 600)
    whole = {reader: read() for reader, (read, _) in world.readers().items()}
    for _ in range(number):
        what, change = draw.choice(cases)
        # `status` names the parts that are absent.
        absent = None in change.values()
        reader = draw.choice([one for one in whole if not (absent and one in ("status", "resume", "merge"))])
        found = got_through(world, change, reader, whole[reader])
        through += [f"{what}: {reader}: {found}"] if found else []
    attacks.count("folders", "whole files swapped", tried=number, got_through=len(through))
    assert not through, f"{len(through)} of {number}\n" + "\n".join(through[:20])
    assert ScoresFolder.open(world.out).parts > 1
