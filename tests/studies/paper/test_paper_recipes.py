"""Recipes of ``study paper``: the packaged ones load; a wrong field is named; both domains must be measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from paper_recipes import paper_values, write_rows

from donod_fast.errors import InputError
from donod_fast.studies.paper.recipe import load_paper_recipe, paper_recipe_from, paper_recipe_names
from donod_fast.training.recipe_files import recipe_names


def test_every_packaged_recipe_loads_and_measures_both_domains() -> None:
    names = paper_recipe_names()
    assert {"paper-tiny", "paper-smollm2", "paper-llama-3.1-8b", "paper-llama-2-7b-code"} <= set(names)
    for name in names:
        recipe = load_paper_recipe(name)
        assert recipe.name == name
        for pool in recipe.pools:
            assert any(held.domain == pool.domain for held in recipe.heldouts) or recipe.benchmarks
            assert any(held.domain != pool.domain for held in recipe.heldouts)


def test_recipes_of_training_and_of_the_paper_are_apart() -> None:
    assert not set(recipe_names()) & set(paper_recipe_names())
    with pytest.raises(InputError, match=r"paper-tiny"):
        load_paper_recipe("tiny")


def test_set_replaces_the_model_and_a_corpus(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "own.jsonl", [{"question": "1?", "answer": "1"}])
    recipe = load_paper_recipe("paper-smollm2", ["models.0.model=/own/model", f"pools.0.data=[{data}]"])
    assert recipe.models[0].model == "/own/model" and recipe.pools[0].data == (data,)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"methods": ["topsis", "topsiss"]}, r"methods.*topsiss"),
    ({"methods": ["random"]}, r"methods.*random is always there"),
    ({"methods": []}, r"methods"),
    ({"methods": ["nod", "nod"]}, r"methods.*nod is there twice"),
    ({"shares": [0.3, 1.0]}, r"shares.*below 1"),
    ({"shares": [0.0]}, r"shares\.0"),
    ({"seeds": [0]}, r"seeds"),
    ({"seeds": [1, 1]}, r"seeds.*twice"),
    ({"random": {"draws": 4}}, r"random\.draws"),
    ({"random": {"kinds": ["rows", "rows"]}}, r"random.*twice"),
    ({"random": {"kinds": ["row"]}}, r"random\.kinds\.0"),
    ({"random": {"seeds_each": 3}}, r"seeds_each"),
    ({"pairs": [{"score": "demo", "train": "other"}]}, r"pairs\.0\.train is other"),
    ({"models": []}, r"models"),
    ({"tuning": {"method": "qlora"}}, r"tuning\.method"),
    ({"tuning": {"learning_rat": 1e-4}}, r"learning_rat is not a known key; did you mean learning_rate"),
    ({"benchmarks": [{"benchmark": "humanevl", "domains": ["code"]}]}, r"benchmarks\.0\.benchmark"),
    ({"benchmarks": [{"benchmark": "ifeval", "domains": ["code"]}]}, r"benchmarks\.0 names no problems"),
    ({"noise": {"rows": 5}}, r"noise\.rows"),
    ({"nosie": {}}, r"nosie is not a known key; did you mean noise"),
]


@pytest.mark.parametrize(("change", "words"), WRONG, ids=[words for _, words in WRONG])
def test_a_wrong_field_is_named(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        paper_recipe_from(paper_values(tmp_path, **change))


@pytest.mark.parametrize("domains", [("math", "math"), ("code", "instructions")])
def test_a_study_of_one_domain_alone_is_refused(domains: tuple[str, str], tmp_path: Path) -> None:
    values = paper_values(tmp_path)
    for held, domain in zip(values["heldouts"], domains, strict=True):
        held["domain"] = domain
    with pytest.raises(InputError, match=r"name held-out rows"):
        paper_recipe_from(values)


@pytest.mark.parametrize("field", ["models", "pools", "heldouts"])
def test_two_sections_of_one_name_are_refused(field: str, tmp_path: Path) -> None:
    values = paper_values(tmp_path)
    values[field] = [values[field][0], values[field][0]]
    with pytest.raises(InputError, match=field):
        paper_recipe_from(values)


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "two words"])
def test_a_name_that_is_no_file_name_is_refused(name: str, tmp_path: Path) -> None:
    values = paper_values(tmp_path)
    values["pools"][0]["name"] = name
    with pytest.raises(InputError, match=r"pools\.0\.name"):
        paper_recipe_from(values)


@pytest.mark.parametrize(
    ("pool", "held", "meet"),
    [
        ({}, {}, True),
        ({"rows": 10}, {"skip": 10}, False),
        ({"rows": 10}, {"skip": 9}, True),
        ({"skip": 20}, {"rows": 20}, False),
        ({"skip": 20}, {"rows": 21}, True),
        ({"skip": 5, "rows": 5}, {"skip": 10, "rows": 5}, False),
    ],
)
def test_held_out_rows_of_the_same_file_must_be_others(
    pool: dict[str, int], held: dict[str, int], meet: bool, tmp_path: Path
) -> None:
    values = paper_values(tmp_path)
    values["pools"][0] |= pool
    values["heldouts"][0] |= {"data": values["pools"][0]["data"], **held}
    if meet:
        with pytest.raises(InputError, match=r"sums-test are among those of sums"):
            paper_recipe_from(values)
    else:
        paper_recipe_from(values)
