"""Folders scored separately are merged into the folder of one run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from score_runs import assert_one_line_error, assert_same_bits, invoke, short_rows, tiny_scorer, write_lines
from scored_folders import PART_ROWS, part_path, scored
from tiny_models import save_tiny

from donod_fast.data.reading import open_corpus
from donod_fast.errors import SettingsMismatchError, StoreError
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scores.merging import merge
from donod_fast.scoring.scorer import Scorer
from donod_fast.scoring.settings import UpdateSettings

ROWS = short_rows(60, seed=3)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    sizes = (0, 17, 40, 42, 60)  # a small file among large ones
    return [write_lines(tmp_path / f"{at}.jsonl", ROWS[sizes[at] : sizes[at + 1]]) for at in range(4)]


def test_merged_folders_of_different_files_equal_one_folder_of_all(
    scorer: Scorer, files: list[Path], tmp_path: Path
) -> None:
    scored(scorer, tmp_path / "a", files[:2])
    scored(scorer, tmp_path / "b", files[2:])
    merged = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    corpus = open_corpus([str(file) for file in files])
    assert merged.manifest["input"] == corpus.describe()
    table = merged.table()
    assert table.column("row").to_pylist() == list(range(60))
    for part in range(merged.parts):
        start, stop = merged.part_range(part)
        alone = scorer.score_table([record.data or {} for record in corpus.records(start, stop)])
        columns = ["status", "don", "nod", "loss", "id"]
        assert_same_bits(table.slice(start, stop - start).select(columns), alone.select(columns))
    assert_same_bits(scored(scorer, tmp_path / "out", files).table(), table)  # a run finds nothing to do


def test_halves_of_a_corpus_from_two_machines_merge_into_a_whole(
    scorer: Scorer, files: list[Path], tmp_path: Path
) -> None:
    whole = scored(scorer, tmp_path / "a", files)
    scored(scorer, tmp_path / "b", files)
    for part in range(whole.parts):  # each has parts that the other lacks, and a few are in neither
        for name, keeps in (("a", part % 3 == 0), ("b", part % 3 == 1)):
            if not keeps:
                (tmp_path / name / whole.part_name(part)).unlink()
    merged = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert merged.missing_parts() == [part for part in range(whole.parts) if part % 3 == 2]
    assert_same_bits(scored(scorer, tmp_path / "out", files).table(), scored(scorer, tmp_path / "anew", files).table())


def test_a_file_that_two_folders_cut_differently_is_refused_by_name(
    scorer: Scorer, files: list[Path], tmp_path: Path
) -> None:
    scored(scorer, tmp_path / "a", files[:1])
    scored(scorer, tmp_path / "b", files[:2], part_rows=PART_ROWS + 1)
    with pytest.raises(StoreError, match=f"{files[0]}.*--part-rows"):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_folders_of_other_settings_are_refused_by_name(files: list[Path], tmp_path: Path) -> None:
    model = save_tiny("llama", tmp_path / "model")
    scored(tiny_scorer(model), tmp_path / "a", files[:1])
    scored(tiny_scorer(model, update=UpdateSettings("sgd")), tmp_path / "b", files[1:])
    with pytest.raises(SettingsMismatchError, match=r"update\.update: 'adamw' in .*, 'sgd' in "):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")


def test_the_command_merges_and_its_folder_is_selected_from(scorer: Scorer, files: list[Path], tmp_path: Path) -> None:
    scored(scorer, tmp_path / "a", files[:2])
    unfinished = scored(scorer, tmp_path / "b", files[2:])
    part_path(unfinished, 1).unlink()
    done = invoke("merge", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "out")
    assert done.code == 0 and "1 of 17 parts in none of them" in done.out, done
    assert_one_line_error(
        invoke("select", tmp_path / "out", "--keep", "5", "--out", tmp_path / "x.jsonl"), 5, "unfinished"
    )
    scored(scorer, tmp_path / "out", files)
    done = invoke("select", tmp_path / "out", "--keep", "5", "--out", tmp_path / "x.jsonl")
    assert done.code == 0, done
    chosen = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert len(chosen) == 5 and all(row in ROWS for row in chosen)
    assert_one_line_error(invoke("merge", tmp_path / "a", "--out", tmp_path / "y"), 2, "at least two")
    assert ScoresFolder.open(tmp_path / "out").manifest["merged_from"] == [str(tmp_path / "a"), str(tmp_path / "b")]


@pytest.mark.parametrize("marks", [("local:1:2", "local:1"), ("local:1", "local:1:2"), ("local:1:2", "local:1:3")])
def test_folders_with_fingerprints_of_two_releases_merge(
    scorer: Scorer, files: list[Path], tmp_path: Path, marks: tuple[str, str]
) -> None:
    whole = scored(scorer, tmp_path / "whole", files)
    for at, mark in enumerate(marks):
        manifest = {**whole.manifest, "model": {**whole.manifest["model"], "fingerprint": mark}}
        manifest.pop("plan")
        half = ScoresFolder.open_or_create(tmp_path / str(at), manifest, whole.plan)
        for part in range(whole.parts):
            table = whole.read_part(part, hashes=True)
            if part % 2 == at and table is not None:
                half.write_table(part, table)
    if marks[1].endswith("3"):
        with pytest.raises(SettingsMismatchError, match=r"model\.fingerprint"):
            merge([tmp_path / "0", tmp_path / "1"], tmp_path / "out")
        return
    merged = merge([tmp_path / "0", tmp_path / "1"], tmp_path / "out")
    assert merged.missing_parts() == []
    assert_same_bits(ScoresFolder.open(tmp_path / "out").table(), whole.table())
