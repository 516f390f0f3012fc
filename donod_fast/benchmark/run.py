"""Run the benchmark: one table per model and corpus, appended to a CSV file, printed and drawn."""

from __future__ import annotations

import contextlib
import gc
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from donod_fast.benchmark import programs, table
from donod_fast.benchmark.corpus import LENGTHS, random_samples, user_samples, write_tokens
from donod_fast.benchmark.picture import draw
from donod_fast.benchmark.programs import Program
from donod_fast.benchmark.record import aligned, append_rows, circumstances, short_error
from donod_fast.benchmark.settings import BenchmarkSettings
from donod_fast.benchmark.table import Measured
from donod_fast.benchmark.timing import forget_peak, interleaved, peak_bytes
from donod_fast.benchmark.variants import Variants
from donod_fast.benchmark.work import Work, work_of
from donod_fast.data.types import TokenizedSample
from donod_fast.errors import DonodError, ModelError
from donod_fast.models.shapes import SHAPES
from donod_fast.scoring.scorer import Scorer
from donod_fast.system.profiling import Stages

Say = Callable[[str], Any]


def run_benchmark(settings: BenchmarkSettings, say: Say = print) -> list[dict[str, Any]]:
    """Measure, record, print and draw; returns the rows added to ``settings.out``.

    A program or model that cannot run becomes a row with the reason in its note.

    Raises:
        DonodError: the user's own corpus cannot be read, or ``settings.out`` is not writable.
    """
    path = settings.out / table.CSV_NAME
    device = settings.place()
    rows: list[dict[str, Any]] = []
    for variants, names in _models(settings, device):
        for lengths in names:
            made_by = {"load": _load(), **_versions(), **circumstances(device.type)}
            say(f"\n{variants.name}, lengths {lengths}, on {made_by['device']}, load {made_by['load']}")
            with tempfile.TemporaryDirectory(prefix="donod-fast-bench-") as scratch:
                found = measure(settings, variants, lengths, Path(scratch))
            found = [{**row, **made_by} for row in found]
            append_rows(path, found)
            say(aligned([{head: row[key] for key, head in table.SHOWN.items()} for row in found]))
            rows += found
        variants.drop()
        _free(device)
    say(f"\nrows added to {path}")
    say(draw(path))
    return rows


def measure(settings: BenchmarkSettings, variants: Variants, lengths: str, scratch: Path) -> list[dict[str, Any]]:
    """One table: a model on a corpus."""
    about: dict[str, Any] = {"shape": variants.name, **dict.fromkeys(("vocab", "dim", "layers", "dtype"), "")}
    about |= {"update": programs.UPDATE, "lengths": lengths}
    about |= dict.fromkeys(("samples", "tokens", "scored_tokens", "token_budget"), "")
    try:
        scorer = variants.get(table.OURS)
    except DonodError as error:
        if settings.model is not None:
            raise
        return table.table_rows(about, [Measured(name, note=short_error(error)) for name in table.ROWS])
    samples, file = _corpus(settings, scorer, lengths, scratch)
    about |= {
        "vocab": scorer.head.weight.shape[0],
        "dim": scorer.head.weight.shape[1],
        "layers": getattr(scorer.loaded.model.config, "num_hidden_layers", ""),
        "dtype": str(scorer.loaded.dtype).removeprefix("torch."),
        "samples": len(samples),
        "tokens": sum(len(sample.input_ids) for sample in samples),
        "scored_tokens": sum(sample.scored_tokens for sample in samples),
        "token_budget": scorer.sample_scorer.token_budget,
    }
    work: Work | str
    try:
        work = work_of(scorer.loaded, scorer.trunk.decoder, scorer.head.weight)
    except DonodError as error:
        work = str(error)
    measured: dict[str, Measured] = {}
    runnable: list[Program] = []
    for name, make in _makers(settings, variants, samples, work, file, scratch).items():
        try:
            runnable += make()
        except (DonodError, RuntimeError, MemoryError) as error:
            measured[name] = Measured(name, note=short_error(error))
            _free(settings.place())
    found = _timed(settings, variants, runnable)
    measured |= {table.program_of(name): what for name, what in found.items()}
    ordered = [measured[name] for name in table.ROWS if name in measured]
    return table.table_rows(about, ordered)


def _models(settings: BenchmarkSettings, device: torch.device) -> Iterator[tuple[Variants, Sequence[str]]]:
    """Every model with the names of the corpora that it is timed on."""
    if settings.model is not None:
        assert settings.data is not None
        yield Variants.of_model(settings.model, device, settings.dtype), (Path(settings.data).name,)
        return
    for name in settings.shape_names():
        yield Variants.of_shape(SHAPES[name], device, settings.dtype), settings.lengths


def _corpus(
    settings: BenchmarkSettings, scorer: Scorer, lengths: str, scratch: Path
) -> tuple[list[TokenizedSample], Path | None]:
    """Samples, and the file that our scorer reads; None if no scores folder can be written."""
    file = scratch / "rows.jsonl"
    if settings.data is not None:
        return user_samples(settings.data, scorer.masker, file, rows=settings.rows), file
    vocab = scorer.head.weight.shape[0]
    samples = random_samples(LENGTHS[lengths], vocab, rows=settings.rows, tokens=settings.corpus_tokens())
    if programs.folder_obstacle():
        return samples, None
    write_tokens(file, samples)
    return samples, file


def _makers(
    settings: BenchmarkSettings,
    variants: Variants,
    samples: list[TokenizedSample],
    work: Work | str,
    file: Path | None,
    scratch: Path,
) -> dict[str, Callable[[], list[Program]]]:
    """The function that builds the programs of each row; it may raise the reason why there is none.

    ``work`` may be the reason why operations are not counted.
    """
    plain = variants.get(table.OURS)
    counted = None if isinstance(work, str) else work

    def products() -> list[Program]:
        if isinstance(work, str):
            raise ModelError(work)
        budget = plain.sample_scorer.token_budget
        tokens = sum(len(sample.input_ids) for sample in samples) // 4
        return [programs.matrix_products(work, tokens, budget, device=plain.loaded.device, dtype=plain.loaded.dtype)]

    def own(name: str) -> list[Program]:
        scorer = variants.get(name)
        return [programs.ours(name, scorer, samples, counted, file=file, scratch=scratch)]

    limit = settings.loop_seconds
    return {
        table.RATE: products,
        table.PAPER: lambda: [programs.paper_loop(plain, samples, counted, limit)],
        table.PADDED: lambda: [programs.padded_loop(plain, samples, counted, limit)],
        table.TRUNK: lambda: programs.trunk_alone(plain, samples, counted),
        **{name: partial(own, name) for name in (table.OURS, table.COMPILED, table.FLOAT8)},
    }


def _timed(settings: BenchmarkSettings, variants: Variants, runnable: Sequence[Program]) -> dict[str, Measured]:
    """Run the programs in turns; one that fails becomes a row with the reason."""
    device = settings.place()
    weights = {program.name: variants.bytes(table.program_of(program.name)) for program in runnable}
    held: dict[str, int] = {}
    peaks: dict[str, int] = {}
    failures: dict[str, str] = {}

    def before(name: str) -> None:
        held[name] = forget_peak(device)

    def turn(program: Program) -> None:
        program()
        peak = peak_bytes(device)
        if peak is not None:  # of the last turn, since the first one compiles kernels
            peaks[program.name] = weights[program.name] + peak - held[program.name]

    def failed(name: str, error: Exception) -> None:
        failures[name] = short_error(error)
        _free(device)

    times = interleaved(
        {program.name: partial(turn, program) for program in runnable},
        rounds=settings.rounds,
        seconds=settings.seconds,
        before=before,
        failed=failed,
    )
    found = {}
    for program in runnable:
        if program.name in failures:
            found[program.name] = Measured(program.name, note=failures[program.name])
        else:
            note = variants.note(table.program_of(program.name))
            shares = _shares(program)
            found[program.name] = program.measured(times[program.name], peaks.get(program.name), note=note, **shares)
    return found


def _shares(program: Program) -> dict[str, float]:
    """Run one further turn with timed stages."""
    if program.profile is None:
        return {}
    stages = Stages()
    try:
        program.profile(stages)
    except (DonodError, RuntimeError, MemoryError):  # the row already has its times
        return {}
    report = stages.report()
    return {"device_idle": report.idle, "head_share": report.head_share}


def _free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        with contextlib.suppress(RuntimeError):  # an error may have destroyed the device's context
            torch.cuda.empty_cache()


def _load() -> str:
    """Average number of runnable processes in the last minute, including other users': on a busy machine an operation
    with several threads is slowed down several times, and ratios to it mean little.
    """
    return f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else ""


def _versions() -> dict[str, str]:
    import transformers

    return {"transformers": transformers.__version__}
