"""Small tokenizers of different kinds, whose tokens depend on what follows them in different ways."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tiny_chat import SENTENCES, SPECIALS, tiny_tokenizer

TOKENIZERS = Path(__file__).parents[3] / "shared" / "tokenizers"
KINDS = ("byte-level", "no words", "unigram", "unigram of runs", "digits from the right", "slow")


@cache
def tokenizer_of_kind(kind: str) -> Any:
    """One of ``KINDS``, with EOS and a BOS, without a chat template."""
    return {
        "byte-level": tiny_tokenizer,
        "no words": _without_words,
        "unigram": _unigram,
        "unigram of runs": _unigram_of_runs,
        "digits from the right": _digits_from_the_right,
        "slow": _slow,
    }[kind]()


@cache
def shared_tokenizer(name: str) -> Any:
    """A tokenizer of the shared data, the one of Llama 2 in Python without offsets; skips the test without it."""
    if not (TOKENIZERS / name).is_dir():
        pytest.skip(f"{TOKENIZERS / name} is absent")
    if name == "tokenizer_gpt2":
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast(tokenizer_file=str(TOKENIZERS / name / "tokenizer.json"))
    pytest.importorskip("sentencepiece")
    slow = pytest.importorskip("transformers.tokenization_utils_sentencepiece")
    vocabulary = TOKENIZERS / name / "tokenizer.model"
    return slow.SentencePieceBackend(vocab_file=str(vocabulary), bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def _fast(tokenizer: Any) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        clean_up_tokenization_spaces=False,
    )


def _without_words() -> Any:
    """A BPE that merges over the whole text, as Llama 2 does: no words, ``▁`` for a space."""
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers

    bpe = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bpe.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    bpe.train_from_iterator(
        [*SENTENCES, "aaaaaaaaaaaaaaaa", " " * 16] * 3,
        trainers.BpeTrainer(vocab_size=600, special_tokens=[*SPECIALS, "<unk>", *bytes_], show_progress=False),
    )
    return _fast(bpe)


def _unigram() -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers

    unigram = Tokenizer(models.Unigram())
    unigram.normalizer = normalizers.Replace(" ", "▁")
    unigram.decoder = decoders.Replace("▁", " ")
    unigram.train_from_iterator(
        SENTENCES * 3,
        trainers.UnigramTrainer(
            vocab_size=200, special_tokens=[*SPECIALS, "<unk>"], unk_token="<unk>", show_progress=False
        ),
    )
    return _fast(unigram)


def _unigram_of_runs() -> Any:
    """The best path puts the rest of a run of ``a`` where it likes: the first tokens depend on the run's length."""
    from tokenizers import Tokenizer, models

    pieces = [*((name, 0.0) for name in [*SPECIALS, "<unk>"]), ("aaa", -1.0), ("aa", -9.0), ("a", -9.0), (" ", -2.0)]
    return _fast(Tokenizer(models.Unigram(pieces, unk_id=len(SPECIALS))))


def _digits_from_the_right() -> Any:
    """Groups of three digits that are counted from the end of a number, as some newer families have them."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d{1,3}(?=(?:\d{3})*(?:\D|$))"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    digits = " ".join(str(number) for number in range(1000))
    bpe.train_from_iterator(
        [*SENTENCES, digits],
        trainers.BpeTrainer(
            vocab_size=900,
            special_tokens=[*SPECIALS, "<unk>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return _fast(bpe)


def _slow() -> Any:
    """A tokenizer in Python, without offsets: pieces of up to three characters within a word."""
    from transformers import PreTrainedTokenizer

    class Slow(PreTrainedTokenizer):
        def __init__(self, **given: Any) -> None:
            super().__init__(bos_token="<s>", eos_token="</s>", pad_token="<pad>", **given)

        @property
        def vocab_size(self) -> int:
            return 1 << 16

        def get_vocab(self) -> dict[str, int]:
            return dict(self._added_tokens_encoder)

        def _tokenize(self, text: str, **given: Any) -> list[str]:
            import re

            return re.findall(r"\w{1,3}|\s+|.", text, re.DOTALL)

        def _convert_token_to_id(self, token: str) -> int:
            import zlib

            return zlib.crc32(token.encode("utf-8", "surrogatepass")) % (1 << 15)

        def _convert_id_to_token(self, index: int) -> str:
            return f"<{index}>"

    return Slow()
