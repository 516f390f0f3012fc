"""The recipe of ``donod-fast damoc``: the candidates, the data, and the steps of DaMoC (arXiv 2509.01221).

It is read like the recipes of training: an unknown key or a value of a wrong type is refused with its place. Relative
paths are relative to the recipe's own folder, ``package:…`` names files inside the installed package, and ``family:…``
the generated family of tasks. Every step is optional: an absent section does nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from donod_fast.errors import InputError
from donod_fast.studies.damoc.pruning import MAX_SHARE, THRESHOLD
from donod_fast.system.places import path_of
from donod_fast.training import recipe_files
from donod_fast.training.recipe import EvalSection, Name, Positive, Section, Share, TrainSettings

try:
    from pydantic import Field, model_validator
except ImportError as error:
    raise InputError("recipes need pydantic: pip install 'donod-fast[train]'") from error

_PATHS = (
    "data",
    "heldout",
    "eval.problems",
    "candidates.model",
    "candidates.base",
    "filter.scores",
    "filter.embeddings",
    "compress.model",
    "compress.guard",
    "train.template",
)


class CandidateSection(Section):
    """A model that may be fine-tuned.

    Attributes:
        name: unique name for reports.
        model: folder or hub id.
        revision: revision of a hub model.
        base: folder or hub id of the pre-trained weights from which ``model`` was fine-tuned; task vectors of pruned
            layers are differences from them. None: pruned layers are not merged.
        base_revision: revision of a hub model.
    """

    name: Name
    model: Name
    revision: str | None = None
    base: Name | None = None
    base_revision: str | None = None


class FilterSection(Section):
    """Filter of the rows that candidates are trained on.

    Attributes:
        method: ``"none"`` (all rows), ``"random"``, ``"graph_cut"`` (distribution-aware) or ``"quality"`` (the best
            by a column of scores). In the paper 10 to 20 % of the rows keep the order of models, 5 % do not.
        share: share of the rows, rounded to the nearest count, at least one.
        seed: seed of ``random``.
        trade_off: λ of ``graph_cut``'s objective, below 0.5.
        embeddings: folder or hub id of the sentence-transformers model that embeds questions for ``graph_cut``.
        scores: a scores folder over the same data, for ``quality``.
        column: column of its table.
        better: end of the column that is kept.
    """

    method: Literal["none", "random", "graph_cut", "quality"] = "none"
    share: Share = 0.2
    seed: Annotated[int, Field(ge=0)] = 0
    trade_off: Annotated[float, Field(ge=0.0, lt=0.5)] = 0.4
    embeddings: Name | None = None
    scores: Name | None = None
    column: Name | None = None
    better: Literal["high", "low"] = "high"

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> FilterSection:
        if self.method == "graph_cut" and self.embeddings is None:
            raise ValueError("graph_cut needs embeddings: the folder or hub id of a sentence-transformers model")
        if self.method == "quality" and (self.scores is None or self.column is None):
            raise ValueError("quality needs scores (a scores folder over the same data) and column (of its table)")
        return self


class RewriterSection(Section):
    """An OpenAI-compatible endpoint that rewrites texts that compression would damage.

    Attributes:
        base_url: URL such as ``http://127.0.0.1:8000/v1``.
        model: name of the model at the endpoint.
        api_key_env: the environment variable that holds the key.
    """

    base_url: Name
    model: Name
    api_key_env: Name = "OPENAI_API_KEY"


class CompressSection(Section):
    """Compression of rows before training.

    Attributes:
        method: ``"none"``, or ``"perplexity"``: drop words of lowest conditional perplexity.
        model: folder or hub id of the causal model that measures it; the same for all candidates.
        fields: sides of a record to compress: ``instruction``, ``input``, ``response``.
        ratio: approximate share of a text's tokens to keep.
        guard: folder or hub id of the model behind BERTScore; None for no guard.
        least_f1: a compressed text with a lower F1 against the original is rewritten, or the original kept.
        rewriter: endpoint that rewrites it.
    """

    method: Literal["none", "perplexity"] = "none"
    model: Name | None = None
    fields: Annotated[tuple[Literal["instruction", "input", "response"], ...], Field(min_length=1)] = (
        "instruction",
        "input",
    )
    ratio: Share = 0.5
    guard: Name | None = None
    least_f1: Annotated[float, Field(ge=-1.0, le=1.0)] = 0.9
    rewriter: RewriterSection | None = None

    @model_validator(mode="after")
    def _has_a_model(self) -> CompressSection:
        if self.method != "none" and self.model is None:
            raise ValueError("perplexity needs model: the folder or hub id of a causal language model")
        if self.rewriter is not None and self.guard is None:
            raise ValueError("a rewriter is asked where the guard refuses: name guard too")
        return self


class PruneSection(Section):
    """Pruning of candidates before training; see ``pruning.py`` and ``task_vectors.py``.

    Attributes:
        method: ``"none"`` or ``"similarity"``.
        threshold: layers with a similarity at or above it are removed.
        max_share: maximum share of removed layers.
        rows: number of training rows (the first ones after filter and compression) on which similarity is measured.
        density: share of a pruned layer's task vector that is merged.
        scale: factor of the merged task vector.
    """

    method: Literal["none", "similarity"] = "none"
    threshold: Annotated[float, Field(ge=-1.0, le=1.0)] = THRESHOLD
    max_share: Annotated[float, Field(ge=0.0, le=1.0)] = MAX_SHARE
    rows: Positive = 64
    density: Share = 0.2
    scale: float = 1.0


class CandidateTraining(TrainSettings):
    """Training of every candidate. The candidate is the model, and a parameter mask would fit only one candidate.

    The texts of records are found and rewritten by the usual names of their columns.
    """

    model: Literal["candidate"] = "candidate"
    revision: None = None
    parameter_mask: None = None
    columns: None = None
    preference: None = None
    text_only: Literal[False] = False


class DamocRecipe(Section):
    """A whole recipe.

    Attributes:
        name: short name for the report.
        description: one paragraph for readers.
        candidates: the candidates; their order breaks ties.
        data: files, globs, saved datasets or hub ids with the data to fine-tune on.
        split, data_revision: split of a saved or hub dataset, revision of a hub dataset.
        filter, compress, prune: DaMoC's steps.
        train: training of every candidate; one epoch by default.
        heldout: files whose loss ranks the candidates if there is no ``eval``; otherwise it breaks ties.
        eval: a benchmark; pass@k at the first ``pass_at`` ranks the candidates.
        compare: also fine-tune every unpruned candidate on all the data, and report how far the two rankings agree.
        full_epochs: passes over the data in that training.
    """

    name: Name
    description: str = ""
    candidates: Annotated[tuple[CandidateSection, ...], Field(min_length=1)]
    data: Annotated[tuple[Name, ...], Field(min_length=1)]
    split: Name = "train"
    data_revision: str | None = None
    filter: FilterSection = FilterSection()
    compress: CompressSection = CompressSection()
    prune: PruneSection = PruneSection()
    train: CandidateTraining = CandidateTraining()
    heldout: tuple[Name, ...] = ()
    eval: EvalSection | None = None
    compare: bool = False
    full_epochs: Annotated[float, Field(gt=0.0)] = 1.0

    @model_validator(mode="after")
    def _can_rank(self) -> DamocRecipe:
        names = [one.name for one in self.candidates]
        twice = next((name for at, name in enumerate(names) if name in names[:at]), None)
        if twice is not None:
            raise ValueError(f"two candidates are named {twice}; give each a unique name")
        if not self.heldout and self.eval is None:
            raise ValueError("nothing ranks the candidates: name heldout files, or a benchmark under eval")
        return self

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return self.model_dump(mode="json")


def load_damoc_recipe(path: str | Path, overrides: Iterable[str] = ()) -> DamocRecipe:
    """Read a recipe from a YAML file.

    Args:
        path: the file.
        overrides: ``section.key=value`` strings, as those of :func:`donod_fast.training.load_recipe`.

    Raises:
        InputError: no such file, invalid YAML, an unknown key, or a value of a wrong type; names the file, the key
            and the remedy.
    """
    file = path_of(path)
    if not file.is_file():
        raise InputError(f"{path}: no such recipe file; give the path of a .yaml file")
    return recipe_files.load(DamocRecipe, file, overrides, paths=_PATHS)


def damoc_recipe_from(
    values: Mapping[str, Any], overrides: Iterable[str] = (), *, where: str = "recipe"
) -> DamocRecipe:
    """Validate plain values (as YAML gives them) as a recipe; see :func:`donod_fast.training.recipe_files.validated`.

    Raises:
        InputError: an unknown key, or a value of a wrong type.
    """
    return recipe_files.validated(DamocRecipe, values, overrides, where=where)


__all__ = [
    "CandidateSection",
    "CandidateTraining",
    "CompressSection",
    "DamocRecipe",
    "FilterSection",
    "PruneSection",
    "RewriterSection",
    "damoc_recipe_from",
    "load_damoc_recipe",
]
