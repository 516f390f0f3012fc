"""Mask profiles: TRL's masks equal the trainer's own, and what a profile cannot tell is refused with a reason.

The profiles of Axolotl and LLaMA-Factory are compared with these trainers in ``tests/hosts``.
"""

from __future__ import annotations

import copy
import pickle
import random
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from mask_hosts import CALL, CONVERSATIONS, PLAIN, Row, as_row, pin_date, row_like, said, tokenizer_for
from tiny_chat import MARKED, SENTENCES, STRICT, THINKING, UNMARKED, record, tiny_tokenizer
from tiny_tokenizers import tokenizer_of_kind

from donod_fast.data.mask_profiles.names import PROFILES
from donod_fast.data.masking import Masker, MaskSettings
from donod_fast.data.types import Status
from donod_fast.errors import InputError, ModelError

needs_trl = pytest.mark.skipif(find_spec("trl") is None, reason="the extra `train` is not installed")


READ_PARTS = ("idefics3", "llava_next", "smolvlm")
"""Templates that expect content in parts, as a processor gives it."""


def shipped() -> list[Path]:
    """The stock templates for which the installed TRL has a training template."""
    spec = find_spec("trl")
    if spec is None or spec.origin is None:
        return []
    files = sorted((Path(spec.origin).parent / "chat_templates").glob("*_training.jinja"))
    return [found for file in files if (found := file.with_stem(file.stem.removesuffix("_training"))).exists()]


@cache
def small_model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    return LlamaForCausalLM(LlamaConfig(vocab_size=2000, **sizes))


def trainer_rows(tokenizer: Any, rows: Sequence[Mapping[str, Any]], out: Path, **settings: Any) -> list[Row]:
    """Ids and labels that SFTTrainer makes of records."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    config = SFTConfig(output_dir=str(out), report_to=[], use_cpu=True, bf16=False, **settings)
    data = Dataset.from_list(copy.deepcopy(list(map(dict, rows))))
    trainer = SFTTrainer(small_model(), config, train_dataset=data, processing_class=copy.deepcopy(tokenizer))
    assert trainer.train_dataset is not None
    return [as_row(row["input_ids"], row["labels"]) for row in trainer.train_dataset]


def all_rows(tokenizer: Any, kinds: Mapping[str, Any], out: Path, **settings: Any) -> dict[str, Row | str]:
    """The trainer's rows by name; the reason where it refuses the record."""
    try:
        rows: list[Row | str] = [
            *trainer_rows(tokenizer, [{"messages": turns} for turns in kinds.values()], out, **settings)
        ]
    except Exception as error:  # of the template, or of the trainer
        if len(kinds) > 1:
            return {name: all_rows(tokenizer, {name: kinds[name]}, out, **settings)[name] for name in kinds}
        rows = [f"{type(error).__name__}: {error}"]
    return dict(zip(kinds, rows, strict=True))


@needs_trl
def test_every_pair_of_stock_and_training_template_is_found() -> None:
    assert len(shipped()) >= 28


@needs_trl
@pytest.mark.parametrize("file", shipped(), ids=lambda file: file.stem)
def test_like_trl_gives_the_rows_of_sft_trainer(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids and labels by the stock template equal those that SFTTrainer makes, or the row is refused with a reason.

    Templates that expect parts leave texts out or fail, so that all rows are refused.
    """
    pin_date(monkeypatch)
    stock = file.read_text(encoding="utf-8")
    tokenizer = tokenizer_for(stock)
    theirs: dict[str, Row | str] = {}
    for names in (("two pairs", "white space", "system"), ("reasoning",), ("call",)):
        kinds = {name: CONVERSATIONS[name] for name in names}
        theirs |= all_rows(tokenizer, kinds, tmp_path, assistant_only_loss=True, max_length=None)
    compared = set()
    for name, row in theirs.items():
        ours = row_like(tokenizer, {"messages": CONVERSATIONS[name]}, "trl", max_length=4096)
        if isinstance(row, str):
            assert isinstance(ours, str), f"{name}: the trainer refuses it: {row}"
        elif isinstance(ours, str):
            assert ours.startswith(("template_failed", "reasoning_dropped")), ours
        else:
            assert ours == row, name
            compared.add(name)
    assert not compared if file.stem in READ_PARTS else {"two pairs", "white space"} <= compared


@needs_trl
@pytest.mark.parametrize("template", [MARKED, UNMARKED, THINKING, STRICT], ids=["marked", "bare", "thinking", "strict"])
@pytest.mark.parametrize("kind", ["byte-level", "no words", "slow"])
def test_like_trl_whole_gives_the_default_of_sft_trainer(template: str, kind: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_for(template, tokenizer_of_kind(kind))
    for name, row in all_rows(tokenizer, PLAIN, tmp_path, max_length=None).items():
        ours = row_like(tokenizer, {"messages": PLAIN[name]}, "trl-whole", max_length=4096)
        if isinstance(ours, str):
            assert isinstance(row, str) or ours.startswith(("template_failed", "reasoning_dropped")), (name, ours)
        else:
            assert ours == row, name


@needs_trl
@pytest.mark.parametrize("like", ["trl", "trl-whole"])
@pytest.mark.parametrize("template", [MARKED, THINKING], ids=["marked", "thinking"])
def test_like_trl_masks_prompt_and_completion_as_the_trainer(like: str, template: str, tmp_path: Path) -> None:
    if like == "trl" and template is THINKING:
        pytest.skip("TRL has no training template for it")
    tokenizer = tokenizer_for(template)
    rows = [{"prompt": list(turns[:-1]), "completion": list(turns[-1:])} for turns in PLAIN.values()]
    theirs = trainer_rows(tokenizer, rows, tmp_path, assistant_only_loss=like == "trl", max_length=None)
    ours = [row_like(tokenizer, row, like, max_length=4096) for row in rows]
    assert ours == theirs


@needs_trl
@pytest.mark.parametrize("frame", ["", "<s>", "<s> </s>"], ids=["no frame", "begin", "begin and end"])
def test_like_trl_masks_texts_as_the_trainer(frame: str, tmp_path: Path) -> None:
    """Also where the tokenizer adds tokens of its own, and where prompt and completion share a token."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = copy.deepcopy(tiny_tokenizer())
    if frame:
        before, _, after = frame.partition(" ")
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"{before} $A {after}".strip(), special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    draw = random.Random(7)
    parts = [part for text in SENTENCES for part in text.split(" ")]
    prompts = [" ".join(draw.choices(parts, k=3)) + draw.choice(["", " ", "\n"]) for _ in range(12)]
    pairs = [{"prompt": text, "completion": " ".join(draw.choices(parts, k=4))} for text in prompts]
    texts = [{"text": " ".join(draw.choices(parts, k=6)) + end} for end in ("", "</s>", "\n")]
    for rows in (pairs, texts):
        theirs = trainer_rows(tokenizer, rows, tmp_path, max_length=None)
        for like in ("trl", "trl-whole"):
            assert [row_like(tokenizer, row, like, max_length=4096) for row in rows] == theirs


@needs_trl
def test_like_trl_cuts_rows_where_the_trainer_does(tmp_path: Path) -> None:
    tokenizer = tokenizer_for(MARKED)
    rows = [{"messages": said("How many?", "1 " * count)} for count in (5, 600, 2000)]
    theirs = trainer_rows(tokenizer, rows, tmp_path, assistant_only_loss=True)
    assert [row_like(tokenizer, row, "trl") for row in rows] == theirs
    assert len(theirs[2][0]) == PROFILES["trl"].max_length


@needs_trl
def test_a_template_that_trl_refuses_is_refused_by_name() -> None:
    tokenizer = tokenizer_for(UNMARKED)
    with pytest.raises(ModelError, match=r"TRL has no training template .* generation .*--like trl-whole"):
        Masker(tokenizer, MaskSettings(like="trl"), vocab_size=1000)


def test_like_trl_without_trl_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trl", None)
    monkeypatch.setitem(sys.modules, "trl.chat_template_utils", None)
    with pytest.raises(InputError, match=r'pip install "donod-fast\[train\]"'):
        Masker(tokenizer_for(UNMARKED), MaskSettings(like="trl"), vocab_size=1000)
    assert not isinstance(row_like(tokenizer_for(MARKED), {"messages": PLAIN["one pair"]}, "trl"), str)


@pytest.mark.parametrize("like", ["trl", "axolotl"])
def test_profiles_that_need_positions_refuse_slow_tokenizers(like: str) -> None:
    with pytest.raises(InputError, match=f"--like {like} needs a fast tokenizer"):
        Masker(tokenizer_for(MARKED, tokenizer_of_kind("slow")), MaskSettings(like=like), vocab_size=1000)


# --- what the profiles of the other trainers give, in words; the trainers themselves are asked in tests/hosts


def trained(template: str, messages: Sequence[dict[str, Any]], like: str, **settings: Any) -> str:
    """The trained text of a conversation, or why there is none."""
    tokenizer = tokenizer_for(template)
    row = row_like(tokenizer, {"messages": list(messages)}, like, **settings)
    return row if isinstance(row, str) else tokenizer.decode([label for label in row[1] if label >= 0])


@pytest.mark.parametrize(
    ("like", "settings", "text"),
    [
        ("axolotl", {}, "She has 3.<|im_end|>2 left, 5 - 2 = 3.<|im_end|>"),
        ("llama-factory", {}, "She has 3.<|im_end|>\n2 left, 5 - 2 = 3.<|im_end|>\n"),
        ("llama-factory", {"train_on": "last"}, "2 left, 5 - 2 = 3.<|im_end|>\n"),
    ],
)
def test_trainers_differ_in_the_newline_after_a_turn(like: str, settings: dict[str, str], text: str) -> None:
    assert trained(UNMARKED, PLAIN["two pairs"], like, **settings) == text


def test_trainers_differ_in_an_empty_block_of_thinking() -> None:
    assert trained(THINKING, PLAIN["one pair"], "axolotl") == "She has 3 apples left.<|im_end|>"
    assert trained(THINKING, PLAIN["one pair"], "llama-factory").startswith("<think>\n\n</think>\n\nShe has 3")


def test_a_last_turn_that_is_written_in_another_way_is_refused() -> None:
    assert "writes the last reply in another way" in trained(THINKING, PLAIN["two pairs"], "llama-factory")


@pytest.mark.parametrize(
    ("like", "messages", "cause"),
    [
        ("llama-factory", [*said("Weather?"), {"role": "assistant", "content": "", "tool_calls": [CALL]}], "tools"),
        ("llama-factory", said("One?", "1", "Two?"), "drops conversations"),
        ("llama-factory", [*said("One?", "1"), {"role": "assistant", "content": "2"}], "drops conversations"),
        ("llama-factory", [*said("One?"), {"role": "assistant", "content": "1", "weight": 0}, *said("Two?", "2")],
         "does not read them"),
        ("trl", [*said("One?"), {"role": "assistant", "content": "1", "train": False}, *said("Two?", "2")],
         "does not read them"),
        ("axolotl", [*said("One?"), {"role": "assistant", "content": "1", "train": False}], "leave out every"),
    ],
)  # fmt: skip
def test_what_a_trainer_would_not_train_on_is_refused(like: str, messages: list[dict[str, Any]], cause: str) -> None:
    found = trained(MARKED if like == "trl" else UNMARKED, messages, like)
    assert cause in found and ": data.jsonl, line 1: " in found


def test_axolotl_leaves_out_the_turns_that_flags_leave_out() -> None:
    messages = [*said("One?"), {"role": "assistant", "content": "1", "train": False}, *said("Two?", "2")]
    assert trained(UNMARKED, messages, "axolotl") == "2<|im_end|>"


def test_axolotl_trains_on_no_end_of_turn_that_is_not_the_eos_token() -> None:
    tokenizer = tokenizer_for(UNMARKED)
    tokenizer.eos_token = "</s>"
    row = row_like(tokenizer, {"messages": PLAIN["two pairs"]}, "axolotl")
    assert tokenizer.decode([label for label in row[1] if int(label) >= 0]) == "She has 3.2 left, 5 - 2 = 3."


def test_axolotl_drops_rows_above_its_limit() -> None:
    assert trained(UNMARKED, said("How many?", "1 " * 400), "axolotl").startswith("too_long")
    assert not trained(UNMARKED, said("How many?", "1 " * 400), "axolotl", max_length=4096).startswith("too_long")


@pytest.mark.parametrize("like", ["axolotl", "llama-factory"])
@pytest.mark.parametrize(
    "data", [{"text": "A text."}, {"prompt": "How many?", "completion": "3"}], ids=["text", "pair"]
)
def test_texts_are_refused_where_the_profile_has_none(like: str, data: dict[str, str]) -> None:
    assert "covers the conversations of" in str(row_like(tokenizer_for(UNMARKED), data, like))


@pytest.mark.parametrize("like", sorted(PROFILES))
def test_a_recast_conversation_is_refused(like: str) -> None:
    """Our own masks write a system message that a template refuses into the first question; trainers do not."""
    marked = "{% generation %}{{ m['content'] }}{% endgeneration %}"
    template = STRICT if like != "trl" else STRICT.replace("{{ m['content'] | trim }}", marked)
    assert "rewrites nothing" in trained(template, PLAIN["system"], like)


# --- settings


@pytest.mark.parametrize("like", ["trl", "trl-whole", "axolotl"])
def test_the_last_turn_alone_is_refused_where_a_trainer_has_no_such_option(like: str) -> None:
    with pytest.raises(InputError, match=f"--like {like} excludes --train-on last"):
        MaskSettings(like=like, train_on="last")


def test_an_unknown_profile_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"--like is one of trl, .* not 'axolot'.*axolotl"):
        MaskSettings(like="axolot")


def test_a_profile_is_recorded_and_our_own_masks_add_no_key() -> None:
    tokenizer = tokenizer_for(MARKED)
    for like in (None, *PROFILES):
        settings = MaskSettings(like=like)
        recorded = Masker(tokenizer, settings, vocab_size=1000).describe()
        assert recorded.get("like") == settings.as_key().get("like") == like
        assert ("like" in recorded) == ("like" in settings.as_key()) == (like is not None)


@pytest.mark.parametrize(("given", "model", "limit"), [(None, None, 1024), (None, 512, 512), (2048, 4096, 2048)])
def test_a_profile_has_the_trainers_own_length_limit(given: int | None, model: int | None, limit: int) -> None:
    assert MaskSettings(like="trl", max_length=given).limited(model).max_length == limit


def test_the_given_limit_is_refused_above_the_models() -> None:
    with pytest.raises(InputError, match="max length 2048 is more than the model's own 512 positions"):
        MaskSettings(like="trl", max_length=2048).limited(512)


@pytest.mark.parametrize("like", sorted(PROFILES))
def test_a_masker_with_a_profile_is_sent_to_other_processes(like: str) -> None:
    masker = Masker(tokenizer_for(MARKED), MaskSettings(like=like), vocab_size=1 << 20)
    rows = [record({"messages": list(turns)}, at) for at, turns in enumerate(PLAIN.values())]
    before = masker.tokenize_many(rows)
    assert pickle.loads(pickle.dumps(masker)).tokenize_many(rows) == before
    assert {row.mask for row in before if row.status is Status.SCORED} == {like}


def test_tokenized_rows_keep_their_own_labels() -> None:
    data = {"input_ids": [7, 8, 9], "labels": [-100, 8, 9]}
    for like in PROFILES:
        assert row_like(tokenizer_for(MARKED), data, like) == ([7, 8, 9], [-100, 8, 9])
