"""What ``donod-fast eval agieval`` and ``eval ifeval`` evaluate: settings as options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from donod_fast.system.options import check_choices, option, parse_names

TASKS = "Tasks"
PROMPTS = "Prompts and answers"
OUTPUT = "Output"

STYLES = ("loglikelihood", "generate")


@dataclass(frozen=True, slots=True)
class AnswerSettings:
    """How a model answers, in both benchmarks.

    Attributes:
        template: chat template, as in ``donod-fast score --template``.
        batch_rows: sequences per batch; None chooses by memory.
    """

    template: str = option("auto", help="Chat template, as for `score`.", panel=PROMPTS)
    batch_rows: int | None = option(
        None,
        name="batch_size",
        help="Number of sequences that are computed together.",
        panel=PROMPTS,
        minimum=1,
        shown="by memory",
    )


@dataclass(frozen=True, slots=True)
class QuestionSettings:
    """Which questions of AGIEval are asked, and how.

    Attributes:
        problems: folder with AGIEval's files.
        sets: names of :data:`.agieval.SETS`; empty for all.
        limit: ask the first so many questions of each set only.
        few_shot: solved questions in front of each.
        style: one of :data:`STYLES`.
        chat_template: write the prompts with the chat template.
        max_new_tokens: longest generated answer, in tokens.
        ifeval: folder of a finished ``donod-fast eval ifeval``, for the averages.

    Raises:
        InputError: the style is unknown.
    """

    problems: Path = option(help="Folder with AGIEval's files (version 1).", panel=TASKS)
    sets: tuple[str, ...] = option(
        text="",
        parse=parse_names,
        help="Sets, separated by commas: lsat-ar, lsat-lr, logiqa-en, lsat-rc, sat-en, aqua-rat, sat-math.",
        panel=TASKS,
        shown="all",
    )
    limit: int | None = option(None, help="Ask the first so many questions of each set only.", panel=TASKS, minimum=1)
    few_shot: int = option(
        0, help="Solved questions in front of each, from few_shot_prompts.csv.", panel=PROMPTS, minimum=0
    )
    style: str = option(
        STYLES[0],
        help="Compare the options' log-likelihoods, or generate an answer: loglikelihood or generate.",
        panel=PROMPTS,
        choices=STYLES,
    )
    chat_template: bool = option(False, help="Write the prompts with the model's chat template.", panel=PROMPTS)
    max_new_tokens: int = option(64, help="Maximum length of a generated answer in tokens.", panel=PROMPTS, minimum=1)
    ifeval: Path | None = option(
        None, help="Folder of a finished `eval ifeval` of this model, for the averages.", panel=OUTPUT
    )

    def __post_init__(self) -> None:
        check_choices(self)


@dataclass(frozen=True, slots=True)
class PromptSettings:
    """Which prompts of IFEval are sent, and how.

    Attributes:
        problems: IFEval's file.
        limit: send the first so many only.
        plain: send the bare prompts, without a chat template.
        max_new_tokens: longest response, in tokens; the default is lm-eval's.
    """

    problems: Path = option(help="IFEval's file (input_data.jsonl).", panel=TASKS)
    limit: int | None = option(None, help="Send the first so many prompts only.", panel=TASKS, minimum=1)
    plain: bool = option(False, help="Send the bare prompts, without a chat template.", panel=PROMPTS)
    max_new_tokens: int = option(1280, help="Maximum length of a response in tokens.", panel=PROMPTS, minimum=1)


@dataclass(frozen=True, slots=True)
class ResultSettings:
    """Where results go.

    Attributes:
        out: folder for the items and ``result.json``; None to write nothing.
        overwrite: drop the evaluation that ``out`` holds.
    """

    out: Path | None = option(None, help="Folder for the answers and result.json.", panel=OUTPUT)
    overwrite: bool = option(False, help="Drop the evaluation that OUT holds.", panel=OUTPUT)


__all__ = ["STYLES", "AnswerSettings", "PromptSettings", "QuestionSettings", "ResultSettings"]
