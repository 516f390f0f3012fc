"""``donod-fast eval``: judge programs of a model by a benchmark's tests, and browse those that failed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from donod_fast.cli import output
from donod_fast.cli.errors import Interrupted
from donod_fast.cli.options import from_dataclasses
from donod_fast.cli.progress import display
from donod_fast.cli.settings import ScreenSettings
from donod_fast.errors import InputError
from donod_fast.evaluation.generation_settings import GenerationSettings
from donod_fast.evaluation.settings import BROWSING, BrowseSettings, JudgingSettings, TaskSettings, WriterSettings
from donod_fast.reports.page_options import check_page
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    from donod_fast.evaluation.origins import Origin
    from donod_fast.evaluation.problems import Problem
    from donod_fast.evaluation.result import EvalResult
    from donod_fast.evaluation.run import Progress

BROWSE = "browse"
MIB = 1 << 20


@from_dataclasses
def evaluate(
    benchmark: Annotated[
        str,
        typer.Argument(
            metavar="BENCHMARK",
            help="humaneval, humaneval+, mbpp, mbpp+ or mbpp-sanitized; or browse.",
            rich_help_panel="Tasks",
        ),
    ],
    tasks: TaskSettings,
    model: WriterSettings,
    settings: GenerationSettings,
    judging: JudgingSettings,
    screen: ScreenSettings,
    browsing: BrowseSettings,
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="FOLDER", help="For browse: a folder that --out wrote.", rich_help_panel=BROWSING),
    ] = None,
) -> None:
    """Generate programs with MODEL (or take SAMPLES), run them against the tests of BENCHMARK and compute pass@k.

    Rerun with the same --out to resume. donod-fast eval browse DIR shows the verdict of each program.
    """
    if benchmark == BROWSE:
        if folder is None:
            raise InputError("name the folder that --out wrote: donod-fast eval browse DIR")
        _browse(folder, browsing, overwrite=judging.overwrite)
        return
    if folder is not None or browsing.given:
        raise InputError(
            "a folder, --show, --status and --html go with browse: donod-fast eval browse DIR --status failed"
        )

    from donod_fast.evaluation import origins, run
    from donod_fast.evaluation.prompts import choose_style
    from donod_fast.evaluation.sandbox import Limits, find_isolation

    given = {"--model": bool(model.model), "--samples": tasks.samples is not None, "--canonical": tasks.canonical}
    chosen = origins.one_origin(given)
    settings = replace(settings, style=choose_style(benchmark, tasks.style))
    find_isolation(unsafe=judging.unsafe_exec)  # reported before anything is loaded
    some, known, part = _problems(benchmark, tasks)

    def origin() -> Origin:
        if chosen == "--canonical":
            return origins.from_canonical(some)
        if tasks.samples is not None:
            return origins.from_file(tasks.samples, some, known)
        output.announce_model(model.model, model.revision, quiet=screen.hides_progress)
        if tasks.engine == "vllm":
            return origins.from_vllm(
                model.model,
                some,
                known,
                settings,
                revision=model.revision,
                dtype=model.dtype,
                trust_remote_code=model.trust_remote_code,
            )
        from donod_fast.models.loading import load_settings

        return origins.from_model(load_settings(model), some, known, settings)

    limits = None if judging.memory is None else Limits(memory=judging.memory * MIB)
    how = run.JudgeSettings(
        judging.unsafe_exec, judging.workers, judging.seconds, limits, judging.packages, judging.cache
    )
    try:
        source = origin()
        with _bars(quiet=screen.hides_progress) as progress:
            result = run.evaluate(
                some,
                source.source,
                source.total,
                judging.out,
                how,
                settings={"benchmark": benchmark, "split": part, "tasks": len(some), **source.settings},
                recorded={**_file(tasks.problems), **source.recorded},
                overwrite=judging.overwrite,
                progress=progress,
            )
    except KeyboardInterrupt:
        again = "" if judging.out is None else f"; run the same command again to resume in {judging.out}"
        raise Interrupted(f"interrupted{again}") from None
    if screen.json:
        output.as_json(result.as_dict())
    elif not screen.quiet:
        typer.echo(_summary(benchmark, result, judging.out, source.others))


def _problems(benchmark: str, tasks: TaskSettings) -> tuple[list[Problem], list[Problem], str]:
    """The tasks to evaluate, all tasks of the file, and the name of the split."""
    from donod_fast.evaluation.benchmarks import find_benchmark
    from donod_fast.evaluation.problems import in_split, load_problems

    if tasks.split is not None and not find_benchmark(benchmark).split:
        raise InputError(f"--split is for mbpp and mbpp-sanitized; {benchmark} has no splits")
    part = tasks.split or ("test" if find_benchmark(benchmark).split and not tasks.canonical else "all")
    known = load_problems(benchmark, tasks.problems)
    some = in_split(known, part)[: tasks.limit]
    if not some:
        raise InputError(
            f"{tasks.problems}: no task is of MBPP's {part} split; --split all takes every task of the file"
        )
    return some, known, part


def _file(problems: Path | None) -> dict[str, str]:
    from donod_fast.evaluation.records import file_digest

    return {} if problems is None else {"problems_file": problems.name, "problems_file_sha256": file_digest(problems)}


def _summary(benchmark: str, result: EvalResult, out: Path | None, others: int) -> str:
    statuses = ", ".join(f"{number:,} {status}" for status, number in result.by_status.items())
    lines = [f"{benchmark:<10} {result.passed:,} of {result.total:,} passed: {statuses}"]
    for k, value in result.pass_at.items():
        low, high = result.intervals[k]
        lines.append(f"{f'pass@{k}':<10} {value:.4f} (95 %: {low:.3f} to {high:.3f}, {result.interval_method})")
        if result.plus:
            low, high = result.base_intervals[k]
            lines.append(f"{'  base':<10} {result.base_pass_at[k]:.4f} (95 %: {low:.3f} to {high:.3f})")
    if result.by_status.get("missing"):
        missing = sum("missing" in one.statuses for one in result.per_task)
        lines.append(f"tasks without a sample, which count as failed: {missing:,}")
    if others:
        lines.append(f"samples of tasks outside this split or limit, not judged: {others:,}")
    generating, judging = (output.duration(result.seconds[name]) for name in ("generate", "judge"))
    lines.append(f"programs run: {result.judged:,} in {judging}; samples loaded in {generating}")
    if result.settings["isolation"] == "none":
        lines.append("UNSAFE: the programs ran without isolation")
    if out is not None:
        lines.append(f"next: donod-fast eval browse {out}")
    return "\n".join(lines)


@contextmanager
def _bars(*, quiet: bool) -> Iterator[Progress | None]:
    """Progress in two steps, samples written and samples judged; None if ``quiet``."""
    if quiet:
        yield None
        return
    with display(quiet=False) as shown:
        done: dict[str, int] = {}

        def advance(step: str, some: int, total: int) -> None:
            if step not in done:
                shown.begin(step, "sample", total)
                done[step] = 0
            done[step] += some
            shown.reach(done[step])

        yield advance


def _browse(folder: Path, browsing: BrowseSettings, *, overwrite: bool) -> None:
    from donod_fast.cli.styled_console import StyledConsole
    from donod_fast.evaluation import browser

    check_page(browsing.html, overwrite)
    entries, status = browser.read_entries(folder), browsing.status
    chosen = entries if browsing.show is None else browser.found(entries, browsing.show)
    if browsing.html is not None:
        from donod_fast.reports.programs_page import programs_page
        from donod_fast.reports.shell import write_page

        some = browser.filtered(chosen, status)
        write_page(programs_page(some, str(folder), of=len(entries)), browsing.html, overwrite=overwrite)
        typer.echo(f"{plural(len(some), 'program')} → {browsing.html}")
        return
    terminal = sys.stdout.isatty()
    # Without a terminal lines are not wrapped, so that grep finds them.
    console = StyledConsole(width=None if terminal else 1000, soft_wrap=not terminal)
    if browsing.show is not None:
        for entry in browser.filtered(chosen, status):
            console.print(browser.view(entry, plain=not terminal))
    elif terminal and sys.stdin.isatty():
        browser.browse(entries, console, input, status)
    else:
        console.print(browser.listing(browser.filtered(entries, status)))
