"""``donod-fast eval agieval`` and ``donod-fast eval ifeval``: the paper's benchmark, by lm-eval on local files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import typer

from donod_fast.cli import output
from donod_fast.cli.errors import Interrupted
from donod_fast.cli.options import from_dataclasses
from donod_fast.cli.progress import display
from donod_fast.cli.settings import ScreenSettings
from donod_fast.evaluation.harness.settings import AnswerSettings, PromptSettings, QuestionSettings, ResultSettings
from donod_fast.models.settings import ModelSettings
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    from donod_fast.evaluation.harness.run import Progress
    from donod_fast.models.loading import LoadedModel


@from_dataclasses
def agieval(
    questions: QuestionSettings,
    model: ModelSettings,
    answers: AnswerSettings,
    results: ResultSettings,
    screen: ScreenSettings,
) -> None:
    """Let MODEL answer AGIEval's multiple-choice questions, and compute the paper's groups and averages.

    Rerun with the same --out to resume.
    """
    from donod_fast.evaluation.harness.measuring import evaluate_questions, question_tasks

    question_tasks(questions)  # a wrong file is reported before the model is loaded

    def evaluate(loaded: LoadedModel, progress: Progress | None) -> dict[str, Any]:
        return evaluate_questions(loaded, questions, answers, results, progress=progress)

    _run(evaluate, model, results, screen, "question", _question_lines)


@from_dataclasses
def ifeval(
    prompts: PromptSettings,
    model: ModelSettings,
    answers: AnswerSettings,
    results: ResultSettings,
    screen: ScreenSettings,
) -> None:
    """Let MODEL respond to IFEval's prompts, and check which of their instructions it follows.

    Rerun with the same --out to resume.
    """
    from donod_fast.evaluation.harness.ifeval import read_prompts
    from donod_fast.evaluation.harness.measuring import check_checker, evaluate_prompts

    read_prompts(prompts.problems)
    check_checker()

    def evaluate(loaded: LoadedModel, progress: Progress | None) -> dict[str, Any]:
        return evaluate_prompts(loaded, prompts, answers, results, progress=progress)

    _run(evaluate, model, results, screen, "prompt", _prompt_lines)


def _run(
    evaluate: Callable[[LoadedModel, Progress | None], dict[str, Any]],
    model: ModelSettings,
    results: ResultSettings,
    screen: ScreenSettings,
    noun: str,
    lines: Callable[[Mapping[str, Any]], list[str]],
) -> None:
    from donod_fast.models.loading import load_settings

    output.announce_model(model.model, model.revision, quiet=screen.hides_progress)
    loaded = load_settings(model)
    try:
        with nullcontext() if screen.hides_progress else display(quiet=False) as shown:
            done: int | None = None

            def advance(some: int, total: int) -> None:
                nonlocal done
                if shown is None:
                    return
                if done is None:  # what an earlier run has done
                    shown.begin("answer", noun, total, some)
                    done = some
                else:
                    done += some
                    shown.reach(done)

            result = evaluate(loaded, advance)
    except KeyboardInterrupt:
        again = "" if results.out is None else f"; run the same command again to resume in {results.out}"
        raise Interrupted(f"interrupted{again}") from None
    if screen.json:
        output.as_json(result)
    elif not screen.quiet:
        cut = result["cut"]
        said = [*lines(result), f"{plural(result['items'], noun)} in {output.duration(result['seconds'])}"]
        if cut:
            said.append(f"longer than the model's context, and cut at the beginning: {plural(cut, noun)}")
        typer.echo("\n".join(said))


def _question_lines(result: Mapping[str, Any]) -> list[str]:
    from donod_fast.evaluation.harness.measuring import sets_of

    rows = []
    second = "acc_norm" if any("acc_norm" in one for one in result["sets"].values()) else "unanswered"
    for name in sets_of(result):
        one = result["sets"][name]
        figure = f"{one['acc_norm']:.4f}" if second == "acc_norm" else f"{one['unanswered']:,}"
        rows.append((name, f"{one['acc']:.4f}", _interval(one["acc_interval"]), figure, f"{one['questions']:,}"))
    lines = [output.table(("set", "acc", "95 %", second, "questions"), rows)]
    averages, intervals = result["averages"], result["averages_intervals"]
    groups = [
        (f"{'group' if kind == 'groups' else 'non-target, target'} {name}", f"{value:.4f}", _interval(interval))
        for kind in ("groups", "non_target")
        for name, value in averages[kind].items()
        for interval in [intervals[kind][name]]
    ]
    if averages["all_groups"] is not None:
        groups.append(("all, mean of groups", f"{averages['all_groups']:.4f}", ""))
        groups.append(("all, mean of sets", f"{averages['all_sets']:.4f}", ""))
    return [*lines, output.table(("average", "acc", "95 %"), groups)] if groups else lines


def _prompt_lines(result: Mapping[str, Any]) -> list[str]:
    from donod_fast.evaluation.harness.result import LEVELS

    rows = [
        (level.replace("_", ", "), f"{result[level]:.4f}", _interval(result[f"{level}_interval"])) for level in LEVELS
    ]
    return [output.table(("accuracy", "", "95 %"), rows)]


def _interval(ends: tuple[float, float]) -> str:
    return f"{ends[0]:.3f} to {ends[1]:.3f}"
