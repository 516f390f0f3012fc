"""Embeddings of questions by a real sentence model, and texts that cannot be embedded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from donod_fast.data.formats import to_sample
from donod_fast.data.types import Record, SampleError
from donod_fast.errors import InputError, ModelError
from donod_fast.models.sentence_embeddings import embed_texts, load_embedder, question_text, unit_rows

pytest.importorskip("sentence_transformers", reason="the extra `criteria` is not installed")

TEXTS = ["Ann has 3 cats. How many legs do they have?", "Three cats: how many legs?", "Sort this list.", ""]


@pytest.fixture(scope="module")
def embedder(minilm: Path) -> Any:
    return load_embedder(minilm, device="cpu")


def test_embeddings_are_the_mean_pooled_states_of_length_one(embedder: Any, minilm: Path) -> None:
    found = embed_texts(TEXTS, embedder)
    assert found.dtype == np.float32 and found.shape == (4, 384)
    model, tokenizer = AutoModel.from_pretrained(minilm).double().eval(), AutoTokenizer.from_pretrained(minilm)
    for text, vector in zip(TEXTS, found, strict=True):
        with torch.no_grad():
            mean = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0).numpy()
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=2e-6)
    assert found[0] @ found[1] > 0.6 > found[0] @ found[2]  # a real model: like questions are alike


def test_no_text_gives_no_row_and_a_lone_surrogate_is_no_error(embedder: Any) -> None:
    assert embed_texts([], embedder).shape == (0, 384)
    assert np.isfinite(embed_texts(["broken \ud800 text"], embedder)).all()
    with pytest.raises(InputError, match="text 1 to embed is a NoneType"):
        embed_texts(["a", None], embedder)  # type: ignore[list-item]


@pytest.mark.parametrize("name", ["/no/such/folder", "./nothing", "a/b/c", Path("nothing")])
def test_a_model_that_is_not_there_is_named(name: str | Path) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        embed_texts(["a"], name)


def test_a_folder_that_holds_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nothing-known"}), encoding="utf-8")
    with pytest.raises(ModelError, match="cannot be loaded as a sentence-transformers model"):
        load_embedder(tmp_path)


def test_unit_rows_work_at_any_scale_and_name_a_row_without_a_direction() -> None:
    rows = np.array([[3e-200, 4e-200], [3e200, 4e200], [-3.0, 4.0]])
    np.testing.assert_allclose(unit_rows(rows), [[0.6, 0.8], [0.6, 0.8], [-0.6, 0.8]], rtol=1e-6)
    for wrong in ([0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0]):
        with pytest.raises(ModelError, match="embedding 1 has no direction"):
            unit_rows(np.array([[1.0, 0.0], wrong]))
    with pytest.raises(InputError, match="shape"):
        unit_rows(np.array([["a", "b"]]))


def test_the_question_is_what_is_asked_and_no_more() -> None:
    def question(**data: Any) -> str:
        return question_text(to_sample(Record(0, "f", "p", data))[0])

    assert question(question="Q?", answer="A") == "Q?"
    assert question(instruction="Do.", input="This.", output="A", system="S") == "Do.\n\nThis."
    assert question(prompt="P", completion="C") == "P"
    assert question(text="T") == "T"
    turns = [{"role": role, "content": f"{role}{at}"} for at, role in enumerate(("system", "user", "assistant") * 2)]
    turns.pop(3)
    assert question(messages=turns) == "user1\n\nuser4"
    with pytest.raises(SampleError, match="no text"):
        question(input_ids=[1, 2], labels=[1, 2])
