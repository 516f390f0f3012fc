"""A small threshold study with its real components: scoring, TRL's training, generation, sandbox, report."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from donod_fast.data.reading import open_corpus
from donod_fast.errors import InputError, SandboxError
from donod_fast.evaluation.sandbox import find_isolation
from donod_fast.studies.core.cells import CellStore
from donod_fast.studies.core.grid import MODEL, Unit, measured
from donod_fast.studies.family import BASE_MODEL
from donod_fast.studies.threshold.family_files import is_family, rename_former_measures, with_family
from donod_fast.studies.threshold.parts import MakeParts
from donod_fast.studies.threshold.run import run_threshold
from donod_fast.training import Recipe, load_recipe, recipe_from

SMALL = ('score.data=["family:train?rows=120&tasks=24&seed=1"]', "eval.0.batch_size=24")


def isolation_problem() -> str:
    try:
        find_isolation()
    except SandboxError as error:
        return str(error)
    return ""


needs_isolation = pytest.mark.skipif(bool(isolation_problem()), reason=f"no isolation here: {isolation_problem()[:80]}")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the family's files, written once."""
    return tmp_path_factory.mktemp("family")


def small_recipe(family: Path, *overrides: str) -> Recipe:
    return with_family(load_recipe("tiny-study", [*SMALL, *overrides]), family)


@needs_isolation
def test_the_whole_study_runs_on_the_family(family: Path, tmp_path: Path) -> None:
    recipe = small_recipe(
        family,
        "study.methods=[all, random, nod]",
        "study.keeps=[0.3]",
        "study.don_quantiles=[0.5]",
        "study.seeds=[0]",
    )
    outcome = run_threshold(recipe, tmp_path, jobs=1, command="donod-fast study threshold tiny-study")
    study = outcome.study
    assert [(line.method, round(line.rows)) for line in study.lines] == [
        ("base", 0),
        ("all", 120),
        ("random", 36),
        ("nod", 36),
        ("don-threshold", 60),
    ]
    # Tokens: the rows' own, in each epoch, by the tokenizer alone.
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(BASE_MODEL)
    rows = [record.data or {} for record in open_corpus(list(recipe.score.data)).records()]
    ids = [tokenizer(row["prompt"] + row["completion"])["input_ids"] for row in rows]
    ends = sum(not one or one[-1] != tokenizer.eos_token_id for one in ids)
    assert study.lines[1].tokens == recipe.train.epochs * (sum(map(len, ids)) + ends)
    for line in study.lines:
        passes, loss = line.measures
        assert passes.name == "family pass@1"
        assert 0.0 <= passes.pooled.value <= 1.0
        assert passes.pooled.value * 24 == pytest.approx(round(passes.pooled.value * 24))
        assert 0.0 < loss.pooled.value < 3.0
    base, everything = study.lines[0].measures[1], study.lines[1].measures[1]
    assert everything.pooled.value < base.pooled.value, "training on everything lowers the held-out loss"
    assert sum(row["corruption"] != "none" for row in rows) / 120 == pytest.approx(study.lines[1].corrupted)
    assert {one.kind for one in study.separations} > {"all kinds"}
    assert study.machine["isolation"]
    for name in ("report.md", "report.html", "results.csv", "results.json", "pictures/measure-0.png"):
        assert (tmp_path / name).stat().st_size > 0
    assert not list(tmp_path.glob(f"cells/*/{MODEL}")), "trained models go once they are measured"
    texts = [
        path.read_text(encoding="utf-8") for path in tmp_path.rglob("*") if path.suffix in (".md", ".csv", ".json")
    ]
    assert len(texts) > 8 and not any("humaneval" in text.lower() for text in texts)


@needs_isolation
def test_a_killed_study_measures_the_model_it_left_without_retraining(family: Path, tmp_path: Path) -> None:
    recipe = small_recipe(family, "eval.0.limit=8")
    unit = Unit(tuple(range(0, 120, 4)), 3)

    class Dies(Exception):
        pass

    class Dying:
        def __init__(self) -> None:
            self.inner = MakeParts(recipe, tmp_path / "killed", workers=1)()
            self.training, self.base, self.measures = self.inner.training, self.inner.base, self.inner.measures
            self.train = self.inner.train

        def measure(self, name: str, model: Path | None) -> object:
            raise Dies

    with pytest.raises(Dies):
        measured(CellStore(tmp_path / "killed"), Dying(), unit)  # type: ignore[arg-type]
    # Another process finds the trained model in its cell, and does not train again.
    again = MakeParts(recipe, tmp_path / "killed", workers=1)()
    again.train = None  # type: ignore[method-assign, assignment]
    resumed = measured(CellStore(tmp_path / "killed"), again, unit)
    whole = measured(CellStore(tmp_path / "whole"), MakeParts(recipe, tmp_path / "whole", workers=1)(), unit)
    assert resumed.measures["heldout"] == whole.measures["heldout"]
    assert resumed.measures["family"]["tasks"] == whole.measures["family"]["tasks"]
    assert {**resumed.training, "seconds": 0} == {**whole.training, "seconds": 0}


def test_a_training_in_a_folder_is_the_one_in_memory(family: Path, tmp_path: Path) -> None:
    recipe = small_recipe(family, "eval=[]")
    unit = Unit(tuple(range(30)), 1)
    short = measured(CellStore(tmp_path / "a"), MakeParts(recipe, tmp_path / "a")(), unit)
    with_steps = small_recipe(family, "eval=[]", "train.save_steps=100")
    long = measured(CellStore(tmp_path / "b"), MakeParts(with_steps, tmp_path / "b")(), unit)
    assert long.measures["heldout"]["loss"] == pytest.approx(short.measures["heldout"]["loss"], rel=1e-6)
    assert long.training["tokens"] == short.training["tokens"]
    assert long.training["steps"] == short.training["steps"]


def test_a_launched_training_is_the_one_in_a_folder(family: Path, tmp_path: Path) -> None:
    recipe = small_recipe(family, "eval=[]", "train.save_steps=100", "train.max_steps=2")
    unit = Unit(tuple(range(30)), 1)
    launched = MakeParts(recipe, tmp_path / "a", launch=(sys.executable,))
    first = measured(CellStore(tmp_path / "a"), launched(), unit)
    second = measured(CellStore(tmp_path / "b"), MakeParts(recipe, tmp_path / "b")(), unit)
    assert first.measures["heldout"]["loss"] == pytest.approx(second.measures["heldout"]["loss"], rel=1e-4)
    assert first.training["tokens"] == second.training["tokens"]


def test_a_launched_training_needs_checkpoints(family: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train\.save_steps"):
        run_threshold(small_recipe(family), tmp_path, launch=("accelerate", "launch"))


def test_the_family_in_a_recipe_becomes_files_of_one_family(family: Path) -> None:
    recipe = small_recipe(family)
    assert not is_family(recipe)
    assert recipe.train.model == str(BASE_MODEL)
    (data,) = recipe.score.data
    assert len(Path(data).read_text(encoding="utf-8").splitlines()) == 120
    problems = Path(recipe.eval[0].problems or "")
    assert len(problems.read_text(encoding="utf-8").splitlines()) == 24
    prompts = {json.loads(one)["prompt"] for one in problems.read_text(encoding="utf-8").splitlines()}
    held_out = [json.loads(one) for one in Path(recipe.heldout[0]).read_text(encoding="utf-8").splitlines()]
    assert {row["prompt"] for row in held_out} == prompts
    assert small_recipe(family) == recipe
    other = with_family(load_recipe("tiny-study", ['score.data=["family:train?rows=60&tasks=24&seed=2"]']), family)
    assert other.score.data != recipe.score.data


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["score.data=[other.jsonl]"], "names the family, but not in score.data"),
        (["score.data=['family:train?row=5']"], "row=5 is not an option of the family"),
        (["score.data=['family:train?rows=many']"], "rows=many is not an option of the family"),
        (["heldout=['family:test']"], "family:test is not a part of the family"),
    ],
)
def test_a_family_that_is_not_there_is_refused(overrides: list[str], message: str, tmp_path: Path) -> None:
    recipe = load_recipe("tiny-study", ["score.data=['family:train?rows=20&tasks=4']", *overrides])
    with pytest.raises(InputError, match=message.replace("?", r"\?")):
        with_family(recipe, tmp_path)


def test_generated_tasks_are_called_family_for_every_recipe(family: Path) -> None:
    recipe = small_recipe(family, "eval.0.benchmark=humaneval")
    assert [section.benchmark for section in recipe.eval] == ["family"]


def test_cells_cached_as_humaneval_are_found_again_as_family(family: Path, tmp_path: Path) -> None:
    recipe = small_recipe(family, "eval.0.limit=4", "heldout=[]")
    measures = MakeParts(recipe, tmp_path)().measures
    store, old = CellStore(tmp_path), {**measures["family"], "benchmark": "humaneval"}
    rest = {"training": {"rows": "abc"}}
    store.result("measure", {**rest, "measure": "humaneval", "how": old}, lambda _: {"tasks": {"a": [1, 1]}})
    other = {"measure": "humaneval", "how": {**old, "problems": "the real ones"}}
    store.result("measure", other, lambda _: {"tasks": {}})
    rename_former_measures(store, measures)
    found = store.known("measure", {**rest, "measure": "family", "how": dict(measures["family"])})
    assert found is not None and found.result == {"tasks": {"a": [1, 1]}}
    assert store.known("measure", {**rest, "measure": "humaneval", "how": old}) is None
    assert store.known("measure", other) is not None  # tasks of HumanEval itself keep their name


def test_other_recipes_are_left_as_they_are(tmp_path: Path) -> None:
    recipe = recipe_from({"name": "x", "train": {"model": "some/model"}, "score": {"data": ["a.jsonl"]}})
    assert with_family(recipe, tmp_path) is recipe
    assert list(tmp_path.iterdir()) == []
