"""Our numbers are those of lm-eval run by hand: same files, its own evaluator, its own loading of the model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from eval_cases import DATA, MODEL
from harness_by_hand import by_hand_model, questions_by_hand, responses_by_hand

from donod_fast.evaluation.harness import measure
from donod_fast.evaluation.harness.agieval import SETS
from donod_fast.models.loading import LoadedModel, load_model

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not (MODEL.is_dir() and (DATA / "agieval").is_dir()), reason="shared data are absent"),
]
FOLDER, FILE = DATA / "agieval", DATA / "ifeval" / "input_data.jsonl"


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The run by hand caches its data set on disk."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model(MODEL, device="cpu")


@pytest.fixture(scope="module")
def by_hand() -> Iterator[Any]:
    yield by_hand_model(MODEL)


@pytest.mark.parametrize("name", SETS)
def test_loglikelihoods_and_accuracies_equal(name: str, loaded: LoadedModel, by_hand: Any, tmp_path: Path) -> None:
    limit = 1 if name in ("lsat-rc", "sat-en") else 2
    wanted = questions_by_hand(by_hand, FOLDER, tmp_path, name, limit=limit)
    found = measure(loaded, "agieval", FOLDER, sets=(name,), limit=limit, out=tmp_path / "out")
    _assert_equal(name, wanted, found, tmp_path / "out")


@pytest.mark.parametrize("chat", [False, True])
def test_few_shot_prompts_equal(chat: bool, loaded: LoadedModel, by_hand: Any, tmp_path: Path) -> None:
    wanted = questions_by_hand(by_hand, FOLDER, tmp_path, "aqua-rat", limit=1, few_shot=2, chat=chat)
    found = measure(
        loaded, "agieval", FOLDER, sets=("aqua-rat",), limit=1, few_shot=2, chat_template=chat, out=tmp_path / "out"
    )
    _assert_equal("aqua-rat", wanted, found, tmp_path / "out")


def test_responses_equal(loaded: LoadedModel, by_hand: Any, tmp_path: Path) -> None:
    wanted = responses_by_hand(by_hand, FILE, tmp_path, limit=4, tokens=12)
    measure(loaded, "ifeval", FILE, limit=4, max_new_tokens=12, batch_rows=4, out=tmp_path / "out")
    assert [one["response"] for one in _items(tmp_path / "out")] == wanted
    assert any(wanted)


def test_model_and_tokenizer_stay_as_they_were(loaded: LoadedModel) -> None:
    before = (loaded.tokenizer.pad_token, loaded.tokenizer.padding_side, loaded.model.training)
    measure(loaded, "agieval", FOLDER, sets=("aqua-rat",), limit=1, style="generate", max_new_tokens=2)
    assert (loaded.tokenizer.pad_token, loaded.tokenizer.padding_side, loaded.model.training) == before


def _assert_equal(name: str, wanted: Any, found: Any, out: Path) -> None:
    lines = sorted(_items(out), key=lambda one: one["item"])
    for line, sums in zip(lines, wanted["loglikelihoods"], strict=True):
        assert line["loglikelihoods"] == pytest.approx(sums, rel=1e-5, abs=1e-4)
    assert found["sets"][name]["acc"] == wanted["acc"] and found["sets"][name]["acc_norm"] == wanted["acc_norm"]


def _items(folder: Path) -> list[dict[str, Any]]:
    from donod_fast.evaluation.harness.folder import HarnessFolder

    return HarnessFolder(folder).items()
