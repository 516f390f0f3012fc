"""The plan of ``study paper``: cells and hours against counts by hand, without weights, corpora or a network."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from paper_recipes import POOL_ROWS, paper_values
from score_runs import invoke

from donod_fast.errors import InputError
from donod_fast.studies.paper.plan import (
    GENERATING,
    LOGLIKELIHOOD,
    LOSSES,
    SCORING,
    TRAINING,
    PaperPlan,
    plan_paper,
)
from donod_fast.studies.paper.recipe import load_paper_recipe, paper_recipe_from
from donod_fast.training.planning import ACCELERATORS

GONE = "no-such-folder/corpus.jsonl"
SHAPE = {"kind": "llama", "vocab": 128256, "dim": 4096, "layers": 32, "inner": 14336, "heads": 32, "key_value_heads": 8}
PARAMETERS, EMBEDDING = 8_030_261_248, 128_256 * 4096
"""Parameters of Llama-3.1-8B, as its model card rounds them to 8.03 B."""


def stated_values(folder: Path, rows: int, tokens: float, *, small: bool = True, **more: Any) -> dict[str, Any]:
    """A recipe of which nothing is available: neither the config of its model (large, or small) nor a corpus."""
    values = paper_values(folder, **more)
    shape = {**SHAPE, "layers": 1, "vocab": 64, "dim": 32, "inner": 32, "heads": 2, "key_value_heads": 2}
    values["models"] = [{"name": "demo", "model": "no-such-owner/model", "shape": shape if small else SHAPE}]
    for section in (*values["pools"], *values["heldouts"]):
        section |= {"data": [GONE], "stated_rows": rows, "stated_tokens": tokens}
    values["heldouts"][0]["data"] = ["no-such-folder/test.jsonl"]
    values["heldouts"][1]["data"] = ["no-such-folder/words.jsonl"]
    return values


def costs(plan: PaperPlan, stage: str) -> dict[str, float]:
    return {f"{one.part} {one.what}": one.flops for one in plan.costs if one.stage == stage}


def test_hours_equal_a_calculation_by_hand(tmp_path: Path) -> None:
    rows, tokens = 1000, 200.0
    plan = plan_paper(paper_recipe_from(stated_values(tmp_path, rows, tokens, small=False)))
    products, total = PARAMETERS - EMBEDDING, rows * tokens
    attention = (
        2 * 32 * 4096 * rows * tokens**2 * 1.5
    )  # two products of half a triangle; squares as TokenCounts guesses
    forward = 2 * products * total + attention
    scoring = forward + 2 * EMBEDDING * total
    assert costs(plan, SCORING)["grid sums by demo"] == pytest.approx(scoring, rel=1e-6)
    # all rows twice; two methods at a quarter with two seeds; five draws at a quarter
    trainings = [1.0, 1.0, *[0.25] * 4, *[0.25] * 5]
    assert plan.cells(TRAINING) == len(trainings)
    assert costs(plan, TRAINING)["grid sums: demo"] == pytest.approx(3 * forward * sum(trainings), rel=1e-3)
    models = len(trainings) + 1
    assert plan.cells(LOSSES) == 2 * models
    assert costs(plan, LOSSES)["grid demo"] == pytest.approx(2 * models * forward, rel=1e-6)
    every = sum(one.flops for one in plan.costs)
    for name, gpu in ACCELERATORS.items():
        assert plan.total(name) == pytest.approx(every / (0.4 * gpu.peak) / 3600, rel=1e-9)


@pytest.mark.parametrize("removal", [False, True])
@pytest.mark.parametrize("kinds", [["rows"], ["tokens", "lengths"], ["rows", "tokens", "lengths", "compute"]])
@pytest.mark.parametrize("shares", [[0.3], [0.1, 0.2]])
def test_trainings_are_those_of_an_enumeration(
    removal: bool, kinds: list[str], shares: list[float], tmp_path: Path
) -> None:
    values = stated_values(tmp_path, 50, 20.0, removal=removal, shares=shares, methods=["topsis", "nod", "loss"])
    values["random"] = {"draws": 6, "kinds": kinds, "seeds_each": 2}
    values["seeds"] = [0, 1, 2]
    recipe = paper_recipe_from(values)
    found: Counter[tuple[Any, ...]] = Counter()
    for seed in recipe.seeds:
        found["all", seed] += 1
        for share in shares:
            for method in recipe.methods:
                found[method, share, seed] += 1
                if removal:
                    found["without", method, share, seed] += 1
    for share in shares:
        for draw in range(6):
            for seed in range(2):
                if removal:
                    found["without", share, draw, seed] += 1
                for kind in kinds:
                    for matched in [""] if kind == "rows" else recipe.methods:
                        found[kind, matched, share, draw, seed] += 1
    assert plan_paper(recipe).cells(TRAINING) == sum(found.values()) == len(found)


def test_a_budget_of_tokens_makes_all_trainings_equal(tmp_path: Path) -> None:
    values = stated_values(tmp_path, 100, 50.0)
    values["tuning"] |= {"tokens": 2000}
    plan = plan_paper(paper_recipe_from(values))
    training = next(one for one in plan.costs if one.stage == TRAINING)
    assert training.tokens == 2000 * training.cells


def test_benchmarks_cost_prompts_for_each_answer_and_new_tokens(tmp_path: Path) -> None:
    values = stated_values(tmp_path, 100, 50.0, small=False)
    stated = {"stated_problems": 100, "stated_tokens": 80.0}
    values["benchmarks"] = [
        {"benchmark": "agieval", "domains": ["math", "logic"], **stated, "stated_choices": 4.0},
        {"benchmark": "ifeval", "domains": ["instructions"], **stated, "max_new_tokens": 256, "batch_size": 50},
    ]
    plan = plan_paper(paper_recipe_from(values))
    models = plan.cells(TRAINING) + 1
    read = next(one for one in plan.costs if one.stage == LOGLIKELIHOOD)
    assert (read.cells, read.tokens) == (models, models * 100 * 4 * 80)
    made = next(one for one in plan.costs if one.stage == GENERATING)
    assert (made.cells, made.tokens) == (models, models * 100 * (256 + 80))
    # Two batches of 50: at this size a step takes as long as reading the weights at half of 3.35 TB/s.
    reading = models * 2 * 256 * PARAMETERS * 2 / (3.35e12 / 2) / 3600
    prompts = models * 100 * 80 * 2 * (PARAMETERS - EMBEDDING) / (0.4 * 989.4e12) / 3600
    assert made.hours["h100"] == pytest.approx(reading + prompts, rel=1e-6)


def test_the_problems_of_a_file_are_counted(tmp_path: Path) -> None:
    problems = tmp_path / "agieval"
    problems.mkdir()
    for name, count, options in (("sat-math", 3, 4), ("logiqa-en", 5, 2)):
        row = {
            "passage": "p" * 35,
            "question": "q" * 35,
            "options": ["o" * 7] * options,
            "label": "A",
            "other": "x" * 99,
        }
        (problems / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for _ in range(count)), encoding="utf-8")
    section = {"benchmark": "agieval", "problems": str(problems), "domains": ["math"], "limit": 4}
    plan = plan_paper(paper_recipe_from(stated_values(tmp_path, 10, 20.0, benchmarks=[section])))
    read = next(one for one in plan.costs if one.stage == LOGLIKELIHOOD)
    tokens = (3 * (70 + 28) + 4 * (70 + 14)) / 7 / 3.5
    assert read.tokens == pytest.approx(read.cells * 7 * tokens * (3 * 4 + 4 * 2) / 7, abs=1)


def test_a_corpus_that_is_here_is_counted(tmp_path: Path) -> None:
    plan = plan_paper(paper_recipe_from(paper_values(tmp_path)))
    counts = plan.trainings["demo on sums"].counts
    assert counts.rows == POOL_ROWS and counts.how == "counted"


def test_parts_add_their_cells(tmp_path: Path) -> None:
    parts: dict[str, Any] = {
        "noise": {"rows": 10, "seeds": 3, "kinds": ["masked", "dropped"]},
        "stability": {"rows": 12, "seeds": 2, "proportions": [0.5, 1.0], "methods": ["topsis", "random"]},
        "focus": {"train_rows": 8, "seeds": 2, "rows": 10},
        "ablation": {"rows": 12, "keeps": [0.25, 0.5], "seeds": 2, "setting_seeds": 1, "tokens": 500},
    }
    plan = plan_paper(paper_recipe_from(stated_values(tmp_path, 40, 20.0, **parts)))
    assert plan.cells(SCORING, "noise") == 3
    assert plan.cells(TRAINING, "stability") == (2 + 1) * 2  # at 1.0 the methods keep the same rows
    assert plan.cells(TRAINING, "focus") == 2 * 2
    assert plan.cells(TRAINING, "ablation") == (4 * 2 + 7) * 2 + 2
    ablation = next(one for one in plan.costs if (one.part, one.stage) == ("ablation", TRAINING))
    assert ablation.tokens == 500 * ablation.cells


def test_a_corpus_without_stated_numbers_is_an_error_that_says_so(tmp_path: Path) -> None:
    values = stated_values(tmp_path, 10, 20.0)
    del values["pools"][0]["stated_tokens"]
    with pytest.raises(InputError, match=r"sums is not available.*stated_tokens"):
        plan_paper(paper_recipe_from(values))


def test_the_large_recipes_are_planned_without_weights_or_corpora(tmp_path: Path) -> None:
    for name, models in (("paper-llama-3.1-8b", 2), ("paper-llama-2-7b-code", 1)):
        gone = [f"pools.0.data=[{tmp_path}/none.jsonl]", f"heldouts.0.data=[{tmp_path}/other.jsonl]"]
        recipe = load_paper_recipe(name, gone)
        plan = plan_paper(recipe, gpu="h200")
        assert len({one.model for one in plan.trainings.values()}) == models
        assert all(plan.cells(stage) for stage in (SCORING, TRAINING, LOSSES, LOGLIKELIHOOD, GENERATING))
        text = plan.text()
        for words in ("a100 hours", "h100 hours", "h200 hours", "assumed or unknown:", "as the recipe states"):
            assert words in text


def test_the_command_prints_the_plan_and_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "own.yaml"
    recipe.write_text(json.dumps(stated_values(tmp_path, 10, 20.0)), encoding="utf-8")
    done = invoke("study", "paper", str(recipe), "--dry-run", "--json", "--out", "study")
    assert done.code == 0, done.err
    plan = json.loads(done.out)
    assert plan["cells"][TRAINING] == 11 and set(plan["gpu_hours"]) == set(ACCELERATORS)
    assert not (tmp_path / "study").exists()
    assert invoke("study", "paper", str(recipe), "--dry-run", "--gpu", "b200").code == 2
