"""Options of the command line alone, which several commands share: what is printed, and how recipes are run."""

from __future__ import annotations

from dataclasses import dataclass

from donod_fast.system.options import option

PANEL = "Output"
RECIPE = "Recipe"
RUNNING = "Running"
DRY_RUN = "Dry run"


@dataclass(frozen=True, slots=True)
class ScreenSettings:
    """What a command prints.

    Attributes:
        quiet: print neither progress nor a summary.
        json: print the summary as JSON.
    """

    quiet: bool = option(False, help="Print neither progress nor a summary.", panel=PANEL, short="-q")
    json: bool = option(False, help="Print the summary as JSON.", panel=PANEL)

    @property
    def hides_progress(self) -> bool:
        """Whether no progress is shown."""
        return self.quiet or self.json


@dataclass(frozen=True, slots=True)
class ProgressSettings:
    """What a command prints besides its result.

    Attributes:
        quiet: print no progress.
    """

    quiet: bool = option(False, help="No progress.", panel=PANEL, short="-q")


@dataclass(frozen=True, slots=True)
class ShownRows:
    """How many rows of a ranking are shown.

    Attributes:
        count: rows from each end of the ranking.
    """

    count: int = option(5, help="Rows to show from each end of the ranking.", panel=PANEL, minimum=1)


@dataclass(frozen=True, slots=True)
class RecipeChanges:
    """Changes to a recipe.

    Attributes:
        set: ``section.key=value`` strings.
    """

    set: tuple[str, ...] = option(
        (),
        help="Replace a value of the recipe, for example train.learning_rate=1e-4; may be repeated.",
        panel=RECIPE,
    )


@dataclass(frozen=True, slots=True)
class CellSettings:
    """How the cells of a study are run, and what is kept of them.

    Attributes:
        keep_models: keep the models.
        unsafe_exec: run model-written programs even if no sandbox is available.
    """

    keep_models: bool = option(False, help="Keep the models of finished cells.", panel=PANEL)
    unsafe_exec: bool = option(
        False, help="Run model-written programs even if no sandbox is available (unsafe).", panel=RUNNING
    )


@dataclass(frozen=True, slots=True)
class DryRunSettings:
    """A plan instead of a run.

    Attributes:
        dry_run: make the plan.
        gpu: accelerator that the hours are for, a name of ``training.planning.ACCELERATORS``.
    """

    dry_run: bool = option(False, help="Estimate tokens, memory and hours; run nothing.", panel=DRY_RUN)
    gpu: str = option(
        "h100",
        help="Accelerator of --dry-run: a100, h100 or h200.",
        panel=DRY_RUN,
        completions=("a100", "h100", "h200"),
    )


__all__ = ["CellSettings", "DryRunSettings", "ProgressSettings", "RecipeChanges", "ScreenSettings", "ShownRows"]
