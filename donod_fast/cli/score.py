"""``donod-fast score``: a corpus into a scores folder."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from donod_fast.cli import options, output
from donod_fast.errors import DonodError, InputError
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from donod_fast.criteria.base import Criterion
    from donod_fast.data.reading import Corpus
    from donod_fast.engines.ray import RaySettings
    from donod_fast.scoring.dry_run import RunPlan

MIB = 1 << 20
SUPERVISED_ROWS = 4096
"""From here on a process of its own scores, and another takes its place if it crashes or hangs."""


class Interrupted(DonodError):
    """The user stopped the run; what was committed stays."""

    exit_code = 130


class NothingScored(DonodError):
    """Every row of the corpus ended with another status than ``scored``."""

    exit_code = 1


def score(
    data: Annotated[
        list[str], typer.Argument(help="Files, globs, URLs (s3://…), saved datasets, a hub id, or - for stdin.")
    ],
    model: options.Model,
    out: Annotated[str, typer.Option(help="Scores folder to write, or to finish: a path or a URL.")],
    format: Annotated[str, typer.Option(help="Format of the records.")] = "auto",
    template: Annotated[
        str, typer.Option(help="Chat template: auto, tokenizer, alpaca, chatml, llama2, vicuna, plain, or a file.")
    ] = "auto",
    train_on: Annotated[str, typer.Option(help="Score all assistant turns, or the last only.")] = "all",
    max_length: Annotated[int | None, typer.Option(help="Cut rows to this many tokens (default: the model's).")] = None,
    update: Annotated[str, typer.Option(help="The update that scores a sample: adamw, sgd or sign.")] = "adamw",
    lr: Annotated[float, typer.Option(help="Its learning rate.")] = 2e-5,
    weight_decay: Annotated[float, typer.Option(help="Its weight decay.")] = 0.0,
    eps: Annotated[float, typer.Option(help="AdamW's eps.")] = 1e-8,
    reduction: Annotated[str, typer.Option(help="mean or sum of a sample's token losses.")] = "mean",
    storage_dtype: Annotated[
        str | None, typer.Option(help="Round the updated weights to this dtype first, as low-precision training does.")
    ] = None,
    split: Annotated[str, typer.Option(help="Split of a saved or hub dataset.")] = "train",
    data_revision: Annotated[str | None, typer.Option(help="Revision of a hub dataset.")] = None,
    revision: options.Revision = None,
    dtype: options.Dtype = "auto",
    precision: options.Precision = "auto",
    device: options.Device = None,
    devices: Annotated[
        str | None, typer.Option(help="Several devices, a process each: all, or for example cuda:0,cuda:2.")
    ] = None,
    device_map: options.DeviceMap = None,
    max_memory: options.MaxMemory = None,
    offload_folder: options.OffloadFolder = None,
    trust_remote_code: options.TrustRemoteCode = False,
    token_budget: Annotated[
        int | None, typer.Option(help="Slots of a batch (default: found from free memory).")
    ] = None,
    workspace: Annotated[int, typer.Option(help="MiB that the head mathematics may hold at once.")] = 256,
    backend: Annotated[str, typer.Option(help="Kernels of the head: auto, torch, inductor or triton.")] = "auto",
    packing: Annotated[str, typer.Option(help="Pack samples without padding: auto, on or off.")] = "auto",
    compile: Annotated[
        str, typer.Option(help="Compile the trunk first: auto (for large corpora), on or off.")
    ] = "auto",
    workers: Annotated[
        int | None, typer.Option(help="Processes that read and tokenise ahead (default: by device and rows).", min=0)
    ] = None,
    part_rows: Annotated[
        int | None, typer.Option(help="Rows of a committed part (default: 1,024 to 16,384 by corpus size).", min=1)
    ] = None,
    carry: Annotated[
        str | None, typer.Option(help="Columns of the records to keep in the scores, for select --by: source,lang.")
    ] = None,
    signals: Annotated[
        str | None,
        typer.Option(
            help="Further criteria, as columns of the same parts: perplexity, el2n, grand, ifd, embedding, influence, "
            "influence-max. A folder that has its scores gets the columns added."
        ),
    ] = None,
    reference: Annotated[
        list[str] | None, typer.Option(help="Reference set of influence: a file, glob or hub id; may be repeated.")
    ] = None,
    stall_timeout: Annotated[
        float, typer.Option(help="Seconds without a sign of life after which a process counts as hung.", min=1)
    ] = 1800.0,
    engine: Annotated[str, typer.Option(help="local, or ray for a cluster.")] = "local",
    address: Annotated[str | None, typer.Option(help="Of the Ray cluster; without it one is started here.")] = None,
    ray_workers: Annotated[int, typer.Option(help="Workers of the cluster.", min=1)] = 2,
    gpus_per_worker: Annotated[
        float | None, typer.Option(help="GPUs of each (default: 1 where the cluster has any, else 0).", min=0)
    ] = None,
    cpus_per_worker: Annotated[float, typer.Option(help="CPUs of each.", min=0)] = 1.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read, plan and time a sample; write nothing.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Drop the scores that OUT holds.")] = False,
    rescore_changed: Annotated[
        bool, typer.Option("--rescore-changed", help="Score files anew that have changed since; keep all others.")
    ] = False,
    profile: Annotated[bool, typer.Option("--profile", help="Show where the time went.")] = False,
    trace: Annotated[Path | None, typer.Option(help="Write a Chrome trace of the run to this file.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Score every row of DATA with MODEL into the folder OUT. Run again, it resumes."""
    from donod_fast.cli.score_run import ScoreRun, summary, summary_text
    from donod_fast.data.masking import MaskSettings
    from donod_fast.data.reading import open_corpus
    from donod_fast.data.reading.inputs import SPOOL_NAME, STDIN
    from donod_fast.models.compiled_trunk import wants_compiling
    from donod_fast.models.placement import one_device, parse_max_memory
    from donod_fast.scores.folder import locked, remove
    from donod_fast.scores.opening import known_files, settled_part_rows
    from donod_fast.scores.unscored import commonest_cause
    from donod_fast.scoring.dry_run import plan_run
    from donod_fast.scoring.settings import UpdateSettings
    from donod_fast.scoring.spec import ScorerSpec
    from donod_fast.system.storage import is_url

    if trace is not None and (trace.is_dir() or not trace.absolute().parent.is_dir()):
        raise InputError(f"--trace {trace}: name a file in a folder that exists")
    names = _devices(devices, device=device, device_map=device_map, trace=trace)
    if STDIN in data and is_url(out):
        raise InputError(f"standard input is kept in the scores folder, which {out} cannot do; name a local folder")
    cluster = _cluster(engine, address, ray_workers, gpus_per_worker, cpus_per_worker, stall_timeout)
    if cluster is not None and (devices or device_map or trace or profile or STDIN in data):
        raise InputError("--engine ray does not go with --devices, --device-map, --trace, --profile or standard input")
    spec = ScorerSpec(
        model,
        revision=revision,
        dtype=dtype,
        device=device,
        trust_remote_code=trust_remote_code,
        precision=precision,
        device_map=device_map,
        max_memory=None if max_memory is None else parse_max_memory(max_memory),
        offload_folder=offload_folder,
        update=UpdateSettings(update, lr, weight_decay, eps, reduction, storage_dtype),
        masks=MaskSettings(format, template, train_on, max_length),
        token_budget=token_budget,
        workspace_bytes=workspace * MIB,
        backend=backend,
        packing=packing,
        carry=_columns(carry),
        signals=_signals(signals, reference or []),
    )
    first_device = one_device(names[0] if names else device)
    wants_compiling(compile, None, first_device)  # an unknown choice is refused before anything is read

    def compiles(corpus: Corpus) -> bool:
        # A model that is spread over devices is left alone, unless asked for.
        return wants_compiling(compile, corpus.rows if device_map is None else None, first_device)

    def open_data(folder: str | None) -> Corpus:
        known = None if folder is None or overwrite else known_files(folder)
        spool_dir = Path(folder) if folder is not None and STDIN in data else None
        return open_corpus(data, split=split, revision=data_revision, spool_dir=spool_dir, known=known)

    if dry_run:
        corpus = open_data(None)
        spec = replace(spec, compile=compiles(corpus))
        output.announce_model(model, revision, quiet=quiet or json)
        scorer = spec.load()
        size = settled_part_rows(out, corpus.rows, part_rows, overwrite=overwrite)
        plan = plan_run(corpus, scorer, workspace_bytes=workspace * MIB, part_rows=size, budget=scorer.budget)
        if json:
            output.as_json(asdict(plan))
        else:
            typer.echo(_plan_text(plan))
        return
    try:
        with locked(out):
            if overwrite and STDIN in data:
                remove(Path(out) / SPOOL_NAME)
            corpus = open_data(out)
            spec = replace(spec, compile=compiles(corpus))
            if not names and corpus.rows >= SUPERVISED_ROWS and trace is None and device_map is None:
                names = (str(first_device),)
            run = ScoreRun(
                corpus,
                spec,
                out,
                settled_part_rows(out, corpus.rows, part_rows, overwrite=overwrite),
                overwrite=overwrite,
                rescore_changed=rescore_changed,
                workers=workers,
                devices=names,
                stall_timeout=stall_timeout,
                cluster=cluster,
                profile=profile,
                trace=trace,
            )
            done = run.done(quiet=quiet or json)
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; run the same command again to resume in {out}") from None
    if json:
        output.as_json(summary(done))
    elif not quiet:
        typer.echo(summary_text(done))
    if not done.outcome.counts["scored"]:
        cause = commonest_cause(done.outcome.folder)
        raise NothingScored(f"no row could be scored: {'there are no rows' if cause is None else cause.text()}")


def _columns(text: str | None) -> tuple[str, ...]:
    """Names of columns with commas between them."""
    if text is None:
        return ()
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise InputError(f"--carry must name columns once each, with commas between them: source,lang; got {text!r}")
    return tuple(names)


def _signals(text: str | None, references: Sequence[str]) -> tuple[Criterion, ...]:
    """The criteria named, with the reference sets."""
    from donod_fast.criteria.registry import SignalOptions, parse_signals

    if text is None:
        if references:
            raise InputError("--reference is for a criterion that compares with it: give --signals influence, too")
        return ()
    return parse_signals(text, SignalOptions(tuple(references)))


def _cluster(
    engine: str, address: str | None, workers: int, gpus: float | None, cpus: float, stall_timeout: float
) -> RaySettings | None:
    """Settings of the Ray engine; None for the local one."""
    if engine not in ("local", "ray"):
        raise InputError(f"--engine must be local or ray, got {engine!r}")
    if engine == "local":
        if address is not None:
            raise InputError("--address is that of a Ray cluster: give --engine ray, too")
        return None
    from donod_fast.engines.ray import RaySettings

    return RaySettings(
        address=address,
        workers=workers,
        gpus_per_worker=gpus,
        cpus_per_worker=cpus,
        stall_timeout=stall_timeout,
    )


def _devices(devices: str | None, *, device: str | None, device_map: str | None, trace: Path | None) -> tuple[str, ...]:
    """The devices asked for by ``--devices``; none where it was not given."""
    from donod_fast.engines.devices import parse_devices

    if devices is None:
        return ()
    for name, given in (("--device", device), ("--device-map", device_map), ("--trace", trace)):
        if given is not None:
            raise InputError(f"--devices runs a process for each device, and does not go with {name}")
    return tuple(parse_devices(devices))


def _plan_text(plan: RunPlan) -> str:
    total = plan.model_bytes + plan.batch_bytes + plan.workspace_bytes
    free = "unknown" if plan.free_bytes is None else output.size(plan.free_bytes)
    lines = [
        f"rows     {plan.rows:,}: {output.counts(plan.by_status)} (scored = ready to be)",
        f"formats  {output.counts(plan.formats)}",
        f"tokens   {plan.tokens:,}, of which {plan.scored_tokens:,} scored; {plural(plan.truncated, 'row')} cut "
        "to the limit",
        f"batches  {plan.batches:,} of at most {plan.token_budget:,} slots ({plan.token_budget_how}), "
        f"{plan.slots_used:.1%} used; "
        + ("packed" if plan.packed else f"padded{plan.packing_refusal and ': ' + plan.packing_refusal}"),
        f"memory   model {output.size(plan.model_bytes)} + batch about {output.size(plan.batch_bytes)} + "
        f"head at most {output.size(plan.workspace_bytes)} = {output.size(total)}; free now, model loaded: {free}",
        f"time     about {output.duration(plan.seconds)} at {plan.tokens_per_second:,.0f} tokens/s "
        f"(timed on {plural(plan.sample_rows, 'row')})",
    ]
    return "\n".join(lines)
