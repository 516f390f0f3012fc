"""``Scorer.score``: in memory, into a folder, resumed, and the same parts as the command line writes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from score_runs import assert_same_bits, invoke, short_rows, write_lines
from scored_folders import committed

import donod_fast
from donod_fast.demo.corpus import CORPUS_FILE, MODEL_FOLDER
from donod_fast.errors import DonodError, InputError, SettingsMismatchError

BUDGET = 256


@pytest.fixture(scope="module")
def scorer() -> donod_fast.Scorer:
    return donod_fast.Scorer.from_pretrained(
        MODEL_FOLDER, device="cpu", token_budget=BUDGET, carry=("source",), packing="off"
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [json.loads(line) for line in CORPUS_FILE.read_text(encoding="utf-8").splitlines()[:20]]
    rows = [{**row, "source": "ab"[at % 2]} for at, row in enumerate(rows)] + short_rows(6, seed=2)
    return write_lines(tmp_path_factory.mktemp("corpus") / "corpus.jsonl", rows)


def test_scores_in_memory_are_those_of_the_table(scorer: donod_fast.Scorer, corpus: Path) -> None:
    scores = scorer.score(corpus)
    assert isinstance(scores, donod_fast.Scores)
    assert_same_bits(scores.table, scorer.score_table(corpus))
    assert scores.folder.storage.local is None


def test_memory_folder_and_command_hold_the_same_parts(scorer: donod_fast.Scorer, corpus: Path, tmp_path: Path) -> None:
    options = ["--token-budget", BUDGET, "--carry", "source", "--packing", "off", "--device", "cpu", "--quiet"]
    done = invoke("score", corpus, "--model", MODEL_FOLDER, *options, "--out", tmp_path / "command")
    assert done.code == 0, done
    scores = scorer.score(corpus, tmp_path / "python")
    saved = scorer.score(corpus).save(tmp_path / "saved")
    wanted = {name: content for name, (_, content) in committed(tmp_path / "command").items()}
    assert wanted
    for place in ("python", "saved"):
        assert {name: content for name, (_, content) in committed(tmp_path / place).items()} == wanted
        assert (tmp_path / place / "plan.parquet").read_bytes() == (tmp_path / "command/plan.parquet").read_bytes()
    assert_same_bits(scores.table, saved.table)
    status = invoke("status", tmp_path / "saved")
    assert status.code == 0 and "finished" in status.out


def test_the_same_call_resumes(scorer: donod_fast.Scorer, corpus: Path, tmp_path: Path) -> None:
    whole = scorer.score(corpus, tmp_path / "whole", part_rows=4)

    class Stopped(Exception):
        pass

    def stop(rows: int, tokens: int) -> None:
        if len(list((tmp_path / "out").glob("part-*"))) >= 2:
            raise Stopped

    with pytest.raises(Stopped):
        scorer.score(corpus, tmp_path / "out", part_rows=4, progress=stop)
    before = committed(tmp_path / "out")
    begun = donod_fast.load_scores(tmp_path / "out")
    assert 2 <= len(before) < whole.folder.parts
    assert not begun.status.finished
    assert begun.status.missing_rows == sum(stop - start for start, stop in begun.status.missing) > 0
    assert "missing" in repr(begun.status) and "unfinished" in repr(begun)
    with pytest.raises(donod_fast.errors.StoreError, match="unfinished"):
        _ = begun.table
    scores = scorer.score(corpus, tmp_path / "out")
    after = committed(tmp_path / "out")
    assert {name: after[name] for name in before} == before
    assert {name: content for name, (_, content) in after.items()} == {
        name: content for name, (_, content) in committed(tmp_path / "whole").items()
    }
    assert_same_bits(scores.table, whole.table)


def test_progress_is_a_bar_or_a_function_or_nothing(
    scorer: donod_fast.Scorer, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scorer.score(corpus)
    scorer.score(corpus, progress=False)
    assert capsys.readouterr() == ("", "")
    scorer.score(corpus, progress=True)
    out, err = capsys.readouterr()
    assert out == "" and "26/26" in err and "tokens" in err
    seen: list[int] = []
    scorer.score(corpus, progress=lambda rows, tokens: seen.append(rows))
    assert sum(seen) == 26


def test_another_setting_is_refused_by_the_folder(scorer: donod_fast.Scorer, corpus: Path, tmp_path: Path) -> None:
    scorer.score(corpus, tmp_path / "out")
    other = donod_fast.Scorer(scorer.loaded, token_budget=BUDGET, packing="off")
    with pytest.raises(SettingsMismatchError, match="carry"):
        other.score(corpus, tmp_path / "out")
    assert len(other.score(corpus, tmp_path / "out", overwrite=True)) == 26


@pytest.mark.parametrize("given", [{"part_rows": 4}, {"workers": 1}, {"overwrite": True}, {"rescore_changed": True}])
def test_an_option_of_folders_needs_one(scorer: donod_fast.Scorer, corpus: Path, given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(given))):
        scorer.score(corpus, **given)


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"out": ""}, "empty"),
        ({"out": 3}, "a text or a path"),
        ({"out": "scores", "part_rows": "5"}, "part_rows must be a whole number"),
        ({"out": "scores", "part_rows": 2.5}, "part_rows must be a whole number"),
        ({"out": "scores", "workers": True}, "workers must be a whole number"),
        ({"progress": "yes"}, "progress must be"),
    ],
)
def test_a_wrong_argument_is_refused_before_data_is_read(
    scorer: donod_fast.Scorer, given: dict[str, Any], part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DonodError, match=part):
        scorer.score((pytest.fail("read the data") for _ in "a"), **given)
    assert not list(tmp_path.iterdir())


def test_rows_from_python_stay_with_their_scores(scorer: donod_fast.Scorer, corpus: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in corpus.read_text(encoding="utf-8").splitlines()]
    for scores in (scorer.score(rows), scorer.score(rows, tmp_path / "out")):
        selection = scores.select(0.3, by="source")
        assert list(selection.records()) == [rows[row] for row in selection.rows]
    rows[int(selection.rows[0])]["output"] = "another one"
    with pytest.raises(donod_fast.errors.CorpusError, match="not the one that was scored"):
        list(selection.records())


def test_a_live_scorer_scores_with_the_weights_of_now(corpus: Path) -> None:
    import torch
    from tiny_models import tiny_model, tiny_tokenizer

    model = tiny_model("llama")
    scorer = donod_fast.Scorer(model, tiny_tokenizer(), token_budget=BUDGET, live=True)
    rows = [{"prompt": "red house", "completion": "seven"}]
    first = scorer.score(rows)
    with torch.no_grad():
        model.lm_head.weight.mul_(2)
    second = scorer.score(rows)
    assert first["don"].to_pylist() != second["don"].to_pylist()
    norms = [scores.folder.manifest["model"]["weight_norm"] for scores in (first, second)]
    assert norms[1] == pytest.approx(2 * norms[0], rel=1e-6)


def test_importing_the_package_loads_no_torch() -> None:
    code = (
        "import sys, donod_fast; dir(donod_fast); assert 'torch' not in sys.modules; "
        "donod_fast.load_scores; donod_fast.Selection; donod_fast.Scores"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


def test_a_table_takes_scores_without_a_copy_by_hand(scorer: donod_fast.Scorer, corpus: Path) -> None:
    scores = scorer.score(corpus)
    assert_same_bits(pa.table(scores), scores.table)


def test_duplicates_and_reports_read_rows_from_python(scorer: donod_fast.Scorer, corpus: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in corpus.read_text(encoding="utf-8").splitlines()[:12]]
    scores = scorer.score([*rows, *rows[:5]])
    selection = scores.select(1.0, dedupe="exact")
    (sets,) = selection.sets
    assert sets.kind == "exact" and len(sets) == 5
    assert len(selection) == selection.scored - 5
    assert "similar rows: 5 sets (exact), 5 of 10 rows dropped" in repr(selection)
    alone = donod_fast.load_scores(scores.save(tmp_path / "scores").folder.name)
    with pytest.raises(donod_fast.errors.CorpusError, match="data=rows"):
        alone.select(1.0, dedupe="exact")
    report = scores.report(tmp_path / "report.html", near_duplicates="none", title="A <b>title</b>")
    text = report.read_text(encoding="utf-8")
    assert "A &lt;b&gt;title" in text and "<b>title</b>" not in text
    with pytest.raises(InputError, match="did you mean 'title'"):
        scores.report(tmp_path / "other.html", titel="x")
    with pytest.raises(donod_fast.errors.StoreError, match="exists"):
        scores.report(report)


def test_a_selection_unlike_its_corpus_says_so(tmp_path: Path) -> None:
    import numpy as np
    from api_cases import folder_over, written_corpus

    file, _ = written_corpus(tmp_path / "a.jsonl", 60)
    columns = {"don": np.repeat([0.0, 1.0], 30), "nod": np.arange(60.0)}
    folder_over(tmp_path / "scores", [file], columns, {"source": ["a"] * 30 + ["b"] * 30})
    selection = donod_fast.load_scores(tmp_path / "scores").select(0.5, "don")
    assert selection.likeness.distances["source"] == 0.5
    assert any("source" in note for note in selection.notes) and "source" in repr(selection)
