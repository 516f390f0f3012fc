"""Fifty real rows compared with float64 autograd; every real file gives one row per record."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from score_runs import own_states, tiny_scorer

from donod_fast.data.reading import open_corpus
from donod_fast.data.types import Record, Status, TokenizedSample
from donod_fast.kernels import reference_don_nod
from donod_fast.scoring.scorer import Scorer
from donod_fast.scoring.settings import UpdateSettings

SHARED = Path(__file__).parents[2].parent / "shared"
DATA, MODEL = SHARED / "data", SHARED / "models" / "tiny-instruct"

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not MODEL.is_dir() or not DATA.is_dir(), reason="the real data of ../shared is absent"),
]


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return tiny_scorer(MODEL)


@pytest.fixture(scope="module")
def fifty(scorer: Scorer) -> list[TokenizedSample]:
    """Fifty rows that can be scored: questions, instructions and conversations."""

    def some(name: str, count: int) -> list[Record]:
        return list(islice(open_corpus([str(DATA / name)]).records(), count))

    records = [
        *some("gsm8k/test.jsonl", 22),
        *some("alpaca/alpaca_5000.json", 18),
        *some("chat/dummy_conversation.json", 6),
        *some("chat/v1_sft_demo.jsonl", 6),
    ]
    samples = [one for one in scorer.masker.tokenize_many(records) if one.status is Status.SCORED]
    assert len(samples) >= 50
    return samples[:50]


@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_fifty_real_rows_agree_with_float64_autograd_alone_and_batched(
    fifty: list[TokenizedSample], update: str
) -> None:
    # The truth starts from the same hidden states: what is ours is everything from there on.
    scorer = tiny_scorer(MODEL, update=UpdateSettings(update))
    in_batches = scorer.sample_scorer.score(fifty)
    for sample, batched in zip(fifty, in_batches, strict=True):
        hidden, labels, bounds = own_states(scorer, sample)
        truth = reference_don_nod(hidden, scorer.head.weight.double(), labels, bounds, lr=2e-5, update=update)
        don, nod, loss = (float(column) for column in (truth.don, truth.nod, truth.loss))
        (alone,) = scorer.sample_scorer.score([sample])
        # The batch's own hidden states differ only by float32 rounding, so both have the same bounds
        for found in (alone, batched):
            assert found.status == "scored"
            assert abs(found.nod - nod) <= 1e-5 * nod, sample.id
            assert abs(found.don - don) <= 1e-5 * nod, sample.id
            assert abs(found.loss - loss) <= 1e-5 * loss, sample.id
            if update == "sgd":
                assert abs(found.don - don) <= 1e-4 * abs(don), sample.id
        assert (alone.tokens, alone.scored_tokens) == (batched.tokens, batched.scored_tokens)


def test_fifty_real_rows_are_near_an_all_float64_run(fifty: list[TokenizedSample]) -> None:
    """Model, trunk and head in float64 from the start: what float32 hidden states cost, end to end."""
    single, double = tiny_scorer(MODEL), tiny_scorer(MODEL)
    wide = Scorer(double.loaded.model.double(), double.loaded.tokenizer)
    for found, truth in zip(single.sample_scorer.score(fifty), wide.sample_scorer.score(fifty), strict=True):
        assert abs(found.nod - truth.nod) <= 1e-4 * truth.nod
        assert abs(found.loss - truth.loss) <= 1e-4 * truth.loss


PLAUSIBLE = {
    "chat/alpaca_en_demo.json": 0.9,
    "chat/glaive_toolcall_en_demo.json": 0.9,
    "chat/v1_sft_demo.jsonl": 0.9,
    "chat/dummy_conversation.json": 0.9,
    "alpaca/alpaca_5000.json": 0.95,
    "codealpaca/code_alpaca_2k.json": 0.9,
    "codealpaca/new_codealpaca.json": 0.9,
    "gsm8k/test.jsonl": 1.0,
}
"""Real files, and the least share of their rows that has a score."""


@pytest.mark.parametrize("name", PLAUSIBLE)
def test_a_real_file_gives_a_row_per_record_with_plausible_statuses(scorer: Scorer, tmp_path: Path, name: str) -> None:
    path = DATA / name
    if name.endswith(".jsonl"):
        records: list[Any] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    else:
        records = json.loads(path.read_text(encoding="utf-8"))
    begin = tmp_path / Path(name).name
    part = records[:200]
    if name.endswith(".jsonl"):
        begin.write_text("".join(json.dumps(record) + "\n" for record in part), encoding="utf-8")
    else:
        begin.write_text(json.dumps(part), encoding="utf-8")
    samples = scorer.masker.tokenize_many(list(open_corpus([str(begin)]).records()))
    assert [sample.row for sample in samples] == list(range(len(part)))
    ready = [sample for sample in samples if sample.status is Status.SCORED]
    reasons = {sample.detail for sample in samples if sample.status is not Status.SCORED}
    assert len(ready) >= PLAUSIBLE[name] * len(part), reasons
    for sample in ready:
        assert 0 < sample.scored_tokens < len(sample.input_ids) <= 1024
    rows = scorer.sample_scorer.score(samples[:16])
    assert [row.row for row in rows] == list(range(len(rows)))
    for row in rows:
        if row.status == "scored":
            assert 0 < row.loss < 12 and row.nod > 0
            assert abs(row.don) <= row.nod


def test_the_chat_files_whole_have_a_row_per_record(scorer: Scorer) -> None:
    for path in [*sorted((DATA / "chat").glob("*demo*.json*")), DATA / "chat" / "dummy_conversation.json"]:
        corpus = open_corpus([str(path)])
        samples = scorer.masker.tokenize_many(list(corpus.records()))
        text = path.read_text(encoding="utf-8")
        wanted = len(text.splitlines()) if path.suffix == ".jsonl" else len(json.loads(text))
        assert len(samples) == corpus.rows == wanted
        assert [sample.row for sample in samples] == list(range(wanted))
