"""``ifd_ppl`` with the prefix ``none`` equals DataFlow's Superfiltering evaluator on the same ids."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_models import tiny_model, tiny_tokenizer

pytest.importorskip("dataflow", reason="DataFlow is not installed: `make test-hosts` builds its environment")

from dataflow.operators.text_sft import SuperfilteringSampleEvaluator

from donod_fast.criteria.registry import SignalOptions, parse_signals
from donod_fast.scoring.scorer import Scorer

PAIRS = [("How many apples are left?", "She has 3 apples left."), ("Write a poem.", "The sea."), ("1?", "2 2 2")]


def test_ifd_equals_dataflows(tmp_path: Path) -> None:
    """The tokenizer is one of characters, so that the tokens of an answer do not depend on what precedes it."""
    tokenizer, model = tiny_tokenizer(), tiny_model("llama").eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    evaluator = object.__new__(SuperfilteringSampleEvaluator)  # its own loads GPT-2 from the hub
    evaluator.tokenizer, evaluator.model, evaluator.device, evaluator.max_length = tokenizer, model, "cpu", 128
    criteria = parse_signals("ifd", SignalOptions(ifd_prefix="none"))
    scorer = Scorer.from_pretrained(str(tmp_path), signals=criteria, device="cpu")
    for question, answer in PAIRS:
        with torch.no_grad():
            theirs = evaluator.inference(question, "", answer)
        before, after = tokenizer(f"{question}\n")["input_ids"], tokenizer(answer)["input_ids"]
        row = {"input_ids": [*before, *after], "labels": [-100] * len(before) + after}
        assert scorer.score_table([row]).column("ifd_ppl")[0].as_py() == pytest.approx(theirs, rel=1e-5)
