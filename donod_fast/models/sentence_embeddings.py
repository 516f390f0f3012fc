"""Texts → unit vectors by a sentence-transformers model: the embeddings that K-Means + IFD and DaMoC's filters take.

Offline where the model is a folder. Of a record its question alone is embedded (:func:`question_text`).
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
from donod_fast.models.loading import quiet
from donod_fast.models.precision import silence_torchao

Embeddings = npt.NDArray[np.float32]
"""(n, d) float32, each row of length 1."""

BATCH = 64


def embed_texts(texts: Sequence[str], model: Any, *, batch_size: int = BATCH, device: str | None = None) -> Embeddings:
    """Embed each text, in the order given.

    The model's own modules decide the pooling; a folder without any (a plain transformers model) is mean-pooled.
    A text beyond the model's length is cut there, as sentence-transformers does. A text's vector does not depend on
    the others beyond the rounding of its batch.

    Args:
        texts: n strings.
        model: the folder or hub id of a sentence-transformers model, or one that is loaded (:func:`load_embedder`).
        batch_size: texts run at once.
        device: where a model that is not loaded yet goes; None for the library's own choice.

    Returns:
        (n, d) float32, rows of length 1 in the Euclidean norm.

    Raises:
        InputError: a text is no string, or the library is missing.
        ModelError: the model cannot be loaded, or gives a vector that has no direction (zero, NaN, infinite).
    """
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"text {row} to embed is a {type(text).__name__}, not a string")
    embedder = load_embedder(model, device=device) if isinstance(model, (str, Path)) else model
    # A lone surrogate is legal in JSON and no tokenizer takes it.
    valid = [text.encode("utf-8", errors="replace").decode("utf-8") for text in texts]
    if not valid:
        return np.zeros((0, int(embedder.get_embedding_dimension())), dtype=np.float32)
    with quiet():
        found = embedder.encode(valid, batch_size=batch_size, convert_to_numpy=True, show_progress_bar=False)
    return unit_rows(np.asarray(found), "the sentence-transformers model's vector of text")


def load_embedder(name_or_path: str | Path, *, device: str | None = None) -> Any:
    """Load a sentence-transformers model. A folder is read without a look at the hub.

    Raises:
        InputError: the library is missing.
        ModelError: there is no such model, or it cannot be loaded.
    """
    name = str(name_or_path)
    silence_torchao()
    try:
        library: Any = importlib.import_module("sentence_transformers")
    except ImportError as error:
        raise InputError(
            "embeddings of texts need sentence-transformers: pip install 'donod-fast[criteria]'"
        ) from error
    folder = Path(name).expanduser()
    local = folder.is_dir()
    if not local and (isinstance(name_or_path, Path) or name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise ModelError(
            f"{name}: there is no such folder; give the folder of a sentence-transformers model, or a hub id"
        )
    try:
        with quiet():
            # float32: half precision gains nothing on a CPU, and these models are small.
            options = {"device": device, "local_files_only": local, "model_kwargs": {"dtype": torch.float32}}
            return library.SentenceTransformer(str(folder) if local else name, **options)
    except Exception as error:  # the library, transformers and the hub client raise nearly everything
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModelError(
            f"{name}: cannot be loaded as a sentence-transformers model: {reason}; give a model folder, for example "
            "a download of sentence-transformers/all-mpnet-base-v2"
        ) from error


def unit_rows(vectors: npt.NDArray[Any], what: str = "embedding") -> Embeddings:
    """Vectors scaled to length 1, as float32.

    Args:
        vectors: (n, d) of any real dtype.
        what: what a row is called in the message about a bad one.

    Raises:
        InputError: they are no (n, d) matrix of numbers.
        ModelError: a row is zero or not finite; the message names the first.
    """
    if vectors.ndim != 2 or not vectors.shape[1] or vectors.dtype.kind not in "fiu":
        raise InputError(f"embeddings are an (n, d) array of numbers, got {vectors.dtype} of shape {vectors.shape}")
    wide = vectors.astype(np.float64)
    with np.errstate(all="ignore"):  # what is wrong is named below
        largest = np.abs(wide).max(axis=1, keepdims=True, initial=0.0)
        wide = wide / largest  # so that no square overflows
        lengths = np.sqrt(np.einsum("nd,nd->n", wide, wide))
    bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0) & np.isfinite(largest[:, 0])))
    if len(bad):
        raise ModelError(f"{what} {bad[0]} has no direction: it is zero or not finite")
    return np.asarray(wide / lengths[:, None], dtype=np.float32)


def question_text(sample: Sample) -> str:
    """What a sample asks: the user's turns of a conversation, a prompt, or the whole of a plain text.

    The turns are joined by an empty line; system texts, answers and tools are no part of the question.

    Raises:
        SampleError: the sample is tokens only, which have no text.
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
