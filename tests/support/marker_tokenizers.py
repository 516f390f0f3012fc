"""Tokenizers for trials of templates: markers as special tokens, as plain text, or merged with their neighbours."""

from __future__ import annotations

from functools import cache
from typing import Any

from conversation_generator import ODD, PLAIN, SPACED
from template_specs import MARKERS, STYLES
from tiny_chat import SENTENCES

# How the vocabularies of recent models split a text: line breaks stay together.
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
_LINES = _WORDS + r"|\s*[\r\n]+|\s+(?!\S)|\s+"


class SlowTokenizer:
    """A tokenizer that does not tell which characters a token stands for, as transformers' slow ones do not."""

    def __init__(self, fast: Any) -> None:
        self._fast = fast

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fast, name)

    def __len__(self) -> int:
        return len(self._fast)

    def __call__(self, *args: Any, **given: Any) -> Any:
        """The tokens alone."""
        from transformers import BatchEncoding

        return BatchEncoding({"input_ids": self._fast(*args, **given)["input_ids"]})


def given_tokenizer(kind: str) -> Any:
    """The tokenizer that a masker gets: ``marker_tokenizer``, or for "slow" the "special" one without positions."""
    return SlowTokenizer(marker_tokenizer("special")) if kind == "slow" else marker_tokenizer(kind)


@cache
def marker_tokenizer(kind: str) -> Any:
    """A byte-level BPE with ``<s>``, ``</s>`` and ``<pad>``.

    Args:
        kind: "special" (every marker of the styles is one token), "plain" (only ``</s>`` and the like are), "lines"
            (as "special", but several line breaks are one token, as in the vocabularies of Llama 3 and Qwen), or
            "merging" (learnt on whole renderings without a split at words, so that tokens cross every border).
            "slow" is "special".
    """
    if kind == "slow":
        return marker_tokenizer("special")
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind != "merging")
    if kind == "lines":
        words = pre_tokenizers.Split(Regex(_LINES), "isolated")
        bpe.pre_tokenizer = pre_tokenizers.Sequence(
            [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=900 if kind == "merging" else 600,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(SENTENCES * 3 + (_renderings() if kind in ("merging", "lines") else []), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        clean_up_tokenization_spaces=False,
    )
    if kind in ("special", "lines"):
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>", *MARKERS]})
    return tokenizer


def _renderings() -> list[str]:
    """Every pair of neighbours, so that the tokenizer learns tokens that cross the borders between them."""
    contents = (*PLAIN, *ODD, *SPACED)
    found = []
    for frames in STYLES.values():
        for role, frame in frames.items():
            found += [
                frame.before + text + frame.closing + frame.gap + other.before
                for text in contents
                for name, other in frames.items()
                if name != role
            ]
    return found
