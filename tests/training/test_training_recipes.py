"""Recipes: read strictly, refused with file, key and remedy, overridden from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from donod_fast.data.settings import MaskSettings
from donod_fast.errors import InputError
from donod_fast.scoring.settings import UpdateSettings
from donod_fast.system.yaml_files import read_yaml
from donod_fast.training import TrainSettings, apply_overrides, load_recipe, recipe_names
from donod_fast.training.recipe import ScoreSection

BASE = "name: mine\ntrain:\n  model: some/model\n"


def written(folder: Path, text: str) -> Path:
    file = folder / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_the_defaults_are_those_of_the_paper() -> None:
    settings = TrainSettings(model="m")
    assert (settings.global_batch, settings.micro_batch, settings.learning_rate) == (16, 1, 2e-5)
    assert (settings.optimizer, settings.warmup_ratio, settings.weight_decay) == ("adamw_torch", 0.025, 0.0)


def test_every_packaged_recipe_loads() -> None:
    assert {"tiny", "llama-2-7b-code", "llama-3.1-8b-gsm8k"} <= set(recipe_names())
    for name in recipe_names():
        assert load_recipe(name).name


def test_the_llama_2_recipe_has_the_papers_settings_and_both_benchmarks() -> None:
    recipe = load_recipe("llama-2-7b-code")
    assert recipe.train.model == "meta-llama/Llama-2-7b-hf"
    assert recipe.train.learning_rate == 2e-5 and recipe.train.global_batch == 16
    assert [section.benchmark for section in recipe.eval] == ["humaneval", "mbpp"]
    assert {"all", "random", "don", "nod", "topsis", "loss"} <= set(recipe.study.methods)


def test_what_the_tiny_recipe_names_comes_with_the_package() -> None:
    recipe = load_recipe("tiny")
    assert (Path(recipe.train.model) / "config.json").is_file()
    assert all(Path(name).is_file() for name in recipe.score.data)


def test_numbers_may_be_written_as_people_write_them(tmp_path: Path) -> None:
    file = written(tmp_path, BASE + "  learning_rate: 1e-4\n  warmup_ratio: 0\n  adam_epsilon: 1E-6\n")
    train = load_recipe(file).train
    assert (train.learning_rate, train.warmup_ratio, train.adam_epsilon) == (1e-4, 0.0, 1e-6)


def test_relative_paths_are_relative_to_the_recipe_and_hub_ids_stay(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "config.json").touch()
    file = written(
        tmp_path,
        "name: mine\nscore:\n  model: org/name\n  data: [rows.jsonl, org/corpus, /abs/x.jsonl]\n"
        "train:\n  model: weights\nheldout: [../held.jsonl]\neval:\n- benchmark: humaneval\n  problems: p.jsonl.gz\n",
    )
    recipe = load_recipe(file)
    assert recipe.train.model == str(tmp_path / "weights")
    assert recipe.score.model == "org/name"
    assert recipe.score.data == (str(tmp_path / "rows.jsonl"), "org/corpus", "/abs/x.jsonl")
    assert Path(recipe.heldout[0]).resolve() == tmp_path.parent / "held.jsonl"
    assert recipe.eval[0].problems == str(tmp_path / "p.jsonl.gz")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BASE + "  learnin_rate: 1\n", ["mine.yaml", "train.learnin_rate", "did you mean learning_rate"]),
        (BASE + "  epochs: many\n", ["mine.yaml", "train.epochs", "number", '"many"']),
        (BASE + "  epochs: true\n", ["train.epochs", "number"]),
        (BASE + "  seed: '3'\n", ["train.seed", "integer"]),
        (BASE + "  micro_batch: 3\n", ["train", "global_batch 16 is not a multiple of micro_batch 3"]),
        (BASE + "  method: dora\n", ["train.method", "'full', 'lora' or 'qlora'"]),
        (BASE + "  learning_rate: .inf\n", ["train.learning_rate", "finite"]),
        (BASE + "  model: twice\n", ["given twice"]),
        (BASE + "study:\n  keeps: [0.1, 2]\n", ["study.keeps.1", "less than or equal to 1"]),
        (BASE + "eval:\n- benchmark: x\n  pass_at: [10]\n", ["eval.0", "samples_per_task is 1"]),
        (BASE + "training: {}\n", ["training is not a known key", "train"]),
        ("name: mine\n", ["train is missing"]),
        ("- a\n", ["has no sections"]),
        ("a: [", ["not valid YAML"]),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        load_recipe(written(tmp_path, text))
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("character", ["\U0001d11e", "\U000e0041", "\ud800", "\udc00\ud800"])
def test_characters_that_json_writes_in_two_halves_are_read(tmp_path: Path, character: str) -> None:
    file = written(tmp_path, json.dumps({"a": character}))
    assert read_yaml(file, "the file") == {"a": character}
    for values in ({character: 1}, {"name": "x", "train": {"model": "m", character: 1}}):
        with pytest.raises(InputError, match="half of a character" if "\ud800" in character else "is not a known key"):
            load_recipe(written(tmp_path, json.dumps(values)))


def test_an_unknown_recipe_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(InputError, match=r"llama-2-7b-code.*tiny"):
        load_recipe("llama-2")


def test_overrides_replace_values_of_any_kind_and_leave_the_recipe_alone() -> None:
    recipe = load_recipe("llama-2-7b-code")
    changed = apply_overrides(
        recipe,
        [
            "train.learning_rate=1e-4",
            "eval.1.limit=20",
            "study.seeds=[5]",
            "train.save_steps=null",
            "train.lora.rank=4",
        ],
    )
    assert changed.train.learning_rate == 1e-4 and changed.train.save_steps is None and changed.train.lora.rank == 4
    assert changed.eval[1].limit == 20 and changed.study.seeds == (5,)
    assert recipe.train.learning_rate == 2e-5 and recipe.eval[1].limit is None
    assert apply_overrides(recipe, []) == recipe


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.learning_rate", ["write a key and a value"]),
        ("train.lora.rnk=3", ["--set train.lora.rnk", "did you mean rank"]),
        ("eval.7.limit=3", ["eval.7.limit", "items count from 0"]),
        ("train.seed.x=3", ["train.seed is a value"]),
        ("train.max_steps=0", ["--set train.max_steps", "greater than or equal to 1"]),
    ],
)
def test_a_wrong_override_is_named(override: str, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        apply_overrides(load_recipe("llama-2-7b-code"), [override])
    assert all(word in str(caught.value) for word in words), caught.value


def test_defaults_of_scoring_are_those_of_the_command() -> None:
    assert ScoreSection().update_settings() == UpdateSettings()
    assert ScoreSection().masks() == TrainSettings(model="m").masks() == MaskSettings()


def test_records_are_read_as_in_scoring(tmp_path: Path) -> None:
    lines = "  columns: prompt=q,response=a\n  text_only: true\n"
    recipe = load_recipe(written(tmp_path, BASE + lines + "score:\n  preference: rejected\n"))
    assert recipe.train.masks() == MaskSettings(columns="prompt=q,response=a", text_only=True)
    assert recipe.score.masks() == MaskSettings(preference="rejected")
    # Recipes without these settings describe what they described before.
    for section in (TrainSettings(model="m"), ScoreSection()):
        assert not {"columns", "preference", "text_only"} & set(section.model_dump())
    for wrong in ("  columns: promt=q\n", "  preference: both\n", "  columns: text=x\n  format: text\n"):
        with pytest.raises(InputError, match=r"prompt|chosen|--format"):
            load_recipe(written(tmp_path, BASE + wrong))
