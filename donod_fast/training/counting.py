"""Tokens of a corpus before training: counted if the tokenizer is available, else estimated from characters."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from donod_fast.data.masking import Masker
from donod_fast.data.reading import Corpus, open_corpus
from donod_fast.errors import CorpusError, InputError, ModelError
from donod_fast.models.folder_guard import local_folder
from donod_fast.models.loading import length_limit, quiet, text_config
from donod_fast.models.loading_errors import attempt_load
from donod_fast.models.precision import silence_torchao
from donod_fast.system.wording import plural
from donod_fast.training.model_size import model_config
from donod_fast.training.planning import TokenCounts
from donod_fast.training.recipe import Recipe, TrainSettings
from donod_fast.training.samples import prepare_rows

CHARACTERS_A_TOKEN = 3.5
"""Rough estimate for English and code with a vocabulary of 32,000 tokens."""


def recipe_counts(
    recipe: Recipe, config: Any = None, data: Sequence[str] = (), *, split: str = "train", revision: str | None = None
) -> TokenCounts:
    """Tokens of one epoch on a recipe's corpus, or on ``data``: counted, estimated or as the recipe states them.

    Raises:
        CorpusError: the data cannot be read, and the recipe states no numbers.
        InputError: there is no data, or the model's shape cannot be found.
    """
    names = list(data or recipe.score.data)
    if not names:
        raise InputError("name the training data: --data FILE (a recipe may name it under score.data)")
    try:
        if any(is_hub_id(name) for name in names) and not hub_answers():
            raise CorpusError(f"{', '.join(names)}: the hub cannot be reached, so the rows cannot be counted")
        corpus = open_corpus(names, split=split, revision=revision)
    except CorpusError:
        rows, mean = recipe.score.stated_rows, recipe.score.stated_tokens
        if data or rows is None or mean is None:
            raise
        counts = TokenCounts.guessed(rows, mean, "as the recipe states them: the corpus is not available")
        limit = recipe.train.max_length
        return counts if limit is None else replace(counts, longest=limit)
    if config is None:
        config = model_config(recipe.train.model, revision=recipe.train.revision)
    try:
        return count_tokens(recipe.train, config, corpus)
    except ModelError:
        return guess_tokens(recipe.train, corpus)


def count_tokens(settings: TrainSettings, config: Any, corpus: Corpus) -> TokenCounts:
    """Tokenise and mask the corpus as training will, without the model's weights.

    Raises:
        ModelError: the model's tokenizer cannot be loaded.
        CorpusError: no row can be trained on.
    """
    silence_torchao()
    from transformers import AutoTokenizer

    folder = local_folder(settings.model, trust_remote_code=settings.trust_remote_code)
    source = str(folder or settings.model)
    options = {
        "revision": settings.revision,
        "trust_remote_code": settings.trust_remote_code,
        "local_files_only": folder is None and not hub_answers(),
    }
    with quiet():
        tokenizer = attempt_load(
            settings.model, "its tokenizer", lambda: AutoTokenizer.from_pretrained(source, **options)
        )
    masks = settings.masks(length_limit(config, tokenizer))
    rows = prepare_rows(corpus, Masker(tokenizer, masks, vocab_size=int(text_config(config).vocab_size)))
    left_out = sum(rows.skipped.values())
    return TokenCounts.of(
        rows.lengths.tolist(), f"counted; {plural(left_out, 'row')} left out" if left_out else "counted"
    )


def guess_tokens(settings: TrainSettings, corpus: Corpus) -> TokenCounts:
    """The corpus's characters over :data:`CHARACTERS_A_TOKEN`, cut to the length limit."""
    limit = settings.max_length
    found = []
    for record in corpus.records():
        tokens = round(_characters(record.data) / CHARACTERS_A_TOKEN) + 1
        found.append(tokens if limit is None else min(tokens, limit))
    how = f"estimated at {CHARACTERS_A_TOKEN} characters per token, since the tokenizer is not available"
    return TokenCounts.of(found, how)


def hub_answers() -> bool:
    """Whether the hub can be reached; checked first, since its client retries for a minute."""
    from huggingface_hub import constants

    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True  # the proxy may resolve names that this machine cannot
    place = urlsplit(constants.ENDPOINT)
    try:
        with socket.create_connection((place.hostname or "", place.port or 443), timeout=3):
            return True
    except OSError:
        return False


def is_hub_id(name: str) -> bool:
    """Whether data of this name would be sought on the hub."""
    return not Path(name).exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None and "." not in name[-8:]


def _characters(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if hasattr(value, "values"):
        return sum(map(_characters, value.values()))
    return sum(map(_characters, value)) if isinstance(value, list | tuple) else 0


__all__ = ["CHARACTERS_A_TOKEN", "count_tokens", "guess_tokens", "hub_answers", "is_hub_id", "recipe_counts"]
