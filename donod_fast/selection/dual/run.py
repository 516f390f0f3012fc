"""Run DualSFT and write a folder: from candidates, a reference set and a model to a subset and a parameter mask.

``DIR/utilities.parquet`` has one row per candidate, ``subset.jsonl`` the original records of the best candidates,
``importance.safetensors`` the column sums, ``mask.safetensors`` the entries for ``donod-fast train --mask``.
``manifest.json`` is written last, so a folder that has one is complete.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from donod_fast.data.grouping import grouped
from donod_fast.data.masking import Masker
from donod_fast.data.types import Status, TokenizedSample
from donod_fast.errors import StoreError
from donod_fast.models.loading import LoadedModel, quiet
from donod_fast.models.parameter_mask import write_mask
from donod_fast.scoring.sample_scorer import Progress
from donod_fast.selection.dual.backward import prove_layers
from donod_fast.selection.dual.choosing import best_rows, parameter_masks
from donod_fast.selection.dual.interactions import Interactions, interact
from donod_fast.selection.dual.layers import Chosen, choose_layers
from donod_fast.selection.dual.objective import Objective, reference_objective
from donod_fast.selection.settings import DualSettings
from donod_fast.selection.subset import write_subset
from donod_fast.system.files import atomic_writer, remove
from donod_fast.system.locking import locked
from donod_fast.system.places import refuse_url

if TYPE_CHECKING:
    from donod_fast.data.reading import Corpus

VERSION = 1
MANIFEST, UTILITIES, SUBSET = "manifest.json", "utilities.parquet", "subset.jsonl"
IMPORTANCE, MASK = "importance.safetensors", "mask.safetensors"
_CHUNK = 1024


@dataclass(frozen=True)
class DualOutcome:
    """Result of a run.

    Attributes:
        out: the folder.
        rows: number of candidates.
        statuses: number of candidates by status.
        kept: number of rows in the subset.
        reference_rows, reference_tokens: number of scored reference rows, and of their target tokens.
        reference_left_out: number of other reference rows by status.
        reference_loss: L in nats.
        parameters: number of entries of the chosen parameters.
        masked: number of entries in the mask.
        tensors: entries, summed importance and entries in the mask, by parameter name.
        order: the order that was used, ``"first"`` or ``"second"``.
    """

    out: Path
    rows: int
    statuses: Counter[str]
    kept: int
    reference_rows: int
    reference_tokens: int
    reference_left_out: Counter[str]
    reference_loss: float
    parameters: int
    masked: int
    tensors: dict[str, dict[str, Any]] = field(repr=False)
    order: str


def dual(
    loaded: LoadedModel,
    corpus: Corpus,
    reference: Corpus,
    out: str | Path,
    settings: DualSettings | None = None,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> DualOutcome:
    """Choose data and parameters, and write them to a folder.

    Args:
        loaded: the model, see :func:`donod_fast.models.loading.load_model`.
        corpus: the candidates.
        reference: the rows whose loss should decrease.
        out: folder to write.
        settings: settings of the run.
        overwrite: replace the results in the folder.
        progress: called with (rows, tokens) after each batch of candidates.

    Raises:
        InputError: a layer is not supported, or the reference set or the corpus has no scored token.
        ModelError: the model is not supported.
        StoreError: the folder already has results, is in use, or cannot be written.
    """
    settings = settings or DualSettings()
    refuse_url(out, "what DualSFT chooses")
    folder = Path(out)
    refuse_folder(folder, overwrite=overwrite)
    with quiet():
        chosen = choose_layers(loaded, settings.layers)
        prove_layers(chosen, workspace_bytes=settings.workspace_bytes)
        masks = settings.masks.limited(loaded.max_length)
        masker = Masker(loaded.tokenizer, masks, vocab_size=int(chosen.head.weight.shape[0]))
        samples = [sample for chunk in _tokenised(reference, masker) for sample in chunk]
        objective = reference_objective(
            chosen,
            samples,
            token_budget=settings.token_budget,
            workspace_bytes=settings.workspace_bytes,
            source=_names(reference),
        )
        found = interact(
            chosen,
            objective,
            _tokenised(corpus, masker),
            lr=settings.lr,
            order=settings.order,
            token_budget=settings.token_budget,
            workspace_bytes=settings.workspace_bytes,
            progress=progress,
        )
    best = best_rows(found.utilities, settings.keep, settings.order)
    with locked(folder):
        refuse_folder(folder, overwrite=overwrite)
        remove(folder / MANIFEST)
        kept = write_subset(corpus, [found.utilities[at].row for at in best], folder / SUBSET, overwrite=True)
        tensors, masked = _write_parameters(folder, found, settings.parameters)
        _write_utilities(folder / UTILITIES, found)
        outcome = DualOutcome(
            out=folder,
            rows=len(found.utilities),
            statuses=Counter(row.status for row in found.utilities),
            kept=kept,
            reference_rows=len(objective.samples),
            reference_tokens=objective.tokens,
            reference_left_out=Counter(str(s.status) for s in samples if s.status is not Status.SCORED),
            reference_loss=objective.loss,
            parameters=sum(value.numel() for value in found.importance.values()),
            masked=masked,
            tensors=tensors,
            order=settings.order,
        )
        manifest = _manifest(chosen, corpus, reference, objective, masker, settings, outcome)
        with atomic_writer(folder / MANIFEST) as file:
            file.write(json.dumps(manifest, indent=2).encode())
    return outcome


def refuse_folder(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder whose content must not be replaced.

    Raises:
        StoreError: it has results, or the manifest of another command.
    """
    file = folder / MANIFEST
    if not file.exists():
        return
    try:
        kind = json.loads(file.read_text(encoding="utf-8")).get("kind")
    except (OSError, ValueError, AttributeError):
        kind = None
    if kind != "dual":
        raise StoreError(f"{folder} does not hold results of `dual`; choose another --out")
    if not overwrite:
        raise StoreError(f"{folder} already has results; choose another --out, or add --overwrite")


def _tokenised(corpus: Corpus, masker: Masker) -> Iterator[Sequence[TokenizedSample]]:
    for group in grouped(corpus.records(), _CHUNK):
        yield masker.tokenize_many(group)


def _names(corpus: Corpus) -> str:
    return ", ".join(str(source.describe()["name"]) for source in corpus.sources)


def _write_parameters(folder: Path, found: Interactions, share: float) -> tuple[dict[str, dict[str, Any]], int]:
    """Write importance and mask; return their content by parameter and the number of entries in the mask."""
    from safetensors.torch import save

    masks = parameter_masks(found.importance, share)
    mask = write_mask(folder / MASK, masks, overwrite=True)
    values = {name: value.detach().cpu().float().contiguous() for name, value in found.importance.items()}
    with atomic_writer(folder / IMPORTANCE) as file:
        file.write(save(values, metadata={"format": "donod-fast parameter importance", "order": found.order}))
    tensors = {
        name: {
            "shape": list(value.shape),
            "entries": value.numel(),
            "importance": float(value.double().sum()),
            "masked": int(masks[name].sum()),
        }
        for name, value in found.importance.items()
    }
    return tensors, mask.entries


def _write_utilities(path: Path, found: Interactions) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = found.utilities
    table = pa.table(
        {
            "row": pa.array([row.row for row in rows], pa.int64()),
            "id": pa.array([row.id for row in rows], pa.string()),
            "status": pa.array([row.status for row in rows], pa.string()),
            "detail": pa.array([row.detail for row in rows], pa.string()),
            "scored_tokens": pa.array([row.scored_tokens for row in rows], pa.int32()),
            "loss": pa.array([row.loss for row in rows], pa.float64()),
            "utility_first": pa.array([row.first for row in rows], pa.float64()),
            "utility_second": pa.array([row.second for row in rows], pa.float64()),
        }
    )
    with atomic_writer(path) as file:
        pq.write_table(table, file)


def _manifest(
    chosen: Chosen,
    corpus: Corpus,
    reference: Corpus,
    objective: Objective,
    masker: Masker,
    settings: DualSettings,
    outcome: DualOutcome,
) -> dict[str, Any]:
    import platform
    from importlib.metadata import version

    loaded = chosen.loaded
    said: Mapping[str, Any] = asdict(settings)
    return {
        "kind": "dual",
        "version": VERSION,
        "method": "DualSFT (arXiv 2605.06166), our reading",
        "curvature": "exact Gauss-Newton" if settings.order == "second" else None,
        "settings": {key: value for key, value in said.items() if key not in ("masks", "workspace_bytes")},
        "masks": masker.describe(),
        "model": {
            "name": loaded.name,
            "revision": loaded.revision,
            "fingerprint": loaded.fingerprint,
            "dtype": str(loaded.dtype).removeprefix("torch."),
        },
        "data": corpus.describe(),
        "reference": {
            **reference.describe(),
            "scored_rows": outcome.reference_rows,
            "scored_tokens": outcome.reference_tokens,
            "left_out": dict(outcome.reference_left_out),
            "loss": objective.loss,
        },
        "rows": outcome.rows,
        "statuses": dict(outcome.statuses),
        "kept": outcome.kept,
        "parameters": outcome.tensors,
        "masked": outcome.masked,
        "versions": {name: version(name) for name in ("donod-fast", "torch", "transformers")}
        | {"python": platform.python_version()},
    }


__all__ = ["DualOutcome", "DualSettings", "dual", "refuse_folder"]
