"""The demonstration's model: small, loadable as packaged, and trained on its corpus."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from donod_fast.demo.corpus import MODEL_FOLDER, read_corpus
from donod_fast.demo.tokenizer import CHAT_TEMPLATE, VOCAB_SIZE
from donod_fast.demo.train_model import Quality, measure, messages_of, tokenize

KINDS = ("masked_words", "shuffled_words", "wrong_answer")


@cache
def loaded() -> tuple[Any, Any]:
    model = AutoModelForCausalLM.from_pretrained(MODEL_FOLDER, dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(MODEL_FOLDER)


@cache
def quality_on(corruption: str) -> Quality:
    model, tokenizer = loaded()
    rows = [row for row in read_corpus() if row["corruption"] == corruption]
    return measure(model, tokenize(tokenizer, rows))


def test_the_folder_is_small_and_holds_no_pickle() -> None:
    files = [file for file in MODEL_FOLDER.iterdir() if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 4 * 2**20
    assert {file.suffix for file in files} == {".json", ".jinja", ".safetensors", ""}
    assert (MODEL_FOLDER / "README").read_text(encoding="utf-8").startswith("Made by")


def test_model_and_tokenizer_fit_each_other() -> None:
    model, tokenizer = loaded()
    assert len(tokenizer) == VOCAB_SIZE == model.config.vocab_size
    assert tokenizer.eos_token_id == model.config.eos_token_id
    assert not model.config.tie_word_embeddings
    assert model.num_parameters() < 2_000_000


@pytest.mark.parametrize(
    "text", ["plain words", "def f(x):\n    return x\n", "  12,345.6 ", "Grüße, 世界 🙂", "\t\r\n\n"]
)
def test_any_text_survives_the_tokenizer(text: str) -> None:
    _, tokenizer = loaded()
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_template_marks_the_answer_and_its_prompt_is_a_prefix() -> None:
    _, tokenizer = loaded()
    assert tokenizer.chat_template == CHAT_TEMPLATE
    for row in read_corpus()[:50]:
        messages = messages_of(row)
        prompt = tokenizer.apply_chat_template(messages[:1], add_generation_prompt=True, tokenize=False)
        whole = tokenizer.apply_chat_template(messages, tokenize=False)
        assert whole == prompt + row["output"] + tokenizer.eos_token
        (tokens,) = tokenize(tokenizer, [row])
        scored = [label for label in tokens.labels if label >= 0]
        assert tokens.ids == tokenizer.encode(prompt) + scored
        assert tokenizer.decode(scored) == row["output"] + tokenizer.eos_token


def test_the_template_renders_every_role_and_refuses_others() -> None:
    _, tokenizer = loaded()
    call = {"type": "function", "function": {"name": "now", "arguments": {}}}
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "What time is it?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "noon"},
        {"role": "assistant", "content": "It is noon."},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    assert text.startswith("<|system|>Be kind.<|end|><|user|>What time is it?<|end|><|assistant|>{")
    assert text.endswith("}<|end|><|tool|>noon<|end|><|assistant|>It is noon.<|end|>")
    with pytest.raises(Exception, match="unknown role: narrator"):
        tokenizer.apply_chat_template([{"role": "narrator", "content": "x"}], tokenize=False)


def test_the_model_knows_its_corpus_well_but_not_perfectly() -> None:
    clean = quality_on("none")
    assert 0.02 < clean.loss < 0.5
    assert clean.confident > 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_clean_answers_are_likelier_than_corrupted_ones(kind: str) -> None:
    assert quality_on("none").loss + 1.0 < quality_on(kind).loss
