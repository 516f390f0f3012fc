"""What a run says about its step: the gradient against eps, and how far the columns vary."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from score_runs import invoke, short_rows, write_lines
from tiny_models import save_tiny

from donod_fast.data.reading import open_corpus
from donod_fast.models.batching import collate
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scores.part_summary import ColumnSummary, whole_column
from donod_fast.scores.step_facts import StepFacts
from donod_fast.scoring.scorer import Scorer
from donod_fast.scoring.settings import UpdateSettings
from donod_fast.scoring.step_size import ROWS, VOCABULARY, gradient_size

OLD = Path(__file__).parent / "data" / "release-0.1.0" / "scores"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("llama", tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lines(tmp_path_factory.mktemp("data") / "rows.jsonl", short_rows(40, seed=5))


@pytest.mark.parametrize("eps", [1e-8, 1e-4])
def test_the_median_is_that_of_autograd(model: Path, data: Path, eps: float) -> None:
    scorer = Scorer.from_pretrained(model, device="cpu", update=UpdateSettings(eps=eps))
    samples = scorer.masker.tokenize_many(list(open_corpus([str(data)]).records()))
    found = gradient_size(scorer.sample_scorer.forward, samples)
    assert found is not None
    weight = scorer.head.weight.double()
    drawn = torch.randperm(len(weight), generator=torch.Generator().manual_seed(0))[:VOCABULARY]
    ready = [at for at, sample in enumerate(samples) if str(sample.status) == "scored"][:ROWS]
    entries = []
    for at in ready:
        batch = collate(samples, [at])
        leaf = weight.clone().requires_grad_()
        with torch.no_grad():
            hidden = scorer.trunk.scored_states(batch).double()
        torch.nn.functional.cross_entropy(hidden @ leaf.t(), batch.labels).backward()
        assert leaf.grad is not None
        entries.append(leaf.grad[drawn].abs().flatten())
    assert (found.rows, found.vocabulary) == (len(ready), len(drawn))
    assert found.over_eps == pytest.approx(float(torch.cat(entries).median()) / eps, rel=6e-3)  # three digits


def test_other_updates_and_no_scored_row_have_none(model: Path, data: Path) -> None:
    scorer = Scorer.from_pretrained(model, device="cpu", update=UpdateSettings("sgd"))
    samples = scorer.masker.tokenize_many(list(open_corpus([str(data)]).records()))
    assert gradient_size(scorer.sample_scorer.forward, samples) is None
    adamw = Scorer.from_pretrained(model, device="cpu")
    assert gradient_size(adamw.sample_scorer.forward, []) is None


@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_score_and_status_say_it_and_json_has_it(model: Path, data: Path, tmp_path: Path, update: str) -> None:
    out = tmp_path / "out"
    options = ["score", data, "--model", model, "--out", out, "--device", "cpu", "--part-rows", 7, "--update", update]
    done = invoke(*options)
    assert done.code == 0, done
    lines = [line for line in done.out.splitlines() if "variation (σ/|μ|) of DON" in line]
    assert len(lines) == 1 and ("median |g| is" in lines[0]) == (update == "adamw")
    table = ScoresFolder.open(out).table()
    for command in (["status", out, "--json"], [*options, "--json"]):
        found = json.loads(invoke(*command).out)["step"]
        assert ("gradient" in found) == (update == "adamw")
        for name in ("don", "nod"):
            column = table.column(name).drop_null().to_numpy()
            column = column[~np.isnan(column)]
            assert found[f"variation_{name}"] == pytest.approx(column.std() / abs(column.mean()), rel=1e-5)
    assert lines[0] in invoke("status", out).out

    again = tmp_path / "again"
    assert invoke(*[again if one == out else one for one in options]).code == 0
    assert (again / "part-000000.parquet").read_bytes() == (out / "part-000000.parquet").read_bytes()


def test_merged_folders_keep_that_of_the_first(model: Path, tmp_path: Path) -> None:
    facts = []
    for name in ("a", "b"):
        rows = write_lines(tmp_path / f"{name}.jsonl", short_rows(12, seed=ord(name)))
        assert invoke("score", rows, "--model", model, "--out", tmp_path / name, "--device", "cpu").code == 0
        facts.append(StepFacts.of(ScoresFolder.open(tmp_path / name).summaries()).gradient)
    assert invoke("merge", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "c").code == 0
    assert StepFacts.of(ScoresFolder.open(tmp_path / "c").summaries()).gradient == facts[0] != None  # noqa: E711


def test_further_criteria_keep_it(model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["score", data, "--model", model, "--out", out, "--device", "cpu", "--json"]
    first = json.loads(invoke(*options).out)["step"]
    second = json.loads(invoke(*options, "--signals", "el2n").out)["step"]
    assert first == second and "gradient" in first


def test_what_an_earlier_release_did_not_write_is_absent_and_not_zero(tmp_path: Path) -> None:
    folder = ScoresFolder.open(shutil.copytree(OLD, tmp_path / "old"))
    facts = StepFacts.of(folder.summaries())
    assert (facts.gradient, facts.don, facts.nod, facts.as_json(), facts.line()) == (None, None, None, {}, None)


def test_variation_from_parts_is_that_of_the_column() -> None:
    rng = np.random.default_rng(0)
    for mean, spread in ((1.0, 0.1), (1e-300, 1e-303), (-3e200, 1e198), (0.02, 2e-7)):
        column = mean + spread * rng.standard_normal(1000)
        column[::17] = np.nan
        kept = column[~np.isnan(column)] / abs(mean)  # NumPy's squares leave the range of numbers
        parts = [ColumnSummary.of(part) for part in np.array_split(column, [1, 300, 900])]
        found = whole_column(parts).variation(len(column))
        assert found == pytest.approx(kept.std() / abs(kept.mean()), rel=1e-4)
    for nothing in ([], [1.0], [np.nan, 1.0], [0.0, 0.0], [1.0, -1.0]):
        assert ColumnSummary.of(np.array(nothing, dtype=np.float64)).variation(len(nothing)) is None
