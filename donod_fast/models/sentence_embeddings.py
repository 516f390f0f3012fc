"""Embed texts as unit vectors with a sentence-transformers model, for K-Means + IFD and DaMoC's filters.

No network is needed if the model is a folder. Only the question of a record is embedded (:func:`question_text`).
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from donod_fast.data.conversations import shown
from donod_fast.data.types import Conversation, PlainText, PromptCompletion, Sample, SampleError, Status
from donod_fast.errors import InputError, ModelError
from donod_fast.models.folder_guard import check_config, check_model_folder
from donod_fast.models.loading import quiet
from donod_fast.models.precision import silence_torchao
from donod_fast.system.places import path_of
from donod_fast.system.wording import shortened

Embeddings = npt.NDArray[np.float32]
"""(n, d) float32, each row of length 1."""

BATCH = 64


def embed_texts(texts: Sequence[str], model: Any, *, batch_size: int = BATCH, device: str | None = None) -> Embeddings:
    """Embed each text, in the order given.

    The model's own modules define the pooling; a folder without any (a plain transformers model) is mean-pooled.
    sentence-transformers truncates texts that exceed the model's length. Except for rounding, the vector of a text does
    not depend on the other texts.

    Args:
        texts: n strings.
        model: folder or Hub id of a sentence-transformers model, or a loaded model (:func:`load_embedder`).
        batch_size: texts per batch.
        device: device for a model that is not loaded yet; None for the library's own choice.

    Returns:
        (n, d) float32; every row has Euclidean norm 1.

    Raises:
        InputError: a text is not a string, or the library is missing.
        ModelError: the model cannot be loaded, or returns a vector without a direction (zero, NaN, infinite).
    """
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"text {row} to embed is a {type(text).__name__}, not a string")
    embedder = load_embedder(model, device=device) if isinstance(model, (str, Path)) else model
    # A lone surrogate is legal in JSON, but no tokenizer accepts it.
    valid = [text.encode("utf-8", errors="replace").decode("utf-8") for text in texts]
    if not valid:
        return np.zeros((0, int(embedder.get_embedding_dimension())), dtype=np.float32)
    with quiet():
        found = embedder.encode(valid, batch_size=batch_size, convert_to_numpy=True, show_progress_bar=False)
    return unit_rows(np.asarray(found), "the sentence-transformers model's vector of text")


def load_embedder(name_or_path: str | Path, *, device: str | None = None) -> Any:
    """Load a sentence-transformers model. A folder is read without contacting the Hub.

    Raises:
        InputError: the library is missing.
        ModelError: the model does not exist or cannot be loaded.
    """
    name = str(name_or_path)
    silence_torchao()
    try:
        library: Any = importlib.import_module("sentence_transformers")
    except ImportError as error:
        raise InputError(
            "embeddings of texts need sentence-transformers: pip install 'donod-fast[criteria]'"
        ) from error
    folder = path_of(name)
    local = folder.is_dir()
    if not local and (isinstance(name_or_path, Path) or name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise ModelError(
            f"{name}: there is no such folder; give the folder of a sentence-transformers model, or a hub id"
        )
    try:
        if local:
            check_model_folder(name, folder)
        with quiet():
            if not local:
                _check_hub_config(name)
            # float32: half precision is not faster on a CPU, and these models are small.
            options: dict[str, Any] = {"device": device, "local_files_only": local, "trust_remote_code": False}
            options["model_kwargs"] = {"dtype": torch.float32}
            return library.SentenceTransformer(str(folder.resolve()) if local else name, **options)
    except ModelError:
        raise
    except Exception as error:  # the library, transformers and the Hub client raise many kinds of errors
        reason = shortened(error, 300) or type(error).__name__
        raise ModelError(
            f"{name}: cannot be loaded as a sentence-transformers model: {reason}; give a model folder, for example "
            "a download of sentence-transformers/all-mpnet-base-v2"
        ) from error


def _check_hub_config(name: str) -> None:
    """Check a hub model's config before its weights are loaded."""
    from transformers import PretrainedConfig

    check_config(name, PretrainedConfig.get_config_dict(name)[0])


def unit_rows(vectors: npt.NDArray[Any], what: str = "embedding") -> Embeddings:
    """Scale vectors to length 1, as float32.

    Args:
        vectors: (n, d) of any real dtype.
        what: name of a row in error messages.

    Raises:
        InputError: the vectors are not an (n, d) matrix of numbers.
        ModelError: a row is zero or not finite; the message names the first such row.
    """
    if vectors.ndim != 2 or not vectors.shape[1] or vectors.dtype.kind not in "fiu":
        raise InputError(f"embeddings are an (n, d) array of numbers, got {vectors.dtype} of shape {vectors.shape}")
    wide = vectors.astype(np.float64)
    with np.errstate(all="ignore"):  # bad rows are reported below
        largest = np.abs(wide).max(axis=1, keepdims=True, initial=0.0)
        wide = wide / largest  # so that squares do not overflow
        lengths = np.sqrt(np.einsum("nd,nd->n", wide, wide))
    bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0) & np.isfinite(largest[:, 0])))
    if len(bad):
        raise ModelError(f"{what} {bad[0]} has no direction: it is zero or not finite")
    return np.asarray(wide / lengths[:, None], dtype=np.float32)


def question_text(sample: Sample) -> str:
    """Question of a sample: the user's turns of a conversation, a prompt, or a whole plain text.

    Turns are joined by an empty line. System texts, answers and tools are not part of the question.

    Raises:
        SampleError: the sample has tokens only, no text.
    """
    match sample:
        case Conversation(messages):
            return "\n\n".join(turn.content for turn in messages if turn.role == "user")
        case PromptCompletion(prompt):
            return prompt
        case PlainText(text):
            return text
        case _:
            detail = f"a row of tokens ({shown(list(sample.input_ids))}) has no text to embed; give the records as text"
            raise SampleError(Status.UNKNOWN_FORMAT, detail)


__all__ = ["Embeddings", "embed_texts", "load_embedder", "question_text", "unit_rows"]
