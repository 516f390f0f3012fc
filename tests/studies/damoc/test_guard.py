"""The guard: BERTScore with a real model, compared with the bert-score package, also beyond the model's length."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_models import save_tiny
from transformers import AutoModel, AutoTokenizer

from donod_fast.errors import InputError, ModelError
from donod_fast.studies.damoc.guard import BertScoreGuard

ORIGINALS = [
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May.",
    "Write a function that returns the sum of the even numbers in a list.",
    "Describe the taste of an apple.",
    "Sort these words by length.",
]
SHORTENED = [
    "Natalia sold clips 48 friends April, half May",
    "function returns sum even numbers list",
    "taste apple",
    "Count letters of word.",
]


@pytest.fixture(scope="module")
def guard(minilm: Path) -> BertScoreGuard:
    return BertScoreGuard(minilm, device="cpu", batch_size=3)


@pytest.mark.parametrize("layer", [6, 3])
def test_f1_is_that_of_the_package(guard: BertScoreGuard, minilm: Path, layer: int) -> None:
    package = pytest.importorskip("bert_score", reason="bert-score is not installed (development extras)")
    theirs = package.BERTScorer(model_type=str(minilm), num_layers=layer, device="cpu", batch_size=4)
    ours = guard if layer == 6 else BertScoreGuard(minilm, device="cpu", layer=layer)
    wanted = theirs.score(SHORTENED, ORIGINALS)[2].tolist()
    # Of pairs with no negative cosine at its best: the package takes 0 instead, from what it pads with.
    assert ours.f1(ORIGINALS, SHORTENED) == pytest.approx(wanted, abs=1e-5)
    assert wanted[0] > wanted[3]  # a real model: what is left of a text is nearer to it than another


def test_f1_is_that_of_the_formula_token_by_token(guard: BertScoreGuard, minilm: Path) -> None:
    model, tokenizer = AutoModel.from_pretrained(minilm).double().eval(), AutoTokenizer.from_pretrained(minilm)
    states = []
    for text in (ORIGINALS[0], SHORTENED[0]):
        with torch.no_grad():
            states.append(model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0])

    def mean_best(one: torch.Tensor, other: torch.Tensor) -> float:
        best = [max(float(torch.cosine_similarity(a, b, dim=0)) for b in other) for a in one[1:-1]]  # no [CLS], [SEP]
        return sum(best) / len(best)

    precision, recall = mean_best(states[1], states[0]), mean_best(*states)
    wanted = 2 * precision * recall / (precision + recall)
    assert guard.f1(ORIGINALS[:1], SHORTENED[:1]) == pytest.approx([wanted], abs=1e-5)


def test_the_same_text_is_1_and_a_text_without_a_token_is_0(guard: BertScoreGuard) -> None:
    assert guard.f1([ORIGINALS[0], ORIGINALS[0], "", "a \ud800"], [ORIGINALS[0], "", "a", "a \ud800"]) == pytest.approx(
        [1.0, 0.0, 0.0, 1.0], abs=1e-5
    )
    assert guard.f1([], []) == []


def test_beyond_the_models_length_the_rest_counts_too(guard: BertScoreGuard) -> None:
    begin, end = "one apple and two pears. " * 100, "The sailor told a story about winter storms. " * 30
    [cut, whole] = guard.f1([begin + end] * 2, [begin, begin + end])
    assert whole == pytest.approx(1.0, abs=1e-5)
    assert cut < 0.95  # its first window is the same, which is all that a guard cut at 512 tokens would see


def test_a_decoder_serves_as_well(tmp_path: Path) -> None:
    decoder = BertScoreGuard(save_tiny("llama", tmp_path / "tiny"), device="cpu")
    [same, other] = decoder.f1(["abc def", "abc def"], ["abc def", "xyz"])
    assert same == pytest.approx(1.0, abs=1e-5) and other < same


def test_a_bad_guard_is_named(minilm: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"-1 to 1, got 1\.5"):
        BertScoreGuard(minilm, least_f1=1.5)
    with pytest.raises(InputError, match="hidden states 0 to 6, not 7"):
        BertScoreGuard(minilm, layer=7, device="cpu")
    with pytest.raises(ModelError, match="guard's model cannot be loaded"):
        BertScoreGuard(tmp_path)
    with pytest.raises(InputError, match="1 originals, but 2"):
        BertScoreGuard(minilm, device="cpu").f1(["a"], ["a", "b"])
