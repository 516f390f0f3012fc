"""Output-layer focus (DONOD, arXiv 2504.14810, Figures 3 and 6–11): is it enough to score the output layer alone?

The study answers this in two ways:

- *After training.* A model is fine-tuned on several corpora. By how much did each weight matrix move, ‖W_after −
  W_before‖_F, absolutely, relative to ‖W_before‖_F, and per weight? Where does the output layer stand?
- *By sample.* DON and NOD of every parameter (``layers.py``), and so of each layer and of the whole model: do they
  rank samples as the output layer alone does (Spearman's correlation, overlap of the best 30 %)?
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from donod_fast.data.types import Status, TokenizedSample
from donod_fast.errors import InputError
from donod_fast.kernels import topsis
from donod_fast.models.loading import LoadedModel, load_model
from donod_fast.scoring.settings import UpdateSettings
from donod_fast.selection.rank_correlation import spearman
from donod_fast.studies.core.cells import Cell, CellStore
from donod_fast.studies.core.finetune import tokenized
from donod_fast.studies.core.layers import WHOLE, LayerScores, layer_groups, layer_scores, short_name
from donod_fast.studies.core.scored import digest, model_key
from donod_fast.studies.core.statistics import Estimate, overlap, proportion
from donod_fast.studies.core.study_data import StudyData
from donod_fast.studies.core.tables import need
from donod_fast.studies.focus.report import write_focus_report
from donod_fast.studies.focus.result import Agreement, FocusResult, Moved
from donod_fast.studies.focus.settings import FocusSettings
from donod_fast.system.wording import plural

REST, SUM = "all but the output layer", "sum over matrices"
_CHUNK = 32  # samples per cell
_DRAWS = 2000  # of the bootstrap


def run_focus(
    out: Path,
    model: str | Path | LoadedModel,
    corpora: Mapping[str, StudyData],
    settings: FocusSettings | None = None,
    *,
    cells: Path | None = None,
    on_cell: Callable[[Cell], None] | None = None,
) -> FocusResult:
    """Run the study, or resume it.

    Writes ``report.md``, ``moved.csv``, ``agreement.csv``, ``result.json`` and, if matplotlib is installed,
    ``moved.png`` and ``agreement.png`` into ``out``.

    Args:
        out: the study's folder; finished work is cached in its ``cells``.
        model: the model to fine-tune and to score with, in float32.
        corpora: corpora to fine-tune on, by name; samples of the first are scored. Held-out parts are not used.
        settings: rows, seeds, optimizers and updates; None for the defaults.
        cells: a folder whose finished cells are used and added to; None for ``out``.
        on_cell: called with each finished cell.

    Raises:
        InputError: names an argument with a wrong value.
        CorpusError, ModelError, StoreError: as their names say.
    """
    need("scipy", "study")
    need("trl", "train")
    settings = settings or FocusSettings()
    if not corpora:
        raise InputError("at least one corpus is needed")
    loaded = model if isinstance(model, LoadedModel) else load_model(model, dtype="float32")
    store = CellStore(out if cells is None else cells, on_cell)
    moved: list[Moved] = []
    for corpus, data in corpora.items():
        some = _ready(loaded, data, settings.train_rows)
        for name, fields in settings.optimizers.items():
            deltas = [
                _trained_deltas(store, loaded, some, {**settings.fields, **fields, "seed": seed})
                for seed in range(settings.seeds)
            ]
            moved += _moved(corpus, name, loaded.model, deltas)
    agreements: list[Agreement] = []
    first = next(iter(corpora.values()))
    scored = 0
    if settings.rows:
        some = _ready(loaded, first, settings.rows)
        scored = len(some.samples)
        for update in settings.updates:
            scores = _all_scores(store, loaded, some, UpdateSettings(update, lr=settings.lr))
            agreements += _agreements(update, scores, settings.keep, settings.normalise)
    network: Any = loaded.model
    recorded = {
        "model": loaded.name,
        "fingerprint": loaded.fingerprint,
        "tied": network.get_output_embeddings().weight is network.get_input_embeddings().weight,
        "corpora": list(corpora),
        "skip": {name: data.skip for name, data in corpora.items()},
        **settings.as_dict(),
        "rows": scored,
        "masks": first.mask_values(),
    }
    result = FocusResult(recorded, tuple(moved), tuple(agreements))
    write_focus_report(out, result)
    return result


def weight_deltas(before: Any, after: Any) -> dict[str, float]:
    """‖W_after − W_before‖_F of every parameter of two models of one architecture, by name.

    Raises:
        InputError: their parameters differ in name or shape.
    """
    first, second = dict(before.named_parameters()), dict(after.named_parameters())
    if {name: p.shape for name, p in first.items()} != {name: p.shape for name, p in second.items()}:
        raise InputError("the two models have different parameters; merge adapters first")
    return {name: float((second[name].detach().double() - first[name].detach().double()).norm()) for name in first}


def agreement(first: Tensor, second: Tensor, *, draws: int = _DRAWS, seed: int = 0) -> Estimate:
    """Spearman's correlation of two (n,) columns, with a percentile bootstrap interval over rows.

    Raises:
        InputError: lengths differ, fewer than two rows, or a NaN.
    """
    from scipy.stats import rankdata

    if first.shape != second.shape or len(first) < 2 or first.isnan().any() or second.isnan().any():
        raise InputError(f"two columns of equal length ≥ 2 without NaN are needed, got {len(first)} and {len(second)}")
    value = spearman(first.double(), second.double())
    a, b = first.double().numpy(), second.double().numpy()
    drawn = np.random.default_rng(seed).integers(0, len(a), (draws, len(a)))
    ranks = [rankdata(column[drawn], axis=1) - (len(a) + 1) / 2 for column in (a, b)]
    found: NDArray[np.float64] = _correlations(*ranks)
    found = found[np.isfinite(found)]  # a draw of one row only has no correlation
    if not len(found):
        return Estimate(value, -1.0, 1.0)
    low, high = np.quantile(found, [0.025, 0.975])
    return Estimate(value, float(low), float(high))


def _correlations(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        found: NDArray[np.float64] = (a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return found


@dataclass(frozen=True)
class _Samples:
    """The rows of a corpus that can be scored, and the identification of rows, model and masks in a cell."""

    samples: Sequence[TokenizedSample]
    key: Mapping[str, Any]


def _ready(loaded: LoadedModel, data: StudyData, count: int) -> _Samples:
    records = data.read(count)
    samples = [one for one in tokenized(loaded, records, data.masks) if one.status is Status.SCORED]
    if len(samples) < 2:
        raise InputError(
            f"only {len(samples)} of {plural(len(records), 'row')} can be scored; `donod-fast score` says why"
        )
    return _Samples(samples, {**model_key(loaded, data.masks), "records": digest(records)})


def _trained_deltas(
    store: CellStore, loaded: LoadedModel, some: _Samples, fields: Mapping[str, Any]
) -> Mapping[str, float]:
    from donod_fast.training.recipe import TrainSettings
    from donod_fast.training.trainer import train_model

    settings = TrainSettings(model=loaded.name, dtype="float32", **fields)

    def work(_: Path) -> Mapping[str, Any]:
        after = copy.deepcopy(loaded.model).requires_grad_(True)
        stats = train_model(after, loaded.tokenizer, some.samples, settings)
        return {"deltas": weight_deltas(loaded.model, after), "steps": stats.steps, "tokens": stats.tokens}

    decisive = {**settings.model_dump(mode="json", exclude={"model"}), **some.key}
    deltas: Mapping[str, float] = store.result("moved", decisive, work).result["deltas"]
    return deltas


def _moved(corpus: str, optimizer: str, model: Any, deltas: Sequence[Mapping[str, float]]) -> list[Moved]:
    """Matrices, then layers, largest change first. A layer's delta is the norm over its parameters."""
    parameters = dict(model.named_parameters())
    head = model.get_output_embeddings().weight
    output = next(name for name, parameter in parameters.items() if parameter is head)
    norms = {name: float(parameter.detach().double().norm()) for name, parameter in parameters.items()}

    def one(name: str, members: Sequence[str], *, layer: bool) -> Moved:
        mean = float(np.mean([np.sqrt(sum(seed[member] ** 2 for member in members)) for seed in deltas]))
        weights = sum(parameters[member].numel() for member in members)
        norm = float(np.sqrt(sum(norms[member] ** 2 for member in members)))
        relative = mean / norm if norm else float("nan")
        return Moved(
            corpus, optimizer, name, layer, weights, mean, relative, mean / float(np.sqrt(weights)), output in members
        )

    matrices = [one(short_name(n), [n], layer=False) for n, p in parameters.items() if p.dim() >= 2]
    layers = [one(name, members, layer=True) for name, members in layer_groups(list(parameters)).items()]
    return [*_farthest_first(matrices), *_farthest_first(layers)]


def _farthest_first(some: Sequence[Moved]) -> list[Moved]:
    return sorted(some, key=lambda one: -one.delta)


def _all_scores(store: CellStore, loaded: LoadedModel, some: _Samples, update: UpdateSettings) -> LayerScores:
    parts: list[Mapping[str, Any]] = []
    for at in range(0, len(some.samples), _CHUNK):
        chunk = some.samples[at : at + _CHUNK]

        def work(_: Path, chunk: Sequence[TokenizedSample] = chunk) -> Mapping[str, Any]:
            found = layer_scores(loaded, chunk, update)
            tensors = ("weight_norm_sq", "weight_dot_update", "update_norm_sq", "loss")
            plain = {name: getattr(found, name).tolist() for name in tensors}
            return {"names": found.names, "shapes": found.shapes, "output": found.output, **plain}

        decisive = {"update": update.as_dict(), "first": at, "rows": len(chunk), **some.key}
        parts.append(store.result("layers", decisive, work).result)

    def joined(name: str) -> Tensor:
        return torch.cat([torch.tensor(part[name], dtype=torch.float64) for part in parts])

    return LayerScores(
        names=tuple(parts[0]["names"]),
        shapes=tuple(tuple(shape) for shape in parts[0]["shapes"]),
        output=parts[0]["output"],
        weight_norm_sq=torch.tensor(parts[0]["weight_norm_sq"], dtype=torch.float64),
        weight_dot_update=joined("weight_dot_update"),
        update_norm_sq=joined("update_norm_sq"),
        loss=joined("loss"),
        lr=update.lr,
    )


def _agreements(update: str, scores: LayerScores, keep: float, normalise: str) -> list[Agreement]:
    """Agreement of every group of parameters with the output layer."""
    don, nod = scores.of([scores.output])
    closeness = topsis(don, nod, normalise=normalise)
    kept = max(1, round(keep * len(don)))
    whole_sq = scores.update_norm_sq.sum(1)
    names, matrices = list(scores.names), scores.matrices()

    def one(name: str, kind: str, other: tuple[Tensor, Tensor], members: Sequence[str]) -> Agreement:
        their = topsis(*other, normalise=normalise)
        best, theirs = (c.argsort(descending=True, stable=True)[:kept].tolist() for c in (closeness, their))
        part = scores.update_norm_sq[:, [names.index(member) for member in members]].sum(1)
        return Agreement(
            update,
            name,
            kind,
            don=agreement(don, other[0]),
            nod=agreement(nod, other[1]),
            closeness=agreement(closeness, their),
            best=proportion(round(overlap(best, theirs) * kept), kept),
            nod_share=float((part / whole_sq).mean()),
        )

    rest = [name for name in names if name != scores.output]
    each = [scores.of([name]) for name in matrices]
    added = (torch.stack([d for d, _ in each]).sum(0), torch.stack([n for _, n in each]).sum(0))
    together = [(WHOLE, scores.of(names), names), (SUM, added, matrices), (REST, scores.of(rest), rest)]
    return [
        *(one(name, "together", found, members) for name, found, members in together),
        *(one(name, "layer", scores.of(members), members) for name, members in scores.groups().items()),
        *(one(short_name(n), "matrix", found, [n]) for n, found in zip(matrices, each, strict=True)),
    ]


__all__ = ["REST", "SUM", "agreement", "run_focus", "weight_deltas"]
