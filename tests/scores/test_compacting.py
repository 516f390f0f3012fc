"""Joined parts hold what the small ones held, whatever interrupts the joining, and the folder can be used as before."""

from __future__ import annotations

import json
import random
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from remote_files import s3_server
from score_runs import assert_one_line_error, assert_same_bits, invoke, short_rows, write_lines
from scored_folders import PART_ROWS, committed, part_path, scored
from tiny_models import tiny_model, tiny_tokenizer

from donod_fast.criteria.registry import parse_signals
from donod_fast.errors import InputError, StoreError
from donod_fast.scores.compacting import compact
from donod_fast.scores.folder import ScoresFolder, locked
from donod_fast.scores.merging import merge
from donod_fast.scores.part_store import PARTS
from donod_fast.scores.token_losses import read_token_losses
from donod_fast.scoring.sample_scorer import SampleScorer
from donod_fast.scoring.scorer import Scorer

ROWS = short_rows(60, seed=3)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    sizes = (0, 21, 40, 43, 60)
    return [write_lines(tmp_path / f"{at}.jsonl", ROWS[sizes[at] : sizes[at + 1]]) for at in range(4)]


@pytest.fixture(scope="module")
def kept(scorer: Scorer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished folder of many small parts, with the losses of its tokens. Copy it."""
    home = tmp_path_factory.mktemp("kept")
    data = write_lines(home / "rows.jsonl", ROWS)
    return scored(scorer, home / "out", [data], token_losses=True).path


@pytest.fixture
def small(kept: Path, tmp_path: Path) -> ScoresFolder:
    """A copy of ``kept``."""
    return ScoresFolder.open(shutil.copytree(kept, tmp_path / "out"))


def content(folder: ScoresFolder) -> tuple[pa.Table, list[Any], dict[int, list[float]], Any]:
    """Everything that a folder says about its rows: scores, hashes, losses, and counts of what was used."""
    hashes = [one for part in range(folder.parts) for one in folder.record_hashes(part) or ()]
    losses = read_token_losses(folder, range(folder.rows)) if folder.losses.wanted else {}
    return folder.table(), hashes, losses, (folder.sample_counts(), folder.counts())


def assert_same_content(found: ScoresFolder, wanted: tuple[pa.Table, list[Any], dict[int, list[float]], Any]) -> None:
    table, *rest = content(found)
    assert_same_bits(table, wanted[0])
    assert rest == list(wanted[1:])


def rescored(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that fills with the rows that are scored from now on."""
    rows: list[int] = []
    real = SampleScorer.score

    def counted(self: SampleScorer, samples: Any, *arguments: Any, **options: Any) -> Any:
        rows.extend(sample.row for sample in samples)
        return real(self, samples, *arguments, **options)

    monkeypatch.setattr(SampleScorer, "score", counted)
    return rows


class Killed(BaseException):
    """The process is killed here."""


def until_killed(monkeypatch: pytest.MonkeyPatch, folder: ScoresFolder, step: int, work: Callable[[], Any]) -> bool:
    """Do a work that is cut off at the n-th change of a file; returns whether it was."""
    left = [step]
    with monkeypatch.context() as patch:
        for name in ("write", "remove"):
            real = getattr(type(folder.storage), name)

            def cut(self: Any, *arguments: Any, real: Any = real) -> Any:
                left[0] -= 1
                if left[0] < 0:
                    raise Killed
                return real(self, *arguments)

            patch.setattr(type(folder.storage), name, cut)
        try:
            work()
        except Killed:
            return True
    return False


@pytest.mark.parametrize("part_rows", [9, 1000])
def test_joined_parts_hold_what_the_small_ones_held(small: ScoresFolder, part_rows: int) -> None:
    before, parts = content(small), small.parts
    found = compact(small, part_rows)
    again = ScoresFolder.open(small.path)
    assert (found.before, found.after, found.part_rows) == (parts, again.parts, part_rows // PART_ROWS * PART_ROWS)
    assert again.parts == -(-60 // found.part_rows) and again.missing_parts() == []
    assert len(small.storage.names(PARTS)) == len(small.storage.names("losses-*")) == again.parts
    assert len(small.storage.names("plan*")) == 1 and "before" not in again.manifest
    assert_same_content(again, before)
    assert compact(again, part_rows).after == again.parts, "nothing is left to join"


def test_inputs_of_any_size_are_joined_as_a_run_would_cut_them(
    scorer: Scorer, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = scored(scorer, tmp_path / "out", files)
    before = content(small)
    compact(small, 16)
    wanted = scored(scorer, tmp_path / "large", files, part_rows=16).plan
    assert_same_content(small, before)
    rows = rescored(monkeypatch)
    if [shard.first_row for shard in small.plan] == [shard.first_row for shard in wanted]:
        assert list(small.plan) == list(wanted)
    folder = scored(scorer, tmp_path / "out", files, part_rows=16)
    assert not rows and folder.plan.rows == 60


@pytest.mark.parametrize("seed", range(6))
def test_drawn_folders_keep_their_rows(tmp_path: Path, seed: int) -> None:
    from ranked_folders import drawn, folder_of

    draw = random.Random(seed)
    sizes = [draw.randint(1, 9) for _ in range(draw.randint(2, 40))]
    cut = draw.randint(1, len(sizes) - 1)
    inputs = [("a", sum(sizes[:cut])), ("b", sum(sizes[cut:]))] if draw.random() < 0.5 else [("a", sum(sizes))]
    columns = drawn(sum(sizes), seed=seed)
    carried = {"lang": [draw.choice(["en", None, "de"]) for _ in range(sum(sizes))]}
    folder = folder_of(tmp_path / "out", columns, sizes, carried, inputs, {"x": {"x": columns["nod"]}})
    before = content(folder)
    absent = {part for part in range(folder.parts) if draw.random() < (0.2 if seed % 2 else 0)}
    for part in absent:
        part_path(folder, part).unlink()
    lost = {row for part in absent for row in range(*folder.part_range(part))}
    found = compact(folder, draw.choice([9, 20, 100]))
    folder = ScoresFolder.open(folder.path)
    assert found.absent == len(absent) and found.after == folder.parts
    missing = folder.missing_parts()
    assert {row for part in missing for row in range(*folder.part_range(part))} == lost, "no other row is lost"
    for part in set(range(folder.parts)) - set(missing):
        start, stop = folder.part_range(part)
        table = folder.read_part(part)
        assert table is not None
        assert_same_bits(table, before[0].slice(start, stop - start))
        assert stop - start <= max(found.part_rows, max(sizes))
    owners = [segment.input for shard in folder.plan for segment in shard.segments for _ in range(segment.rows)]
    assert owners == [at for at, (_, rows) in enumerate(inputs) for _ in range(rows)]


def test_whatever_step_is_cut_off_the_next_run_finishes_it(
    scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_lines(tmp_path / "rows.jsonl", ROWS[:16])
    small = scored(scorer, tmp_path / "out", [data], token_losses=True)
    before, points = content(small), 0
    for step in range(100):
        place = shutil.copytree(small.path, tmp_path / str(step))
        folder = ScoresFolder.open(place)
        was_cut = until_killed(monkeypatch, folder, step, lambda folder=folder: compact(folder, 8))
        opened = ScoresFolder.open(place)
        if "before" not in opened.manifest:  # as it was, or as it shall be
            assert_same_content(opened, before)
        compact(opened, 8)
        again = ScoresFolder.open(place)
        assert again.parts == 2 and len(again.storage.names(PARTS)) == len(again.storage.names("losses-*")) == 2
        assert len(again.storage.names("plan*")) == 1 and "before" not in again.manifest
        assert_same_content(again, before)
        shutil.rmtree(place)
        if not was_cut:
            break
        points = step + 1
    assert points > 12, "every write and every removal was a point"


@pytest.mark.parametrize("step", [3, 7, 9])
def test_a_run_of_score_after_a_cut_scores_no_row_again(
    scorer: Scorer, kept: Path, small: ScoresFolder, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    data, before = kept.parent / "rows.jsonl", content(small)
    assert until_killed(monkeypatch, small, step, lambda: compact(small, 24))
    rows = rescored(monkeypatch)
    part_rows = int(ScoresFolder.open(small.path).manifest["part_rows"])
    folder = scored(scorer, small.path, [data], token_losses=True, part_rows=part_rows)
    assert not rows
    assert_same_content(folder, before)


def test_criteria_are_added_to_joined_parts(
    scorer: Scorer, kept: Path, small: ScoresFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, before = kept.parent / "rows.jsonl", small.table()
    compact(small, 24)
    more = Scorer(tiny_model("llama"), tiny_tokenizer(), signals=parse_signals("perplexity"))
    folder = scored(more, small.path, [data], token_losses=True, part_rows=24)
    assert folder.missing_parts({entry.name: entry.fingerprint for entry in folder.signals}) == []
    assert_same_bits(folder.table().select(before.column_names), before)


def test_only_a_changed_file_is_scored_again_after_joining(
    scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [write_lines(tmp_path / f"{at}.jsonl", ROWS[20 * at : 20 * at + 20]) for at in range(3)]
    folder = scored(scorer, tmp_path / "out", files)
    compact(folder, 16)
    write_lines(files[1], short_rows(20, seed=9))
    rows = rescored(monkeypatch)
    again = scored(scorer, tmp_path / "out", files, rescore_changed=True, part_rows=16)
    assert sorted(rows) == list(range(20, 40)) and again.missing_parts() == []


def test_joined_folders_are_merged(scorer: Scorer, files: list[Path], tmp_path: Path) -> None:
    for name, some in (("a", files[:2]), ("b", files[2:])):
        compact(scored(scorer, tmp_path / name, some), 12)
    merged = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "merged")
    wanted = scored(scorer, tmp_path / "all", files).table()
    assert merged.missing_parts() == []
    assert_same_bits(merged.table(), wanted)


def test_a_damaged_part_is_named_and_nothing_is_changed(small: ScoresFolder) -> None:
    path = part_path(small, 4)
    whole = path.read_bytes()
    for at in (40, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        files, manifest = committed(small.path), (small.path / "manifest.json").read_bytes()
        with pytest.raises(StoreError, match=f"{path.name} is damaged"):
            compact(ScoresFolder.open(small.path), 24)
        now = committed(small.path)
        assert {name: now[name] for name in files} == files
        assert (small.path / "manifest.json").read_bytes() == manifest
    path.write_bytes(whole)
    assert compact(ScoresFolder.open(small.path), 24).after == 3


def test_a_folder_in_use_is_refused_and_a_dry_run_changes_nothing(small: ScoresFolder) -> None:
    with locked(small.path):
        assert_one_line_error(invoke("compact", small.path), 5, "is in use")
    files = committed(small.path)
    done = invoke("compact", small.path, "--part-rows", 24, "--dry-run")
    assert done.code == 0 and "15 parts would become 3, of up to 24 rows" in done.out, done
    assert committed(small.path) == files
    said = json.loads(invoke("compact", small.path, "--part-rows", 24, "--json").out)
    assert (said["parts_before"], said["parts"], said["part_rows"], said["dry_run"]) == (15, 3, 24, False)
    assert "none of which can be joined" in invoke("compact", small.path, "--part-rows", 24).out
    with pytest.raises(InputError, match=r"--part-rows 23: .* parts are joined, not cut"):
        compact(ScoresFolder.open(small.path), 23)
    assert_one_line_error(invoke("compact", small.path.parent), 5, "holds no manifest.json")


@pytest.mark.parametrize("store", ["memory", pytest.param("s3", marks=pytest.mark.nightly)])
def test_parts_are_joined_on_an_object_store(kept: Path, store: str) -> None:
    from contextlib import nullcontext

    from donod_fast.system.storage import open_storage

    with s3_server() if store == "s3" else nullcontext():
        url = f"s3://bucket/{uuid.uuid4().hex}" if store == "s3" else f"memory://{uuid.uuid4().hex}/out"
        storage = open_storage(url)
        for file in kept.iterdir():
            if not file.name.startswith("."):
                storage.write(file.name, file.read_bytes())
        folder = ScoresFolder.open(url)
        before = content(folder)
        with locked(url):
            compact(folder, 24)
        assert_same_content(ScoresFolder.open(url), before)
        assert len(storage.names(PARTS)) == 3
