"""Evaluate a loaded model on AGIEval or IFEval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from donod_fast.errors import InputError, suggest
from donod_fast.evaluation.harness.agieval import check_sets, read_set, read_shots
from donod_fast.evaluation.harness.folder import HarnessFolder
from donod_fast.evaluation.harness.groups import IFEVAL
from donod_fast.evaluation.harness.ifeval import read_prompts
from donod_fast.evaluation.harness.model import HarnessModel
from donod_fast.evaluation.harness.result import prompt_result, question_result
from donod_fast.evaluation.harness.run import Progress, run_tasks
from donod_fast.evaluation.harness.settings import AnswerSettings, PromptSettings, QuestionSettings, ResultSettings
from donod_fast.evaluation.harness.statistics import Share
from donod_fast.evaluation.harness.tasks import GENERATE, Task, prompt_task, question_task
from donod_fast.evaluation.origins import model_settings
from donod_fast.evaluation.result_folder import RESULT
from donod_fast.system.fingerprints import is_same_model

if TYPE_CHECKING:
    from donod_fast.models.loading import LoadedModel

AGIEVAL = "agieval"
BENCHMARKS = (AGIEVAL, IFEVAL)


def measure(
    loaded: LoadedModel,
    benchmark: str,
    files: str | Path,
    *,
    limit: int | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Evaluate a model on a benchmark.

    Args:
        loaded: from :func:`donod_fast.models.loading.load_model` or ``wrap_model``. It is not changed.
        benchmark: ``"agieval"`` or ``"ifeval"``.
        files: AGIEval's folder, or IFEval's file.
        limit: ask only the first so many questions of each set, or send so many prompts.
        out: folder for answers and result, which a run resumes; None writes none.
        progress: called as ``progress(items answered, of how many in all)``.
        more: further fields of :class:`.settings.QuestionSettings` (``sets``, ``few_shot``, ``style``,
            ``chat_template``, ``max_new_tokens``) or of :class:`.settings.PromptSettings` (``plain``,
            ``max_new_tokens``), and of :class:`.settings.AnswerSettings` (``template``, ``batch_rows``).

    Returns:
        what ``result.json`` holds. AGIEval: ``sets`` (each with ``acc`` in 0 to 1 and ``acc_interval``, 95 %),
        ``averages`` (``groups``, ``non_target`` by target). IFEval: ``prompt_strict``, ``instruction_strict``,
        ``prompt_loose``, ``instruction_loose``, each with its ``…_interval``. Both: ``items``, ``cut`` (items whose
        prompt is longer than the model's context, and lost its beginning), ``seconds``, ``settings``.

    Raises:
        InputError: a setting is unknown or wrong, or a package is missing; the message names the extra to install.
        CorpusError: a file is missing or damaged.
        ModelError: the model cannot answer, or has no chat template.
        StoreError: ``out`` cannot be used.
    """
    if benchmark not in BENCHMARKS:
        raise InputError(
            f"unknown benchmark {benchmark!r}; known are {', '.join(BENCHMARKS)}{suggest(benchmark, BENCHMARKS)}"
        )
    kind: Any = QuestionSettings if benchmark == AGIEVAL else PromptSettings
    own = {name: more.pop(name) for name in kind.__dataclass_fields__.keys() & more.keys()}
    try:
        settings, answers = kind(problems=Path(files), limit=limit, **own), AnswerSettings(**more)
    except TypeError as error:
        raise InputError(f"{benchmark} has no such setting: {error}") from error
    evaluate = evaluate_questions if benchmark == AGIEVAL else evaluate_prompts
    results = ResultSettings(None if out is None else Path(out))
    return evaluate(loaded, settings, answers, results, progress=progress)


def question_tasks(settings: QuestionSettings) -> list[Task[Any]]:
    """The sets of AGIEval as tasks. Raises CorpusError, InputError: see :mod:`.agieval`."""
    tasks: list[Task[Any]] = []
    for name in check_sets(settings.sets):
        tasks.append(
            question_task(
                name,
                read_set(settings.problems, name)[: settings.limit],
                read_shots(settings.problems, name, settings.few_shot),
                settings.style,
                chat=settings.chat_template,
                max_new_tokens=settings.max_new_tokens,
            )
        )
    return tasks


def evaluate_questions(
    loaded: LoadedModel,
    settings: QuestionSettings,
    answers: AnswerSettings,
    results: ResultSettings,
    *,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Evaluate a model on AGIEval; see :func:`measure`."""
    instructions = None if settings.ifeval is None else _instructions(settings.ifeval, loaded)
    tasks = question_tasks(settings)
    model = HarnessModel(loaded, answers.batch_rows)
    if settings.style == GENERATE:
        model.check_room(settings.max_new_tokens)
    return run_tasks(
        tasks,
        model,
        partial(question_result, style=settings.style, instructions=instructions),
        results.out,
        chat=model.chat(answers.template) if settings.chat_template else None,
        settings={
            "benchmark": AGIEVAL,
            "sets": {task.name: len(task.items) for task in tasks},
            "few_shot": settings.few_shot,
            "style": settings.style,
            "template": answers.template if settings.chat_template else None,
            "max_new_tokens": settings.max_new_tokens if settings.style == GENERATE else None,
            "model": model_settings(loaded),
        },
        recorded=_recorded(loaded, settings.problems, answers),
        overwrite=results.overwrite,
        progress=progress,
    )


def evaluate_prompts(
    loaded: LoadedModel,
    settings: PromptSettings,
    answers: AnswerSettings,
    results: ResultSettings,
    *,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Evaluate a model on IFEval; see :func:`measure`."""
    prompts = read_prompts(settings.problems)[: settings.limit]
    check_checker()
    model = HarnessModel(loaded, answers.batch_rows)
    model.check_room(settings.max_new_tokens)
    return run_tasks(
        [prompt_task(prompts, max_new_tokens=settings.max_new_tokens)],
        model,
        prompt_result,
        results.out,
        chat=None if settings.plain else model.chat(answers.template),
        settings={
            "benchmark": IFEVAL,
            "prompts": len(prompts),
            "template": None if settings.plain else answers.template,
            "max_new_tokens": settings.max_new_tokens,
            "model": model_settings(loaded),
        },
        recorded=_recorded(loaded, settings.problems, answers),
        overwrite=results.overwrite,
        progress=progress,
    )


def check_checker() -> None:
    """Refuse to begin if a package that the checker of instructions needs is missing. Raises InputError."""
    from donod_fast.evaluation.harness.instructions.language import detect_language
    from donod_fast.evaluation.harness.instructions.sentences import split_sentences

    detect_language("A text.")
    split_sentences("A text.")


def _instructions(folder: Path, loaded: LoadedModel) -> Share:
    """The prompts of IFEval that this model's finished evaluation passed strictly."""
    stored = HarnessFolder(folder)
    result = stored.read(RESULT)
    settings = result.get("settings")
    if not isinstance(settings, Mapping) or settings.get("benchmark") != IFEVAL:
        raise InputError(f"--ifeval {folder} is no result of `donod-fast eval ifeval --out`")
    stored.check_finished()
    if not is_same_model(settings["model"]["fingerprint"], loaded.fingerprint):
        raise InputError(f"--ifeval {folder} is the result of another model ({settings.get('model_name')})")
    return Share(result["prompts_strict"], result["items"])


def _recorded(loaded: LoadedModel, problems: Path, answers: AnswerSettings) -> dict[str, Any]:
    return {
        "model_name": loaded.name,
        "device": str(loaded.device),
        "problems": problems.name,
        "batch_rows": answers.batch_rows or "auto",
    }


def sets_of(result: Mapping[str, Any]) -> Sequence[str]:
    """The sets of AGIEval in a result, in the paper's order."""
    return [name for name in check_sets(()) if name in result["sets"]]


__all__ = ["AGIEVAL", "BENCHMARKS", "evaluate_prompts", "evaluate_questions", "measure", "question_tasks", "sets_of"]
