"""Compression: token losses against the model's own logits, kept words, formats, the guard and rewriters."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import tiny_model, tiny_tokenizer
from tokenizers.processors import TemplateProcessing

from donod_fast.data.masking import MaskSettings
from donod_fast.data.reading import open_corpus
from donod_fast.demo.corpus import CORPUS_FILE, MODEL_FOLDER
from donod_fast.errors import InputError
from donod_fast.scoring.scorer import Scorer
from donod_fast.studies.damoc.compression import Compressed, compress_records
from donod_fast.studies.damoc.fields import read_fields
from donod_fast.studies.damoc.guard import BertScoreGuard
from donod_fast.studies.damoc.rewriters import Rewriter
from donod_fast.studies.damoc.token_losses import TokenLosses
from donod_fast.studies.damoc.words import join_words, split_words

SHARED = Path(__file__).parents[3].parent / "shared"
LONG = "In the old harbour a sailor told the children a long story about storms and whales"


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer.from_pretrained(MODEL_FOLDER, token_budget=512, device="cpu")


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    found = [dict(record.data or {}) for record in open_corpus([str(CORPUS_FILE)]).records()]
    return [row for row in found[:60] if row["input"]][:12]


class FixedGuard:
    """Refuses the texts that hold one of these words."""

    least_f1 = 0.9

    def __init__(self, *refused: str) -> None:
        self.refused = refused

    def f1(self, originals: Sequence[str], shortened: Sequence[str]) -> list[float]:
        return [0.5 if any(word in text for word in self.refused) else 0.95 for text in shortened]


def compressed(scorer: Scorer, record: dict[str, Any], **options: Any) -> Compressed:
    return compress_records([record], scorer, **options)[0]


def true_losses(scorer: Scorer, text: str) -> list[tuple[int, int, float]]:
    """Each token's place and −log p by the whole model's own logits, in float64."""
    found = scorer.loaded.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids = torch.tensor([found["input_ids"]])
    with torch.no_grad():
        logits = scorer.loaded.model(input_ids=ids).logits[0].double()
    losses = -torch.log_softmax(logits, -1)[:-1].gather(1, ids[0, 1:, None])[:, 0]
    return [(*place, loss) for place, loss in zip(found["offset_mapping"], [math.nan, *losses.tolist()], strict=True)]


def rendered(scorer: Scorer, row: dict[str, Any]) -> str:
    user = f"{row['instruction']}\n\n{row['input']}"
    turns = [{"role": "user", "content": user}, {"role": "assistant", "content": row["output"]}]
    return str(scorer.loaded.tokenizer.apply_chat_template(turns, tokenize=False))


def test_a_tokens_loss_is_the_models_loss_given_all_earlier_tokens(scorer: Scorer, rows: list[dict[str, Any]]) -> None:
    losses = TokenLosses(scorer)
    records = []
    for at, row in enumerate(rows):
        sample, fields = read_fields(row, at)
        records.append(losses.render(sample, fields, ("instruction", "input", "response")))
    for row, record, found in zip(rows, records, losses.measure(records), strict=True):
        assert isinstance(found, list) and record.text == rendered(scorer, row)
        measured = 0
        for (first, last, loss), (_, _, wanted) in zip(found, true_losses(scorer, record.text), strict=True):
            inside = any(first < end and last > start for start, end in record.spans)
            assert math.isnan(loss) != inside
            if inside:
                measured += 1
                assert loss == pytest.approx(wanted, rel=1e-3, abs=1e-4)
        assert measured > 10


def test_with_a_beginning_of_text_token_the_first_word_has_a_loss() -> None:
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    begin = ("<|user|>", tokenizer.convert_tokens_to_ids("<|user|>"))
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<|user|> $A", special_tokens=[begin])
    losses = TokenLosses(Scorer(model, tokenizer, token_budget=256))
    sample, fields = read_fields({"text": "a b, c"}, 0)
    [found] = losses.measure([losses.render(sample, fields, ("response",))])
    ids = torch.tensor([tokenizer("a b, c")["input_ids"]])
    assert ids[0, 0] == begin[1] and isinstance(found, list)
    with torch.no_grad():
        wanted = -torch.log_softmax(model(input_ids=ids).logits[0].double(), -1)[:-1].gather(1, ids[0, 1:, None])[:, 0]
    assert [loss for *_, loss in found] == pytest.approx(wanted.tolist(), rel=1e-4)


def test_words_of_lowest_loss_are_removed_until_half_of_the_tokens_remain(scorer: Scorer) -> None:
    row = {"instruction": "Read the story and tell me in a few words of your own", "input": LONG, "output": "A sailor."}
    text = rendered(scorer, row)
    tokens = true_losses(scorer, text)
    found = compressed(scorer, row, ratio=0.5)
    for name in ("instruction", "input"):
        words, place = [], text.index(row[name])
        for word in row[name].split(" "):
            own = [loss for first, last, loss in tokens if first < place + len(word) and last > place]
            words.append((sum(own) / len(own), len(own)))
            place += len(word) + 1
        left = total = sum(count for _, count in words)
        kept = set(range(len(words)))
        for at in sorted(kept, key=lambda at: words[at]):
            if left > total / 2:
                kept.remove(at)
                left -= words[at][1]
        assert found.record[name] == " ".join(word for at, word in enumerate(row[name].split(" ")) if at in kept)
    assert found.record["output"] == row["output"]
    assert found.status == "compressed" and 0.35 < found.ratio <= 0.55


def test_a_batch_changes_nothing(scorer: Scorer, rows: list[dict[str, Any]]) -> None:
    together = compress_records(rows, scorer, fields=("instruction", "input", "response"))
    alone = [compressed(scorer, row, fields=("instruction", "input", "response")) for row in rows]
    assert [(one.record, one.tokens) for one in together] == [(one.record, one.tokens) for one in alone]
    assert sum(one.status == "compressed" for one in together) >= 10


def test_another_ratio_keeps_another_share(scorer: Scorer) -> None:
    row = {"instruction": "Tell me about this story", "input": LONG, "output": "A sailor."}
    ratios = [compressed(scorer, row, ratio=ratio).ratio for ratio in (0.25, 0.5, 0.75)]
    assert ratios == sorted(ratios) and ratios[0] < 0.35 and ratios[2] > 0.6
    assert compressed(scorer, row, ratio=1.0).status == "kept"


TURNS = [
    {"role": "system", "content": LONG},
    {"role": "user", "content": LONG},
    {"role": "assistant", "content": LONG},
    {"role": "user", "content": [{"type": "text", "text": LONG}]},
    {"role": "assistant", "content": LONG},
]
SHAREGPT = [{"from": "human", "value": LONG}, {"from": "gpt", "value": LONG}]
CALLS = [
    {"role": "user", "content": LONG},
    {"role": "assistant", "content": LONG, "tool_calls": [{"function": {"name": "look", "arguments": {}}}]},
    {"role": "tool", "content": LONG},
    {"role": "assistant", "content": LONG},
]


@pytest.mark.parametrize(
    ("record", "instructions", "answers"),
    [
        ({"instruction": LONG, "input": LONG, "output": LONG}, ["instruction", "input"], ["output"]),
        ({"instruction": LONG, "response": LONG, "history": [[LONG, LONG]]}, ["instruction"], ["response"]),
        ({"prompt": LONG, "completion": LONG}, ["prompt"], ["completion"]),
        ({"problem": LONG, "solution": LONG}, ["problem"], ["solution"]),
        ({"text": LONG}, [], ["text"]),
        ({"messages": TURNS}, ["messages[1].content"], ["messages[2].content", "messages[4].content"]),
        ({"conversations": SHAREGPT, "system": LONG}, ["conversations[0].value"], ["conversations[1].value"]),
        ({"messages": CALLS}, ["messages[0].content"], ["messages[3].content"]),
        (
            {"prompt": TURNS[:3] + TURNS[1:2], "completion": TURNS[4:]},
            ["prompt[1].content", "prompt[3].content"],
            ["completion[0].content"],
        ),
    ],
)
def test_only_the_wanted_sides_of_any_format_change(
    scorer: Scorer, record: dict[str, Any], instructions: list[str], answers: list[str]
) -> None:
    record = {"id": 7, **record}
    before = copy.deepcopy(record)

    def changed(one: Any, other: Any, path: str = "") -> list[str]:
        if isinstance(one, dict):
            return [name for key in one for name in changed(one[key], other[key], f"{path}.{key}")]
        if isinstance(one, list):
            return [name for at in range(len(one)) for name in changed(one[at], other[at], f"{path}[{at}]")]
        assert one == other or len(other) < len(one)
        return [] if one == other else [path.removeprefix(".")]

    for fields, wanted in ((("instruction", "input"), instructions), (("response",), answers)):
        found = compressed(scorer, record, fields=fields)
        assert record == before
        assert changed(before, found.record) == wanted
        assert list(found.record) == list(before)
        assert found.status == ("compressed" if wanted else "kept")
        assert bool(found.detail) != bool(wanted)


def test_numbers_negations_questions_and_code_are_kept_in_order(scorer: Scorer) -> None:
    text = (
        "Ann does not own 12 of the half-empty boxes, and she can't sell them. How many boxes are left?\n\n"
        "Look at the code below and at `x - 1` please:\n```\nfor item in the box:\n    box.take(item)\n```\n"
        "    the indented line\nThen tell the very old story of the sailor"
    )
    found = compressed(scorer, {"instruction": text, "output": "None."}, ratio=0.2).record["instruction"]
    for part in ("not", "12", "half-empty", "can't", "left?", "`x - 1`", "\n    the indented line"):
        assert part in found
    assert "```\nfor item in the box:\n    box.take(item)\n```" in found
    assert len(found) < len(text) - 60
    rest = iter(text.split())
    assert all(word in rest for word in found.split())  # a subsequence


def test_words_are_joined_as_they_were_parted() -> None:
    text = "  one two\nthree\tfour  "
    words = split_words(text)
    assert [text[word.start : word.end] for word in words] == ["one", "two", "three", "four"]
    for kept, wanted in (
        ({0, 1, 2, 3}, text),
        ({0, 3}, "  one\nfour  "),  # the line break between them stays
        ({0, 1}, "  one two  "),
        ({2, 3}, "  three\tfour  "),
    ):
        assert join_words(text, words, kept) == wanted
    assert [word.end - word.start for word in split_words("\u732b\u304c\u597d\u304d abc")] == [1, 1, 1, 1, 3]
    assert join_words(" \n", split_words(" \n"), set()) == " \n"
    mixed = "one \u732btwo"
    assert join_words(mixed, split_words(mixed), {0, 2}) == "one two"


def test_what_cannot_be_compressed_is_kept_and_says_why(scorer: Scorer) -> None:
    good = {"instruction": LONG, "output": "Yes."}
    records = [
        good,
        {"nothing": "known"},
        {"instruction": LONG, "output": " "},
        {"input_ids": [3, 4, 5], "labels": [3, 4, 5]},
        {"instruction": "Be brief.", "output": "Yes."},
        {"instruction": "1 2 3 4 5 6", "output": "Yes."},
        {"instruction": "a lone \ud800 surrogate in the text", "output": "Yes."},
        {"text": LONG},
        good,
    ]
    found = compress_records(records, scorer)
    assert [one.status for one in found] == ["compressed", *["kept"] * 7, "compressed"]
    assert found[0].record == found[-1].record
    assert all(one.record == record for one, record in zip(found[1:-1], records[1:-1], strict=True))
    for one, said in zip(
        found[1:-1],
        (
            "record 1: no known format",
            "record 2: output is empty",
            "row of tokens",
            "fewer than 4 words",
            "no word that could",
            "Unicode",
            "no text on its",
        ),
        strict=True,
    ):
        assert said in one.detail


def test_past_the_models_length_words_stay() -> None:
    model, tokenizer = tiny_model("llama", max_position_embeddings=64), tiny_tokenizer()
    scorer = Scorer(model, tokenizer, token_budget=256, masks=MaskSettings())
    text = "one long tale of old ships " * 8
    [found] = compress_records([{"instruction": text, "output": "Yes."}], scorer)
    assert scorer.loaded.max_length == 64
    assert found.status == "compressed"
    assert found.record["instruction"].endswith(text[70:])


def test_a_refused_text_is_rewritten_or_stays(scorer: Scorer) -> None:
    rows = [{"instruction": f"{name} {LONG}", "output": "Yes."} for name in ("Xenia", "Quentin", "Zacharias")]
    free = compress_records(rows, scorer)

    class OnlyShort(FixedGuard):
        def f1(self, originals: Sequence[str], shortened: Sequence[str]) -> list[float]:
            pairs = zip(originals, shortened, strict=True)
            return [0.5 if "Quentin" in original and short != "Quentin." else 0.95 for original, short in pairs]

    kept = compress_records(rows, scorer, guard=OnlyShort())
    assert [one.status for one in kept] == ["compressed", "kept", "compressed"]
    assert kept[1].record == rows[1] and kept[1].ratio == 1.0 and math.isnan(kept[1].f1)
    assert kept[1].detail == "instruction: the guard refuses it: F1 0.500 is below 0.9"
    assert kept[0] == Compressed(free[0].record, free[0].status, "", free[0].tokens, free[0].compressed_tokens, 0.95)

    def failing(_: str) -> str:
        raise ValueError("out of order")

    answers: list[tuple[Rewriter, str, str]] = [
        (lambda _: " Quentin. ", "rewritten", ""),
        (lambda _: "  ", "rewriter_failed", "answer is empty"),
        (lambda text: text + " and more", "rewriter_failed", "not shorter"),
        (lambda text: text, "rewriter_failed", "not shorter"),
        (lambda _: "Something else.", "rewriter_failed", "not usable: the guard refuses it: F1 0.500"),
        (failing, "rewriter_failed", "ValueError: out of order"),
        (lambda _: None, "rewriter_failed", "NoneType"),  # type: ignore[arg-type, return-value]
    ]
    for rewriter, status, said in answers:
        found = compress_records(rows, scorer, guard=OnlyShort(), rewriter=rewriter)
        assert found[0] == kept[0] and found[2] == kept[2]
        assert found[1].status == status and said in found[1].detail
        assert found[1].record["instruction"] == ("Quentin." if status == "rewritten" else rows[1]["instruction"])


def test_texts_of_a_record_are_judged_each_by_itself(scorer: Scorer) -> None:
    row = {"instruction": f"{LONG} 42", "input": f"{LONG} 17", "output": "Yes."}
    found = compressed(scorer, row, guard=FixedGuard("17"))
    assert found.record["input"] == row["input"] != found.record["instruction"] != row["instruction"]
    assert (found.status, found.f1) == ("compressed", 0.95) and found.detail.startswith("input: the guard")
    failed = compressed(scorer, row, guard=FixedGuard("17"), rewriter=lambda _: "")
    assert failed.status == "rewriter_failed" and failed.record == found.record


def test_a_bad_argument_is_named(scorer: Scorer) -> None:
    for ratio in (0.0, 1.5, math.nan):
        with pytest.raises(InputError, match="ratio"):
            compress_records([], scorer, ratio=ratio)
    with pytest.raises(InputError, match="got output"):
        compress_records([], scorer, fields=("output",))
    with pytest.raises(InputError, match="got none"):
        compress_records([], scorer, fields=())
    with pytest.raises(InputError, match="name a guard"):
        compress_records([], scorer, rewriter=str)
    assert compress_records([], scorer) == []


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="the real data of ../shared is absent")
def test_real_rows_are_halved_and_judged_by_a_real_guard(minilm: Path) -> None:
    with (SHARED / "data/gsm8k/test.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(next(lines)) for _ in range(10)]
    scorer = Scorer.from_pretrained(SHARED / "models/tiny-instruct", token_budget=1024, device="cpu")
    guard = BertScoreGuard(minilm, least_f1=0.6, device="cpu")
    found = compress_records(rows, scorer, guard=guard)
    assert sum(one.status == "compressed" for one in found) >= 8
    ratio = sum(one.compressed_tokens for one in found) / sum(one.tokens for one in found)
    assert 0.4 < ratio < 0.7
    for row, one in zip(rows, found, strict=True):
        assert one.record["answer"] == row["answer"]
        numbers = [word for word in row["question"].split() if any(map(str.isdigit, word))]
        assert [word for word in one.record["question"].split() if any(map(str.isdigit, word))] == numbers
        assert math.isnan(one.f1) or one.f1 >= 0.6
