"""What the paper says is sourced, and a run is comparable only if nothing stands in the way."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from donod_fast.studies.paper.published import (
    GRID,
    ITEMS,
    NOISE,
    UNKNOWN,
    Ran,
    facts,
    is_model,
    verdict,
)

PAPERS = Ran(
    scored_by=["meta-llama/Llama-3.1-8B-Instruct"],
    trained=["meta-llama/Llama-3.1-8B-Instruct"],
    corpora=["math", "/data/gsm8k/train.jsonl"],
    shares=[0.1, 0.3],
    is_whole=True,
    benchmarks=["agieval", "ifeval"],
    sections=[GRID, NOISE],
)
ITEM = {item.name: item for item in ITEMS}


def test_a_number_of_the_paper_has_a_source_and_stands_in_its_text() -> None:
    numbers = facts()
    assert {fact.value for fact in numbers.values()} == {14.90, 5.67, 0.387}
    for item in ITEMS:
        for fact in item.facts:
            assert fact.source
            if fact.value is None:
                assert "no numbers" in fact.text
            else:
                assert str(fact.value).rstrip("0") in fact.text


def test_a_run_in_the_papers_setting_is_comparable_where_numbers_are_known() -> None:
    assert verdict(ITEM["Abstract, accuracy"], PAPERS).comparable
    assert verdict(ITEM["§4.4"], PAPERS).comparable
    for item in ITEMS:
        if not any(fact.value is not None for fact in item.facts):
            found = verdict(item, replace(PAPERS, sections=[item.section]))
            assert not found.comparable and UNKNOWN in found.text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"trained": ["smollm2"], "scored_by": ["smollm2"]}, "another model (smollm2)"),
        ({"corpora": ["alpaca", "alpaca.json"]}, "another corpus than gsm8k"),
        ({"shares": [0.2]}, "no selection keeps 30 %"),
        ({"is_whole": False}, "parts of the corpora"),
        ({"benchmarks": ["agieval"]}, "no accuracy on the whole"),
        ({"sections": []}, "no such part"),
    ],
)
def test_each_difference_is_a_reason(change: dict[str, object], words: str) -> None:
    found = verdict(ITEM["Abstract, accuracy"], replace(PAPERS, **change))  # type: ignore[arg-type]
    assert not found.comparable
    assert re.search(re.escape(words), found.text) and len(found.reasons) == 1


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", True),
        ("meta-llama/Meta-Llama-3.1-8B-Instruct/", True),
        ("/models/llama-3.1-8b-instruct", True),
        ("meta-llama/Llama-3.1-8B", False),
        ("someone/Llama-3.1-8B-Instruct-abliterated", False),
    ],
)
def test_a_model_is_known_by_the_last_part_of_its_name(name: str, same: bool) -> None:
    assert is_model(name, "llama-3.1-8b-instruct") is same
