"""The recipe of ``donod-fast study paper``: models, corpora, methods, shares, measures and parts of the study.

It is read like the recipes of training: an unknown key or a value of a wrong type is refused with its place. Relative
paths are relative to the recipe's own folder, and ``package:…`` names files inside the installed package.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from donod_fast.errors import InputError
from donod_fast.studies.evidence.plan import LEAST_SEEDS
from donod_fast.studies.paper.sections import (
    AblationSection,
    BenchmarkSection,
    Count,
    FocusSection,
    HeldOutSection,
    ModelSection,
    NoiseSection,
    PairSection,
    PoolSection,
    RandomSection,
    StabilitySection,
    TuningSection,
)
from donod_fast.training import recipe_files
from donod_fast.training.recipe import Name, Section, Share

try:
    from pydantic import Field, field_validator, model_validator
except ImportError as error:
    raise InputError("recipes need pydantic: pip install 'donod-fast[train]'") from error

_PATHS = (
    "models.model",
    "pools.data",
    "pools.template",
    "heldouts.data",
    "heldouts.template",
    "benchmarks.problems",
    "reference",
)


class PaperRecipe(Section):
    """What ``donod-fast study paper`` does.

    Attributes:
        name: short, for reports.
        description: one paragraph for a reader.
        models: the models by name.
        pairs: which model scores and which is trained; the first pair is that of the parts below.
        pools: the corpora to select from.
        heldouts: rows whose loss is measured.
        benchmarks: benchmarks that are measured.
        methods: ranking methods; ``all`` and random draws are always there.
        shares: shares of the rows to keep.
        random: the random draws.
        seeds: seeds of training, at least two.
        tuning: how a selection is trained.
        removal: also train on the corpus without the selection, against random removal.
        reference: a reference set, for methods that need one.
        allow_overlap: accept held-out rows that are also in a corpus.
        noise, stability, focus, ablation: the paper's further experiments; None leaves one out.
    """

    name: Name
    description: str = ""
    models: tuple[ModelSection, ...] = Field(min_length=1)
    pairs: tuple[PairSection, ...] = Field(min_length=1)
    pools: tuple[PoolSection, ...] = Field(min_length=1)
    heldouts: tuple[HeldOutSection, ...] = Field(min_length=1)
    benchmarks: tuple[BenchmarkSection, ...] = ()
    methods: tuple[Name, ...] = Field(("topsis", "nodon", "don", "nod", "loss"), min_length=1)
    shares: tuple[Share, ...] = Field((0.1, 0.2, 0.3), min_length=1)
    random: RandomSection = RandomSection()
    seeds: tuple[Count, ...] = Field((0, 1), min_length=LEAST_SEEDS)
    tuning: TuningSection = TuningSection()
    removal: bool = False
    reference: tuple[Name, ...] = ()
    allow_overlap: bool = False
    noise: NoiseSection | None = None
    stability: StabilitySection | None = None
    focus: FocusSection | None = None
    ablation: AblationSection | None = None

    @field_validator("models", "pools", "heldouts")
    @classmethod
    def _names_are_unique(cls, sections: Sequence[Any]) -> Sequence[Any]:
        names = [one.name for one in sections]
        _refuse_twice(names, "two of them are named {}; give each a unique name")
        return sections

    @field_validator("random")
    @classmethod
    def _kinds_are_unique(cls, section: RandomSection) -> RandomSection:
        _refuse_twice(section.kinds, "the kind {} is there twice; name it once")
        return section

    @field_validator("methods", "shares", "seeds", "pairs", "benchmarks")
    @classmethod
    def _nothing_is_there_twice(cls, values: Sequence[Any]) -> Sequence[Any]:
        _refuse_twice([getattr(value, "benchmark", value) for value in values], "{} is there twice; name it once")
        return values

    @field_validator("shares")
    @classmethod
    def _shares_leave_something(cls, shares: Sequence[float]) -> Sequence[float]:
        if any(share >= 1.0 for share in shares):
            raise ValueError("a share of 1 keeps all rows, which are trained on in any case; name shares below 1")
        return shares

    @field_validator("methods")
    @classmethod
    def _methods_rank(cls, methods: Sequence[str]) -> Sequence[str]:
        from donod_fast.studies.core.selecting import Selection

        for method in methods:
            if method in ("all", "random"):
                raise ValueError(f"{method} is always there; name ranking methods only")
            try:
                Selection(method, keep=0.5)
            except InputError as error:
                raise ValueError(str(error)) from error
        return methods

    @model_validator(mode="after")
    def _each_draw_has_its_seeds(self) -> PaperRecipe:
        if self.random.seeds_each > len(self.seeds):
            raise ValueError(
                f"random.seeds_each is {self.random.seeds_each}, but there are only {len(self.seeds)} seeds; lower it"
            )
        return self

    @model_validator(mode="after")
    def _pairs_name_models(self) -> PaperRecipe:
        known = [one.name for one in self.models]
        for at, pair in enumerate(self.pairs):
            for field in ("score", "train"):
                name = getattr(pair, field)
                if name not in known:
                    raise ValueError(f"pairs.{at}.{field} is {name}, but the models are {', '.join(known)}")
        return self

    @model_validator(mode="after")
    def _both_domains_are_measured(self) -> PaperRecipe:
        """The paper's claim is about both, so a study of one domain alone cannot test it."""
        measured = {one.domain for one in self.heldouts} | {d for one in self.benchmarks for d in one.domains}
        for pool in self.pools:
            if pool.domain not in measured:
                raise ValueError(
                    f"nothing measures the target of {pool.name}: name held-out rows of the domain {pool.domain}"
                )
            if measured == {pool.domain}:
                raise ValueError(
                    f"nothing outside the domain {pool.domain} of {pool.name} is measured, and the paper's claim is "
                    "about both; name held-out rows of another domain"
                )
        return self

    @model_validator(mode="after")
    def _heldout_rows_are_not_trained_on(self) -> PaperRecipe:
        for pool in () if self.allow_overlap else self.pools:
            for held in self.heldouts:
                same = set(pool.data) & set(held.data)
                if same and _ranges_meet(pool, held):
                    raise ValueError(
                        f"the held-out rows {held.name} are among those of {pool.name} in {sorted(same)[0]}; skip the "
                        "rows of the other, or name another file"
                    )
        return self

    @model_validator(mode="after")
    def _benchmarks_have_problems(self) -> PaperRecipe:
        for at, one in enumerate(self.benchmarks):
            if one.problems is None and (one.stated_problems is None or one.stated_tokens is None):
                raise ValueError(
                    f"benchmarks.{at} names no problems; name the file or folder of {one.benchmark}, or for a plan "
                    "alone stated_problems and stated_tokens"
                )
        return self

    def model(self, name: str) -> ModelSection:
        """The model of this name."""
        return next(one for one in self.models if one.name == name)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return self.model_dump(mode="json")


def _refuse_twice(values: Sequence[Any], words: str) -> None:
    for at, value in enumerate(values):
        if value in values[:at]:
            raise ValueError(words.format(value))


def _ranges_meet(one: PoolSection, other: HeldOutSection) -> bool:
    """Whether two ranges of rows of the same files overlap; several files are one sequence of rows."""
    if one.data != other.data:
        return True
    (first, a), (second, b) = ((x.skip, None if x.rows is None else x.skip + x.rows) for x in (one, other))
    return (b is None or first < b) and (a is None or second < a)


def paper_recipe_names() -> list[str]:
    """Names of the packaged recipes of this study."""
    return recipe_files.recipe_names(paper=True)


def load_paper_recipe(name_or_path: str | Path, overrides: Iterable[str] = ()) -> PaperRecipe:
    """Read a recipe by the name of a packaged one, or from a YAML file.

    Args:
        name_or_path: the path of a file, or a name of :func:`paper_recipe_names`; an existing file takes precedence.
        overrides: ``section.key=value`` strings, as those of :func:`donod_fast.training.load_recipe`.

    Raises:
        InputError: no such recipe, invalid YAML, an unknown key, or a wrong value; names the file, the key and the
            remedy.
    """
    file = recipe_files.find_recipe(name_or_path, paper=True)
    return recipe_files.load(PaperRecipe, file, overrides, paths=_PATHS)


def paper_recipe_from(
    values: Mapping[str, Any], overrides: Iterable[str] = (), *, where: str = "recipe"
) -> PaperRecipe:
    """Validate plain values (as YAML gives them) as a recipe; see :func:`donod_fast.training.recipe_files.validated`.

    Raises:
        InputError: an unknown key, or a wrong value.
    """
    return recipe_files.validated(PaperRecipe, values, overrides, where=where)


__all__ = ["PaperRecipe", "load_paper_recipe", "paper_recipe_from", "paper_recipe_names"]
