"""``ifd_loss`` equals Data-Juicer's operator on the same ids: with ``bos`` or with ``none``, as its tokenizer works.

Data-Juicer tokenises the answer alone with the tokenizer's special tokens. A tokenizer that puts its begin token before
a text gives ``bos``. One that has no begin token gives ``none``.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from tiny_models import tiny_model, tiny_tokenizer

pytest.importorskip("data_juicer", reason="Data-Juicer is not installed: `make test-hosts` builds its environment")

from data_juicer.ops.filter.instruction_following_difficulty_filter import InstructionFollowingDifficultyFilter
from data_juicer.utils.constant import Fields, StatsKeys

from donod_fast.criteria.registry import SignalOptions, parse_signals
from donod_fast.scoring.scorer import Scorer

PAIRS = [("How many apples are left?", "She has 3 apples left."), ("Write a poem.", "The sea."), ("1?", "2 2 2")]


def tokenizer_with(*, begin: bool) -> Any:
    """A tokenizer of characters, so that the tokens of an answer do not depend on what precedes it."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = copy.deepcopy(tiny_tokenizer())
    if begin:
        tokenizer.bos_token = "<|system|>"
        first = ("<|system|>", tokenizer.bos_token_id)
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<|system|> $A", special_tokens=[first])
    return tokenizer


@pytest.mark.parametrize(("prefix", "begin"), [("bos", True), ("none", False)])
def test_ifd_equals_data_juicers(prefix: str, begin: bool, tmp_path: Path) -> None:
    tokenizer = tokenizer_with(begin=begin)
    tiny_model("llama").save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    filter = InstructionFollowingDifficultyFilter(hf_model=str(tmp_path), accelerator="cpu")
    criteria = parse_signals("ifd", SignalOptions(ifd_prefix=prefix))
    scorer = Scorer.from_pretrained(str(tmp_path), signals=criteria, device="cpu")
    for question, answer in PAIRS:
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        theirs = filter.compute_stats_single({"messages": turns, Fields.stats: {}})[Fields.stats][StatsKeys.ifd_score]
        ids = tokenizer(f"{question} {answer}")["input_ids"]
        row = {"input_ids": ids, "labels": [-100] * (len(ids) - len(answer)) + ids[-len(answer) :]}
        assert scorer.score_table([row]).column("ifd_loss")[0].as_py() == pytest.approx(theirs, rel=1e-5)
