"""The engine of the evidence: matched draws, verdicts that find planted effects, costs, resuming and refusals."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from demo_parts import MODEL, clean_rows
from evidence_fakes import FakeTrainings

from donod_fast.data.types import TokenizedSample
from donod_fast.errors import InputError
from donod_fast.models.loading import LoadedModel, load_model
from donod_fast.studies.core.cells import Cell, CellStore
from donod_fast.studies.core.finetune import fine_tune, row_losses, tokenized
from donod_fast.studies.core.scored import ScoringCells
from donod_fast.studies.core.settings import EpochTraining, LoraTuning
from donod_fast.studies.evidence.comparing import Comparison, comparisons
from donod_fast.studies.evidence.compute import ModelCost, Passed, Passes
from donod_fast.studies.evidence.plan import EvidencePlan, HeldOut, Pair, Pool, RandomDraws, Tuning
from donod_fast.studies.evidence.report import write_evidence_report
from donod_fast.studies.evidence.result import EvidenceStudy
from donod_fast.studies.evidence.run import run_evidence
from donod_fast.studies.evidence.verdict import verdict

ROWS = 80
TRAINING = EpochTraining(epochs=1.0, learning_rate=1e-3, step_tokens=200)


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    torch.set_num_threads(1)
    return load_model(MODEL, dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def corpus() -> list[dict[str, Any]]:
    return clean_rows(ROWS + 60)


@pytest.fixture(scope="module")
def plan(loaded: LoadedModel, corpus: list[dict[str, Any]]) -> EvidencePlan:
    return EvidencePlan(
        pairs=(Pair(loaded),),
        pools=(Pool("pool", corpus[:ROWS]),),
        heldouts=(HeldOut("near", corpus[ROWS : ROWS + 30]), HeldOut("far", corpus[ROWS + 30 :], domain="out")),
        methods=("topsis", "loss", "tokens@high"),
        random=RandomDraws(kinds=("rows", "tokens", "lengths", "compute")),
        tunings=(Tuning(training=TRAINING),),
    )


@pytest.fixture(scope="module")
def scores(plan: EvidencePlan, loaded: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study's folder in which the pool is scored, so that it is not scored for each test."""
    folder = tmp_path_factory.mktemp("scores")
    ScoringCells(CellStore(folder), loaded).score(plan.pools[0].read(), plan.update)
    return folder


@pytest.fixture
def out(scores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("donod_fast.studies.core.paired.REPLICATES", 200)
    shutil.copytree(scores, tmp_path / "study")
    return tmp_path / "study"


def no_effect(samples: Sequence[TokenizedSample], tokens: int) -> float:
    return 1.5


def by_tokens(samples: Sequence[TokenizedSample], tokens: int) -> float:
    """More training is better, whatever the rows."""
    return 2.0 - tokens / 10_000


def of(study: EvidenceStudy, method: str, kind: str, heldout: str = "near") -> Comparison:
    (found,) = (one for one in comparisons(study) if (one.method, one.kind, one.heldout) == (method, kind, heldout))
    return found


def lengths(plan: EvidencePlan, loaded: LoadedModel) -> list[int]:
    return [len(sample.input_ids) for sample in tokenized(loaded, plan.pools[0].read())]


def test_draws_match_the_selections(
    plan: EvidencePlan, loaded: LoadedModel, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeTrainings(no_effect).install(monkeypatch)
    study = run_evidence(out, plan)
    count = round(0.3 * ROWS)
    long = lengths(plan, loaded)
    assert len(list(study.where(method="random", kind="rows"))) == 5  # shared by all methods
    for method in plan.methods:
        selected = study.selections[loaded.name.rpartition("/")[2], "pool", method, 0.3]
        own = sum(long[row] for row in selected)
        assert len(selected) == count and [row.rows for row in study.where(method=method)] == [count] * 2
        assert {row.tokens for row in study.where(method=method)} == {own}
        alike = list(study.where(kind="tokens", matched=method))
        assert len(alike) == 5 and all(abs(row.tokens - own) <= max(long) / 2 for row in alike)
        alike = list(study.where(kind="lengths", matched=method))
        assert len(alike) == 5 and all(row.rows == count and abs(row.tokens / own - 1) < 0.08 for row in alike)
    longest = [sorted(long)[-count:]]
    assert (
        sorted(long[row] for row in study.selections[loaded.name.rpartition("/")[2], "pool", "tokens@high", 0.3])
        == (longest[0])
    )
    seeds = [row.seed for row in study.where(method="random", kind="rows")]
    assert seeds == [0, 1, 0, 1, 0]


def test_as_much_compute_counts_the_scoring(
    plan: EvidencePlan, loaded: LoadedModel, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeTrainings(no_effect).install(monkeypatch)
    study = run_evidence(out, plan)
    for method in ("topsis", "loss"):
        (one, *_) = study.where(method=method)
        whole = one.scoring.flops + one.training.flops
        for row in study.where(kind="compute", matched=method):
            assert row.training.flops == pytest.approx(whole, rel=0.05) and row.scoring.flops == 0
    # The longest rows cost nothing to find, so there is nothing to spend on more rows.
    assert not list(study.where(kind="compute", matched="tokens@high"))


def test_an_advantage_of_length_is_none_against_as_many_tokens(
    plan: EvidencePlan, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeTrainings(by_tokens).install(monkeypatch)
    study = run_evidence(out, plan)
    against_rows = of(study, "tokens@high", "rows")
    assert against_rows.shown and against_rows.better and against_rows.words.startswith("near: shown: tokens@high")
    for kind in ("tokens", "lengths"):
        assert not of(study, "tokens@high", kind).shown
    assert "of their rows in common" in of(study, "tokens@high", "lengths").words
    alone = [one for one in comparisons(study) if one.kind == "rows"]
    for some, named in ((comparisons(study), False), (alone, True)):
        (said,) = {text for text in verdict(some).shown if "tokens@high beats random, same rows on near" in text}
        assert ("more tokens, and there are no draws of as many tokens" in said) == named


def test_a_planted_effect_is_found_in_kept_and_removed_rows(
    plan: EvidencePlan, scores: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_all = replace(plan, methods=("topsis", "loss"), random=RandomDraws(kinds=("rows",)), removal=True)
    FakeTrainings(no_effect).install(monkeypatch)
    first = run_evidence(out, with_all)
    assert not any(one.shown for one in comparisons(first))
    (pair,) = {row.pair for row in first.rows}
    good = set(first.selections[pair, "pool", "loss", 0.3])

    def by_rows(samples: Sequence[TokenizedSample], tokens: int) -> float:
        return 2.0 - len(good & {sample.row for sample in samples}) / 50

    FakeTrainings(by_rows).install(monkeypatch)
    other = out.with_name("other")
    shutil.copytree(scores, other)
    study = run_evidence(other, with_all)
    kept, removed = (
        next(one for one in comparisons(study) if (one.method, one.arm, one.heldout) == ("loss", arm, "near"))
        for arm in ("keep", "remove")
    )
    assert kept.shown and kept.better and kept.difference.value < 0
    assert removed.shown and removed.better and removed.difference.value > 0
    assert len(list(study.where(method="all"))) == 2
    said = write_evidence_report(out, study, title="A title", command="the command")
    assert any("loss beats random, same rows on near" in text for text in said.shown)
    assert any("loss, by what its removal costs, beats random" in text for text in said.shown)


def test_methods_that_select_the_same_rows_are_one_comparison(
    plan: EvidencePlan, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeTrainings(no_effect).install(monkeypatch)
    few = replace(plan, random=RandomDraws(kinds=("rows",)), methods=("tokens@high", "loss"))
    twice = replace(few, methods=("tokens@high", "loss", "loss@low"))
    found = [comparisons(run_evidence(out, one)) for one in (few, twice)]
    assert {one.compared for some in found for one in some} == {4}
    assert [len(some) for some in found] == [4, 6]


def test_a_second_run_trains_nothing_and_says_the_same(
    plan: EvidencePlan, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeTrainings(by_tokens).install(monkeypatch)
    first = run_evidence(out, plan)
    assert len(fake.done) == len(set(fake.done)) > 20
    write_evidence_report(out, first, title="A title", command="donod-fast study …")
    report = (out / "report.md").read_text(encoding="utf-8")
    trained, cells = len(fake.done), []
    again = run_evidence(out, plan, on_cell=cells.append)
    assert again == first and len(fake.done) == trained
    assert cells and all(isinstance(cell, Cell) and cell.cached for cell in cells)
    # One more method trains only its own rows.
    run_evidence(out, replace(plan, methods=(*plan.methods, "don"), random=RandomDraws(kinds=("rows",))))
    assert len(fake.done) <= trained + 2
    with (out / "cells.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(first.rows) and {row["command"] for row in rows} == {"donod-fast study …"}
    assert {row["seed"] for row in rows} == {"", "0", "1"}
    for one in comparisons(first):
        assert one.words in report
    assert report.startswith("# A title\n\n**Shown**")
    summary = json.loads((out / "result.json").read_text(encoding="utf-8"))
    assert len(summary["comparisons"]) == len(comparisons(first))


def test_a_real_training_is_that_of_fine_tune(
    plan: EvidencePlan, loaded: LoadedModel, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[float] = []

    def size(model: Any, tokenizer: Any) -> dict[str, float]:
        measured.append(float(model.lm_head.weight.norm()))
        return {"norm": measured[-1]}

    small = replace(
        plan,
        methods=("loss",),
        pools=(Pool("pool", plan.pools[0].data[:20]),),  # type: ignore[index]
        heldouts=(HeldOut("near", plan.heldouts[0].data[:8]),),  # type: ignore[index]
        random=RandomDraws(kinds=("rows",)),
        benchmarks={"size": size},
    )
    study = run_evidence(out, small)
    (row,) = study.where(method="loss", seed=1)
    selected = study.selections[row.pair, "pool", "loss", 0.3]
    samples = tokenized(loaded, small.pools[0].read())
    tuned = fine_tune(loaded, [samples[at] for at in selected], replace(TRAINING, seed=1))
    expected = row_losses(tuned.model, loaded.tokenizer, small.heldouts[0].read())
    assert row.losses["near"].loss == pytest.approx(expected.loss, rel=1e-5)
    assert row.benchmarks == {"size/norm": pytest.approx(float(tuned.model.lm_head.weight.norm()), rel=1e-6)}
    assert len(measured) == 1 + 2 + 5  # untrained, two seeds, five draws
    (base,) = study.where(method="untrained")
    assert base.losses["near"].loss == pytest.approx(
        row_losses(loaded.model, loaded.tokenizer, small.heldouts[0].read()).loss, rel=1e-5
    )


def test_adapters_are_merged_and_the_model_is_left_alone(loaded: LoadedModel, corpus: list[dict[str, Any]]) -> None:
    samples = tokenized(loaded, corpus[:6])
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    tuned = fine_tune(loaded, samples, TRAINING, LoraTuning(rank=2, targets=("q_proj", "v_proj")))
    after = tuned.model.state_dict()
    assert after.keys() == before.keys()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed and all("q_proj" in name or "v_proj" in name for name in changed)
    for name in changed:
        rank = torch.linalg.matrix_rank((after[name] - before[name]).double(), rtol=1e-4)
        assert 0 < int(rank) <= 2
    assert all(torch.equal(value, before[name]) for name, value in loaded.model.state_dict().items())


def test_costs_are_those_of_a_hand_calculation() -> None:
    model, pool, references = ModelCost(trunk=1000, head=400), Passed(50, 20), Passed(10, 4)
    forward = 2 * (1000 * 50 + 400 * 20)
    flops = {
        "topsis": forward + 2 * 400 * 20,
        "don": forward + 2 * 400 * 20,
        "loss@high": forward,
        "tokens@high": 0,
        "scored_tokens@low": 0,
        "el2n": forward,
        "ifd": forward + 2 * (1000 + 400) * 20,
        "influence_cos:val": forward + 2 * (1000 * 10 + 400 * 4),
    }
    for method, expected in flops.items():
        found = Passes.of(method).cost(model, pool, references, update="adamw", seconds=3.0)
        assert found.flops == expected, method
        assert found.seconds == (3.0 if expected else 0.0)
    assert Passes.of("nod").cost(model, pool, references, update="sgd").flops == forward
    assert model.training(pool, adapters=False) == 3 * forward and model.training(pool, adapters=True) == 2 * forward


def test_a_tied_embedding_is_counted_once(loaded: LoadedModel) -> None:
    model = loaded.model
    cost = ModelCost.of(model)
    config: Any = model.config
    assert cost.head == config.vocab_size * config.hidden_size
    inner = sum(p.numel() for name, p in model.named_parameters() if "embed" not in name and "lm_head" not in name)
    assert cost.trunk == inner


@pytest.mark.parametrize("where", ["pool", "reference"])
def test_held_out_rows_that_are_trained_on_are_refused(
    plan: EvidencePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    FakeTrainings(no_effect).install(monkeypatch)
    held: list[dict[str, Any]] = list(plan.heldouts[0].data)  # type: ignore[arg-type]
    copied = {name: text.upper() for name, text in held[3].items()}
    one = replace(plan, methods=("loss", "influence_cos"), random=RandomDraws(kinds=("rows",)))
    if where == "pool":
        rows = list(plan.pools[0].data)
        rows[5] = copied
        one = replace(one, pools=(Pool("pool", rows),), methods=("loss",))  # type: ignore[arg-type]
    else:
        file = tmp_path / "reference.jsonl"
        file.write_text(json.dumps(copied) + "\n", encoding="utf-8")
        one = replace(one, references=(str(file),))
    with pytest.raises(InputError, match=r"row 3 .*--allow-overlap"):
        run_evidence(tmp_path / "study", one)
    assert not list((tmp_path / "study" / "cells").iterdir())
    run_evidence(tmp_path / "study", replace(one, allow_overlap=True))


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_training_that_diverges_is_refused(
    plan: EvidencePlan, out: Path, monkeypatch: pytest.MonkeyPatch, loss: float
) -> None:
    FakeTrainings(lambda samples, tokens: loss).install(monkeypatch)
    with pytest.raises(InputError, match=r"diverged.*lower the learning rate, which is 0.001"):
        run_evidence(out, plan)


def test_held_out_rows_without_a_loss_are_refused(
    plan: EvidencePlan, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeTrainings(no_effect).install(monkeypatch)

    def fewer(model: Any, *others: Any, **more: Any) -> Any:
        found = fake.row_losses(model, *others, **more)
        lost = hasattr(model, "loss")  # a trained one
        return replace(found, sums=found.sums[lost:], tokens=found.tokens[lost:])

    monkeypatch.setattr("donod_fast.studies.evidence.workshop.row_losses", fewer)
    with pytest.raises(InputError, match="no finite loss; lower the learning rate"):
        run_evidence(out, plan)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"methods": ()}, "methods"),
        ({"methods": ("topsis", "random")}, "always compared"),
        ({"methods": ("loss", "loss")}, "named twice"),
        ({"seeds": (0,)}, "no spread"),
        ({"seeds": (1, 1)}, "different numbers"),
        ({"shares": (1.0,)}, "all selections are the same"),
        ({"shares": (0.0,)}, "between 0 and 1"),
        ({"heldouts": ()}, "heldouts"),
        ({"pools": (Pool("a", []), Pool("a", []))}, "a is named twice"),
        ({"random": {"draws": 4}}, "at least 5"),
        ({"random": {"kinds": ("luck",)}}, "luck"),
        ({"random": {"kinds": ()}}, "none"),
        ({"random": {"seeds_each": 3}}, "only 2 seeds"),
    ],
)
def test_a_plan_that_shows_nothing_is_refused(plan: EvidencePlan, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        if "random" in changes:
            changes = {"random": RandomDraws(**changes["random"])}
        replace(plan, **changes)


@pytest.mark.parametrize(
    ("method", "words"),
    [("luck", "luck"), ("kmeans-ifd", "does not embed"), ("don-threshold", "don_quantile"), ("topsis@high", "fixed")],
)
def test_a_method_that_keeps_no_share_is_refused_at_once(
    plan: EvidencePlan, tmp_path: Path, method: str, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        run_evidence(tmp_path / "study", replace(plan, methods=("topsis", method)))
    assert not (tmp_path / "study").exists()
