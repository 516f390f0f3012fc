"""IFD with each prefix of the lone answer equals the program that it comes from, on the same ids."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from score_runs import assert_one_line_error, invoke, short_rows, write_lines
from tiny_chat import MARKED, UNMARKED
from tiny_models import tiny_model, tiny_tokenizer

from donod_fast.criteria.ifd import PREFIXES, scored_runs
from donod_fast.criteria.registry import SignalOptions, parse_signals
from donod_fast.data.reading import corpus_from_rows
from donod_fast.data.settings import MaskSettings
from donod_fast.errors import InputError
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scoring.scorer import Scorer

BEGIN = 9
TEXTS = ("the red house", "seven of the river", "count", "twelve")
CHAT = {"messages": [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(TEXTS)]}
ROWS = [
    *short_rows(6, seed=5),
    CHAT,
    {"input_ids": [BEGIN, 20, 21, 22, 23], "labels": [-100, -100, 21, 22, -100]},
    {"input_ids": [BEGIN, 24, 25], "labels": [-100, -100, 25]},
]


def scorer_with(prefix: str | None, template: str | None = None, **masks: Any) -> Scorer:
    tokenizer = tiny_tokenizer()
    tokenizer.bos_token = tokenizer.convert_ids_to_tokens(BEGIN)
    tokenizer.chat_template = template
    criteria = parse_signals("ifd", SignalOptions(ifd_prefix=prefix))
    return Scorer(tiny_model("llama").double(), tokenizer, signals=criteria, masks=MaskSettings(**masks))


@torch.no_grad()
def losses(model: Any, ids: Sequence[int], first: int) -> torch.Tensor:
    """Loss of each token from ``first`` on, in float64, as transformers computes it for labels."""
    logits = model(torch.tensor([list(ids)]), use_cache=False).logits[0].double()
    targets = torch.tensor(list(ids)[first:], dtype=torch.int64)
    return torch.nn.functional.cross_entropy(logits[first - 1 : -1], targets, reduction="none")


def before_answer(scorer: Scorer, prefix: str | None, first: int) -> list[int]:
    """What the programs put before the lone answer of a row that begins with the token ``first``."""
    tokenizer = scorer.loaded.tokenizer
    own = [BEGIN] if first == BEGIN else []
    if prefix == "header":
        return [*own, *tokenizer("<|im_start|>assistant\n", add_special_tokens=False)["input_ids"]]
    text = {"response": tokenizer("### Response:")["input_ids"], "bos": [BEGIN], "none": []}
    return own if prefix is None else list(text[prefix])


@pytest.mark.parametrize("prefix", [None, *PREFIXES])
@pytest.mark.parametrize("template", [MARKED, UNMARKED], ids=["marked", "bare"])
def test_each_prefix_equals_a_program_that_writes_it(prefix: str | None, template: str) -> None:
    scorer = scorer_with(prefix, template)
    table = scorer.score_table(ROWS).to_pylist()
    samples = scorer.masker.tokenize_many(list(corpus_from_rows(ROWS).records()))
    model, seen = scorer.loaded.model, 0
    for row, sample in zip(table, samples, strict=True):
        if row["status"] != "scored":
            continue
        alone, count, given = 0.0, 0, []
        for start, stop in scored_runs(sample.scored):
            before = before_answer(scorer, prefix, sample.input_ids[0])
            one = losses(model, [*before, *sample.input_ids[start:stop]], max(1, len(before)))
            alone, count = alone + float(one.sum()), count + len(one)
            given += losses(model, sample.input_ids[:stop], start).tolist()
        if not count:
            assert math.isnan(row["ifd_ppl"])
            continue
        mean, helped = alone / count, sum(given) / len(given)
        wanted = {"answer_loss": mean, "ifd_loss": helped / mean, "ifd_ppl": math.exp(helped - mean)}
        assert {name: row[name] for name in wanted} == pytest.approx(wanted, rel=1e-6)
        seen += 1
    assert seen >= 6


def test_the_prefixes_give_other_values() -> None:
    rows = short_rows(3, seed=8)
    tables = {prefix: scorer_with(prefix, UNMARKED).score_table(rows) for prefix in PREFIXES}
    found = {prefix: table.column("ifd_ppl").to_pylist() for prefix, table in tables.items()}
    assert len({tuple(values) for values in found.values()}) == len(PREFIXES)


def test_a_lone_answer_above_the_length_limit_has_no_value() -> None:
    rows = [{"text": "seven of the river " * 20}]
    assert not math.isnan(scorer_with("none", UNMARKED, max_length=16).score_table(rows).column("ifd_ppl")[0].as_py())
    assert math.isnan(scorer_with("response", UNMARKED, max_length=16).score_table(rows).column("ifd_ppl")[0].as_py())


def test_what_the_tokenizer_or_the_template_lacks_is_refused() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] + ' ' }}{% endfor %}"
    model = tiny_model("llama")
    assert tokenizer.bos_token_id is None and getattr(tokenizer, "cls_token_id", None) is None
    for prefix, cause in (("bos", "needs a beginning-of-text token"), ("header", "has no generation prompt")):
        with pytest.raises(InputError, match=cause):
            Scorer(model, tokenizer, signals=parse_signals("ifd", SignalOptions(ifd_prefix=prefix)))


def test_an_unknown_prefix_and_one_without_ifd_are_refused() -> None:
    with pytest.raises(InputError, match="--ifd-prefix is one of none, bos, header, response, not 'boss'"):
        parse_signals("ifd", SignalOptions(ifd_prefix="boss"))
    with pytest.raises(InputError, match="used only by the signal ifd"):
        parse_signals("el2n", SignalOptions(ifd_prefix="bos"))


def test_a_folder_with_another_prefix_is_refused_by_name(tmp_path: Path) -> None:
    """The default adds no setting, so that folders of earlier releases have it."""
    data = write_lines(tmp_path / "data.jsonl", short_rows(12, seed=2))
    tiny_model("llama").save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    command = ["score", str(data), "--model", str(tmp_path / "model"), "--quiet", "--template", "chatml"]
    first = [*command, "--out", str(tmp_path / "one"), "--signals", "ifd"]
    assert invoke(*first).code == 0
    (entry,) = ScoresFolder.open(tmp_path / "one").manifest["signals"]
    assert entry["settings"] == {}
    found = invoke(*first, "--ifd-prefix", "response")
    assert found.code == 5 and "signals.ifd.prefix: None in the folder, 'response' requested" in found.err
    second = [*command, "--out", str(tmp_path / "two"), "--signals", "ifd", "--ifd-prefix", "response"]
    assert invoke(*second).code == 0 and invoke(*second).code == 0
    assert ScoresFolder.open(tmp_path / "two").manifest["signals"][0]["settings"] == {"prefix": "response"}
    assert_one_line_error(invoke(*command, "--out", str(tmp_path / "three"), "--ifd-prefix", "bos"), 2, "--signals ifd")
