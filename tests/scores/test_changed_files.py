"""A file that has changed since it was scored is refused by name, or scored again without the others."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from score_runs import assert_same_bits, short_rows, write_lines
from scored_folders import PART_ROWS, committed, scored

from donod_fast.data.reading import open_corpus
from donod_fast.errors import CorpusError, SettingsMismatchError
from donod_fast.scores import revising
from donod_fast.scores.folder import ScoresFolder, locked
from donod_fast.scores.opening import known_files
from donod_fast.scoring.sample_scorer import SampleScorer
from donod_fast.scoring.scorer import Scorer

ROWS = short_rows(60, seed=3)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return [write_lines(tmp_path / f"{at}.jsonl", ROWS[20 * at : 20 * at + 20]) for at in range(3)]


def rescored(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that fills with the rows that are scored from now on."""
    rows: list[int] = []
    real = SampleScorer.score

    def counted(self: SampleScorer, samples: Any, *arguments: Any, **options: Any) -> Any:
        rows.extend(sample.row for sample in samples)
        return real(self, samples, *arguments, **options)

    monkeypatch.setattr(SampleScorer, "score", counted)
    return rows


def test_a_changed_file_is_refused_by_name_and_nothing_is_touched(
    scorer: Scorer, files: list[Path], tmp_path: Path
) -> None:
    scored(scorer, tmp_path / "out", files)
    before = committed(tmp_path / "out")
    write_lines(files[1], short_rows(20, seed=9))
    with pytest.raises(SettingsMismatchError, match=f"(?s){files[1]}.*20 rows.*--rescore-changed") as caught:
        scored(scorer, tmp_path / "out", files)
    assert str(files[0]) not in str(caught.value)
    assert committed(tmp_path / "out") == before


@pytest.mark.parametrize("new_rows", [20, 13, 30])
def test_on_demand_the_changed_file_alone_is_scored_anew(
    scorer: Scorer, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_rows: int
) -> None:
    out = tmp_path / "out"
    scored(scorer, out, files)
    write_lines(files[1], short_rows(new_rows, seed=9))
    rows = rescored(monkeypatch)
    folder = scored(scorer, out, files, rescore_changed=True)
    assert sorted(rows) == list(range(20, 20 + new_rows))
    assert_same_bits(folder.table(), scored(scorer, tmp_path / "anew", files).table())
    assert len(list(out.glob("part-*"))) == folder.parts and len(list(out.glob("plan*"))) == 1
    assert scored(scorer, out, files).parts == folder.parts  # and it is a folder like any other
    again = write_lines(files[0], short_rows(22, seed=10))
    assert_same_bits(
        scored(scorer, out, files, rescore_changed=True).table(),
        scored(scorer, tmp_path / "again", [again, *files[1:]]).table(),
    )


@pytest.mark.parametrize("moment", range(6))
def test_the_next_run_finishes_an_interrupted_revision(
    scorer: Scorer, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    out = tmp_path / "out"
    scored(scorer, out, files)
    write_lines(files[1], short_rows(17, seed=9))
    calls = iter(range(1000))

    class Killed(BaseException):
        pass

    with monkeypatch.context() as patch:
        for name in ("write", "remove"):
            real = getattr(revising.ScoresFolder.open(out).storage.__class__, name)

            def cut(self: Any, *arguments: Any, real: Any = real) -> Any:
                if next(calls) == moment * 3:
                    raise Killed
                return real(self, *arguments)

            patch.setattr(revising.ScoresFolder.open(out).storage.__class__, name, cut)
        with pytest.raises(Killed):
            scored(scorer, out, files, rescore_changed=True)
    rows = rescored(monkeypatch)
    folder = scored(scorer, out, files, rescore_changed=True)
    assert set(rows) <= set(range(20, 37)), "only rows of the changed file"
    assert_same_bits(folder.table(), scored(scorer, tmp_path / "anew", files).table())
    assert len(list(out.glob("part-*"))) == folder.parts and len(list(out.glob("plan*"))) == 1
    assert "before" not in json.loads((out / "manifest.json").read_text())


def test_a_resumed_run_does_not_read_files_that_are_as_they_were(
    scorer: Scorer, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    folder = scored(scorer, out, files)
    opened: list[str] = []
    real = Path.open

    def noted(path: Path, *arguments: Any, **options: Any) -> Any:
        opened.append(path.name)
        return real(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", noted)
        corpus = open_corpus([str(file) for file in files], known=known_files(out))
    assert not [name for name in opened if name.endswith(".jsonl")]
    assert corpus.describe() == folder.manifest["input"]
    os.utime(files[0], ns=(1, 1))  # touched, and the same: read, and found to be the same
    corpus = open_corpus([str(file) for file in files], known=known_files(out))
    assert corpus.fingerprint == folder.manifest["input"]["fingerprint"]


def test_a_file_that_vanishes_during_a_run_costs_only_its_own_rows(
    scorer: Scorer, files: list[Path], tmp_path: Path
) -> None:
    from donod_fast.engines.local import score_corpus

    out = tmp_path / "out"
    corpus = open_corpus([str(file) for file in files])
    hidden = files[1].rename(tmp_path / "away")
    with locked(out), pytest.raises(CorpusError, match=f"(?s){files[1]}.*10 of 15 parts are committed"):
        score_corpus(corpus, scorer, out, part_rows=PART_ROWS)
    assert [problem.part for problem in ScoresFolder.open(out).problems()] == [5]
    kept = committed(out)
    hidden.rename(files[1])
    folder = scored(scorer, out, files)
    assert {name: committed(out)[name] for name in kept} == kept
    assert_same_bits(folder.table(), scored(scorer, tmp_path / "anew", files).table())
