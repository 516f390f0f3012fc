"""``donod-fast train``: fine-tune a model on a subset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from donod_fast.cli import output
from donod_fast.cli.errors import Interrupted
from donod_fast.cli.options import from_dataclasses
from donod_fast.cli.progress import display
from donod_fast.cli.settings import RECIPE, DryRunSettings, RecipeChanges, ScreenSettings
from donod_fast.errors import InputError
from donod_fast.system.options import option
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    from donod_fast.training.recipe import Recipe
    from donod_fast.training.run import TrainOutcome
    from donod_fast.training.trainer import StepReport


@dataclass(frozen=True, slots=True)
class TrainChanges:
    """Settings of training that override the recipe; None keeps the recipe's value.

    Attributes:
        model: folder or hub id of the model.
        seed: seed of the row order, adapters and dropout.
        packing: ``"none"``, ``"isolated"`` or ``"paper"``.
        mask: a parameter mask of ``donod-fast dual``.
    """

    model: str | None = option(None, help="Folder or hub id of the model to train.", panel="Model")
    seed: int | None = option(None, help="Seed of the row order, adapters and dropout.", panel=RECIPE, minimum=0)
    packing: str | None = option(
        None,
        help="Pack the samples of a micro-batch: none, isolated, or paper (samples attend to each other).",
        panel=RECIPE,
        completions=("none", "isolated", "paper"),
    )
    mask: Path | None = option(
        None, help="Parameter mask of `dual`: only these entries of the parameters are trained.", panel=RECIPE
    )

    def as_fields(self) -> dict[str, Any]:
        """The fields of ``TrainSettings`` that are set."""
        mask = None if self.mask is None else str(self.mask)
        given = {"model": self.model, "seed": self.seed, "packing": self.packing, "parameter_mask": mask}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True, slots=True)
class TrainData:
    """Training data; the recipe's corpus if empty.

    Attributes:
        data: subset files or corpora.
        split: split of a saved or hub dataset.
        data_revision: revision of a hub dataset.
    """

    data: tuple[str, ...] = option(
        (), help="Subset files of `select`, or corpora.", panel="Input", shown="the recipe's corpus"
    )
    split: str | None = option(None, help="Split of a saved or hub dataset.", panel="Input")
    data_revision: str | None = option(None, help="Revision of a hub dataset.", panel="Input")


@from_dataclasses
def train(
    changes: RecipeChanges,
    training: TrainChanges,
    given: TrainData,
    plan: DryRunSettings,
    screen: ScreenSettings,
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE",
            help="Name of a packaged recipe, or a .yaml file. Without one the paper's settings apply.",
            rich_help_panel="Recipe",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write or to resume.", rich_help_panel="Output")] = None,
) -> None:
    """Fine-tune a model on a subset into the folder OUT. Rerun to resume; a finished run is left untouched.

    On several GPUs: accelerate launch -m donod_fast.training RECIPE …
    """
    from donod_fast.data.reading import open_corpus

    chosen = _recipe(recipe, changes.set, training.as_fields())
    names = list(given.data or chosen.score.data)
    if not names:
        raise InputError("name the training data: --data FILE (a recipe may name it under score.data)")
    options: dict[str, Any] = {
        "split": given.split or chosen.score.split,
        "revision": given.data_revision or (None if given.data else chosen.score.data_revision),
    }
    if plan.dry_run:
        _plan(chosen, list(given.data), options, plan.gpu, json=screen.json)
        return
    if out is None:
        raise InputError("name the folder for the trained model: --out DIR")
    from donod_fast.training.run import train as run_training

    model_name, model_revision = chosen.train.model, chosen.train.revision
    is_silent = screen.hides_progress or not _is_first()
    output.announce_model(model_name, model_revision, quiet=is_silent)
    # Standard input is saved in the output folder, so that an interrupted training can resume.
    corpus = open_corpus(names, spool_dir=out if "-" in names else None, **options)
    try:
        with _progress(quiet=is_silent) as progress:
            outcome = run_training(chosen.train, corpus, out, progress=progress)
    except KeyboardInterrupt:
        raise Interrupted(_interrupted(chosen, out)) from None
    if not _is_first():
        return
    if screen.json:
        output.as_json(_summary(outcome))
    elif not screen.quiet:
        typer.echo(_summary_text(outcome))


def _recipe(name: str | None, overrides: Sequence[str], given: Mapping[str, Any]) -> Recipe:
    """The recipe of this name, or one from the command line alone; ``given`` are fields of its training."""
    from donod_fast.training.recipe_files import load_recipe, recipe_from

    if name is None and "model" not in given:
        raise InputError("name a recipe, or a model: --model MODEL")
    if name is None:
        return recipe_from({"name": "train", "train": dict(given)}, overrides, where="the command line")
    import json

    return load_recipe(name, [*overrides, *(f"train.{key}={json.dumps(value)}" for key, value in given.items())])


def _plan(recipe: Recipe, data: list[str], options: dict[str, Any], gpu: str, *, json: bool) -> None:
    from donod_fast.training.counting import recipe_counts
    from donod_fast.training.model_size import model_config
    from donod_fast.training.planning import plan_training

    settings = recipe.train
    config = model_config(settings.model, revision=settings.revision, trust_remote_code=settings.trust_remote_code)
    plan = plan_training(settings, recipe_counts(recipe, config, data, **options), config=config, gpu=gpu)
    if json:
        output.as_json(plan.as_dict())
    else:
        typer.echo(plan.text())


def _is_first() -> bool:
    import os

    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def _progress(*, quiet: bool) -> Iterator[StepReport | None]:
    """Progress of training on standard error: steps, last loss, time left. None if ``quiet``."""
    if quiet:
        yield None
        return
    with display(quiet=False) as shown:
        started = False

        def advance(step: int, steps: int, loss: float) -> None:
            nonlocal started
            if not started:
                shown.begin("", "step", steps, step - 1)
                started = True
            shown.reach(step, f"loss {loss:.4f}")

        yield advance


def _interrupted(recipe: Recipe, out: Path) -> str:
    if recipe.train.save_steps is None:
        return "interrupted; no checkpoints were requested (--set train.save_steps=100), so it will start over"
    return f"interrupted; run the same command again to resume from the last checkpoint in {out}"


def _summary(outcome: TrainOutcome) -> dict[str, Any]:
    return {
        "model": str(outcome.folder),
        "selected": outcome.selected,
        "rows": outcome.rows,
        "tokens": outcome.tokens,
        "scored_tokens": outcome.scored_tokens,
        "steps": outcome.steps,
        "seconds": round(outcome.seconds, 3),
        "loss": outcome.loss,
        "skipped": dict(outcome.skipped),
        "first_skipped": outcome.first_skipped,
        "truncated": outcome.truncated,
        "resumed": outcome.resumed,
        "peak_bytes": outcome.peak_bytes,
    }


def _summary_text(outcome: TrainOutcome) -> str:
    lines = [
        f"{outcome.folder}: {plural(outcome.steps, 'step')} on {plural(outcome.rows, 'row')}, last loss "
        f"{outcome.loss:.4f}"
    ]
    if outcome.resumed is None:
        lines[0] += " (already finished)"
    left_out = sum(outcome.skipped.values())
    lines.append(
        f"rows     {outcome.selected:,} selected"
        + (f", {left_out:,} left out: {output.counts(outcome.skipped)}" if left_out else "")
        + (f"; {outcome.truncated:,} cut to the limit" if outcome.truncated else "")
    )
    if outcome.first_skipped:
        lines.append(f"         the first left out: {outcome.first_skipped}")
    rate = f"{outcome.tokens / outcome.seconds:,.0f} tokens/s" if outcome.seconds else ""
    lines.append(f"tokens   {outcome.tokens:,} trained on, of which {outcome.scored_tokens:,} scored")
    resumed = f", resumed at step {outcome.resumed:,}" if outcome.resumed else ""
    lines.append(f"time     {output.duration(outcome.seconds)}, {rate}{resumed}")
    if outcome.peak_bytes:
        lines.append(f"memory   {output.size(outcome.peak_bytes)} at most")
    return "\n".join(lines)
