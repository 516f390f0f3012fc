"""BERTScore between a text and its shortened form: whether the meaning is kept.

Zhang et al. (arXiv 1904.09675): each token of the shortened text is matched with the token of the original that is most
alike (cosine of contextual embeddings), and the mean is the precision; the other way round it is the recall; F1 is
their harmonic mean. Special tokens can be matched but do not count, there are no idf weights, and no baseline is
subtracted. These are the defaults of the package ``bert-score``, and the numbers are the same. We do not use that
package: its last release is from 2023 and fails with transformers 5 on an empty text. A text longer than the model's
limit is embedded window by window; the package would compare only the beginning.

A threshold is specific to a model. Unrelated sentences have a mean F1 of 0.83 under roberta-large (the baseline
that ``bert-score`` has of it), the paper's 0.9 is four tenths of the way from there to 1. Under all-MiniLM-L6-v2
unrelated questions of GSM8K have 0.36, questions of GSM8K and of Alpaca 0.14: the same share of the way is 0.5 to 0.6,
and 0.9 refuses nearly every text of half the length.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from donod_fast.errors import InputError, ModelError
from donod_fast.models.folder_guard import check_config, check_model_folder
from donod_fast.models.loading import attention_of, quiet
from donod_fast.models.precision import silence_torchao
from donod_fast.system.places import path_of
from donod_fast.system.wording import shortened

LEAST_F1 = 0.9
_PAIRS = 64
_NO_LIMIT = 10**9  # tokenizers without a limit report 1e30


class Guard(Protocol):
    """A judge of shortened texts.

    Attributes:
        least_f1: a text below it is refused.
    """

    least_f1: float

    def f1(self, originals: Sequence[str], shortened: Sequence[str]) -> Sequence[float]:
        """Share of the meaning that each pair preserves, at most 1."""


class BertScoreGuard:
    """BERTScore F1 with a local model.

    Args:
        model: folder or hub id of any transformers encoder (or decoder) with a fast tokenizer.
        least_f1: see :class:`Guard`.
        layer: hidden states to compare: 0 for the embeddings, None for the last layer.
        device: device of the model; None for CUDA if available.
        batch_size: windows per batch.

    Raises:
        InputError: a value is out of its range.
        ModelError: the model cannot be loaded.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        least_f1: float = LEAST_F1,
        layer: int | None = None,
        device: str | None = None,
        batch_size: int = 32,
    ) -> None:
        if not -1.0 <= least_f1 <= 1.0:
            raise InputError(f"the least F1 is a number from -1 to 1, got {least_f1}")
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        self.least_f1 = least_f1
        self._name = str(model)
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._batch_size = batch_size
        self._model, self._tokenizer = _load(self._name, self._device)
        layers = int(self._model.config.num_hidden_layers)
        if layer is not None and not 0 <= layer <= layers:
            raise InputError(f"{self._name} has hidden states 0 to {layers}, not {layer}")
        self._layer = layers if layer is None else layer
        limits = (self._tokenizer.model_max_length, getattr(self._model.config, "max_position_embeddings", None))
        known = [int(limit) for limit in limits if isinstance(limit, int) and 0 < limit < _NO_LIMIT]
        self._window = min(known, default=512)

    def f1(self, originals: Sequence[str], shortened: Sequence[str]) -> list[float]:
        """BERTScore F1 of each pair, 0 where either text has no token.

        Raises:
            InputError: the two lists differ in length.
        """
        if len(originals) != len(shortened):
            raise InputError(f"{len(originals)} originals, but {len(shortened)} shortened texts")
        found: list[float] = []
        for at in range(0, len(originals), _PAIRS):
            pairs = list(zip(originals[at : at + _PAIRS], shortened[at : at + _PAIRS], strict=True))
            tokens = self._embed({text for pair in pairs for text in pair})
            found += [_f1(*tokens[original], *tokens[short]) for original, short in pairs]
        return found

    @torch.inference_mode()
    def _embed(self, texts: set[str]) -> dict[str, tuple[Tensor, Tensor]]:
        """For each text the (T, d) unit vectors of its tokens, including special ones, and (T,) whether each counts."""
        order = sorted(texts, key=lambda text: (len(text), text))
        valid = [text.encode("utf-8", errors="replace").decode("utf-8") for text in order]
        found = self._tokenizer(
            valid,
            truncation=True,
            max_length=self._window,
            return_overflowing_tokens=True,
            return_special_tokens_mask=True,
            verbose=False,
        )
        vectors: list[list[Tensor]] = [[] for _ in order]
        counts: list[list[int]] = [[] for _ in order]
        windows = [at for at, ids in enumerate(found["input_ids"]) if ids]
        for start in range(0, len(windows), self._batch_size):
            group = windows[start : start + self._batch_size]
            ids = [torch.tensor(found["input_ids"][at]) for at in group]
            seen = torch.nn.utils.rnn.pad_sequence([torch.ones_like(one) for one in ids], batch_first=True)
            padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
            output = self._model(
                input_ids=padded.to(self._device), attention_mask=seen.to(self._device), output_hidden_states=True
            )
            states = torch.nn.functional.normalize(output.hidden_states[self._layer].float(), dim=-1).cpu()
            for row, at in enumerate(group):
                owner = found["overflow_to_sample_mapping"][at]
                vectors[owner].append(states[row, : len(ids[row])])
                counts[owner] += [1 - special for special in found["special_tokens_mask"][at]]
        empty = torch.zeros(0, int(self._model.config.hidden_size))
        return {
            text: (torch.cat([empty, *vectors[at]]), torch.tensor(counts[at], dtype=torch.float32))
            for at, text in enumerate(order)
        }


def _f1(original: Tensor, original_counts: Tensor, short: Tensor, short_counts: Tensor) -> float:
    """F1 from the (T, d) unit vectors and (T,) weights of both texts."""
    if not bool(original_counts.any()) or not bool(short_counts.any()):
        return 0.0
    alike = short @ original.T
    precision = float((alike.amax(1) * short_counts).sum() / short_counts.sum())
    recall = float((alike.amax(0) * original_counts).sum() / original_counts.sum())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _load(name: str, device: str) -> tuple[Any, Any]:
    silence_torchao()
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    folder = path_of(name)
    local = folder.is_dir()
    source = str(folder.resolve()) if local else name
    options = {"local_files_only": local, "trust_remote_code": False}
    try:
        if local:
            check_model_folder(name, folder)
        with quiet():
            config = AutoConfig.from_pretrained(source, **options)
            check_config(name, attention_of(config))
            tokenizer = AutoTokenizer.from_pretrained(source, **options)
            model = AutoModel.from_pretrained(source, dtype=torch.float32, use_safetensors=True, **options)
    except ModelError:
        raise
    except Exception as error:  # transformers and the hub client raise many kinds of errors
        reason = shortened(error, 300) or type(error).__name__
        raise ModelError(
            f"{name}: the guard's model cannot be loaded: {reason}; give the folder of an encoder, "
            "such as roberta-large or all-MiniLM-L6-v2"
        ) from error
    if not tokenizer.is_fast:
        raise ModelError(f"{name}: the guard needs a fast tokenizer (tokenizer.json)")
    if getattr(model.config, "is_encoder_decoder", False):
        model = model.get_encoder()
    return model.eval().to(device), tokenizer


__all__ = ["LEAST_F1", "BertScoreGuard", "Guard"]
