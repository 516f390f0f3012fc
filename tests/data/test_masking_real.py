"""Masks with real tokenizers and rows: our two methods and transformers' own agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_chat import (
    TURNS,
    chat,
    masker,
    record,
    scored_runs,
    tokenize_sample,
)

from donod_fast.data.masking import Masker, MaskSettings
from donod_fast.data.types import (
    PromptCompletion,
    Status,
)

SHARED = Path(__file__).parents[2].parent / "shared"
pytestmark = [pytest.mark.shared, pytest.mark.skipif(not SHARED.exists(), reason="no ../shared here")]


@pytest.fixture(scope="module")
def tiny_instruct() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(SHARED / "models" / "tiny-instruct")


def test_prompt_method_and_generation_marks_agree_on_real_rows(tiny_instruct: Any, tmp_path: Path) -> None:
    unmarked = tmp_path / "unmarked.jinja"
    text = tiny_instruct.chat_template.replace("{% generation %}", "{% if true %}")
    unmarked.write_text(text.replace("{% endgeneration %}", "{% endif %}"), encoding="utf-8")
    lines = (SHARED / "data/gsm8k/train.jsonl").read_text(encoding="utf-8").splitlines()[:500]
    records = [record(json.loads(line), at) for at, line in enumerate(lines)]
    marked = Masker(tiny_instruct, MaskSettings(), vocab_size=4096).tokenize_many(records)
    found = Masker(tiny_instruct, MaskSettings(template=str(unmarked)), vocab_size=4096).tokenize_many(records)
    assert {row.mask for row in marked} == {"generation"}
    assert {row.mask for row in found} == {"prefix"}
    assert [(r.input_ids, r.scored) for r in marked] == [(r.input_ids, r.scored) for r in found]


def test_on_real_rows_the_mask_is_that_of_transformers(tiny_instruct: Any) -> None:
    lines = (SHARED / "data/gsm8k/train.jsonl").read_text(encoding="utf-8").splitlines()[:100]
    for line in lines:
        data = json.loads(line)
        row = Masker(tiny_instruct, MaskSettings(), vocab_size=4096).tokenize(record(data))
        theirs = tiny_instruct.apply_chat_template(
            [{"role": "user", "content": data["question"]}, {"role": "assistant", "content": data["answer"]}],
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        assert list(row.input_ids) == theirs["input_ids"]
        assert [int(flag) for flag in row.scored] == theirs["assistant_masks"]


@pytest.fixture(scope="module")
def llama2() -> Any:
    """The Llama 2 vocabulary through transformers' slow SentencePiece tokenizer: no offsets."""
    pytest.importorskip("sentencepiece")
    slow = pytest.importorskip("transformers.tokenization_utils_sentencepiece")
    path = SHARED / "tokenizers/tokenizer_llama2/tokenizer.model"
    return slow.SentencePieceBackend(vocab_file=str(path), bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@pytest.mark.parametrize("name", ["llama2", "alpaca", "vicuna", "plain"])
def test_a_slow_tokenizer_without_offsets_is_masked_through_its_prompts(llama2: Any, name: str) -> None:
    assert not llama2.is_fast
    row = tokenize_sample(masker(tokenizer=llama2, template=name), chat(*TURNS))
    assert (row.status, row.mask) == (Status.SCORED, "prefix"), row.detail
    assert row.input_ids[0] == llama2.bos_token_id
    assert [run.replace(" ", "") for run in scored_runs(row, llama2)] == ["One.</s>", "Two.</s>"]


def test_a_space_that_sentencepiece_joins_to_the_response_is_refused(llama2: Any) -> None:
    joined = tokenize_sample(masker(tokenizer=llama2), PromptCompletion("Question: ", "apples"))
    assert joined.status is Status.PROMPT_NOT_PREFIX
    assert "▁" in joined.detail
    apart = tokenize_sample(masker(tokenizer=llama2), PromptCompletion("Question:", " apples"))
    assert scored_runs(apart, llama2)[0].strip() == "apples</s>"


@pytest.fixture(scope="module")
def llama2_fast() -> Any:
    """The same vocabulary as a fast tokenizer with BOS; the merges follow from the pieces' order."""
    sentencepiece = pytest.importorskip("sentencepiece")
    from transformers import LlamaTokenizer

    path = SHARED / "tokenizers/tokenizer_llama2/tokenizer.model"
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
    vocab = {pieces.id_to_piece(at): at for at in range(pieces.get_piece_size())}
    splits = [(at, piece[:cut], piece[cut:]) for piece, at in vocab.items() for cut in range(1, len(piece))]
    merges = sorted((split for split in splits if split[1] in vocab and split[2] in vocab), key=lambda m: m[0])
    return LlamaTokenizer(
        vocab=vocab,
        merges=[(left, right) for _, left, right in merges],
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        add_bos_token=True,
    )


def test_sentencepiece_with_offsets_gets_bos_once_and_the_marked_mask(llama2_fast: Any) -> None:
    for name in ("llama2", "alpaca", "vicuna", "plain"):
        row = tokenize_sample(masker(tokenizer=llama2_fast, template=name), chat(*TURNS[1:3]))
        assert (row.status, row.mask) == (Status.SCORED, "generation"), row.detail
        assert (row.input_ids[0], row.input_ids.count(1)) == (llama2_fast.bos_token_id, 1)
        assert scored_runs(row, llama2_fast)[0].replace(" ", "") == "One.</s>"
    text = tokenize_sample(masker(tokenizer=llama2_fast), PromptCompletion("Question:", " apples"))
    assert llama2_fast.convert_ids_to_tokens(text.input_ids)[:3] == ["<s>", "▁Question", ":"]
    assert scored_runs(text, llama2_fast) == ["apples</s>"]
