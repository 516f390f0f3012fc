"""``donod-fast score``: a corpus into a scores folder."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from donod_fast.cli import output
from donod_fast.errors import DonodError

if TYPE_CHECKING:
    from donod_fast.pipeline import Outcome
    from donod_fast.planning import RunPlan
    from donod_fast.reading import Corpus

MIB = 1 << 20


class Interrupted(DonodError):
    """The user stopped the run; what was committed stays."""

    exit_code = 130


class NothingScored(DonodError):
    """Every row of the corpus ended with another status than ``scored``."""

    exit_code = 1


def score(
    data: Annotated[list[str], typer.Argument(help="Files, globs, saved datasets, a hub id, or - for stdin.")],
    model: Annotated[str, typer.Option(help="Folder or hub id of a causal language model (safetensors).")],
    out: Annotated[Path, typer.Option(help="Scores folder to write, or to finish.")],
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
    revision: Annotated[str | None, typer.Option(help="Revision of a hub model.")] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    device: Annotated[str | None, typer.Option(help="Device (default: cuda if there is one, else cpu).")] = None,
    trust_remote_code: Annotated[bool, typer.Option(help="Run code that comes with the model.")] = False,
    token_budget: Annotated[int | None, typer.Option(help="Padded tokens of a batch.")] = None,
    workspace: Annotated[int, typer.Option(help="MiB that the head mathematics may hold at once.")] = 256,
    backend: Annotated[str, typer.Option(help="Kernels of the head: auto, torch or triton.")] = "auto",
    part_rows: Annotated[int, typer.Option(help="Rows of a committed part.", min=1)] = 1024,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read, plan and time a sample; write nothing.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Drop the scores that OUT holds.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Score every row of DATA with MODEL into the folder OUT. Run again, it resumes."""
    from donod_fast.masking import MaskSettings
    from donod_fast.pipeline import score_corpus
    from donod_fast.planning import plan_run
    from donod_fast.reading import open_corpus
    from donod_fast.reading.inputs import SPOOL_NAME, STDIN
    from donod_fast.scorer import Scorer
    from donod_fast.settings import UpdateSettings
    from donod_fast.store import locked, remove

    settings = UpdateSettings(update, lr, weight_decay, eps, reduction, storage_dtype)
    masks = MaskSettings(format, template, train_on, max_length)

    def load() -> Scorer:
        return Scorer.from_pretrained(
            model,
            revision=revision,
            dtype=dtype,
            device=device,
            trust_remote_code=trust_remote_code,
            update=settings,
            masks=masks,
            token_budget=token_budget,
            workspace_bytes=workspace * MIB,
            backend=backend,
        )

    def open_data(spool_dir: Path | None) -> Corpus:
        return open_corpus(data, split=split, revision=data_revision, spool_dir=spool_dir)

    if dry_run:
        plan = plan_run(open_data(None), load(), workspace_bytes=workspace * MIB)
        if json:
            output.as_json(asdict(plan))
        else:
            typer.echo(_plan_text(plan))
        return
    try:
        with locked(out):
            if overwrite and STDIN in data:
                remove(out / SPOOL_NAME)
            corpus, scorer = open_data(out), load()
            start = time.perf_counter()
            with output.progress_bar(corpus.rows, quiet=quiet or json) as progress:
                outcome = score_corpus(corpus, scorer, out, part_rows=part_rows, overwrite=overwrite, progress=progress)
            seconds = time.perf_counter() - start
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; run the same command again to resume in {out}") from None
    if json:
        output.as_json(_summary(outcome, seconds))
    elif not quiet:
        typer.echo(_summary_text(outcome, seconds))
    if not outcome.counts["scored"]:
        first = outcome.folder.table().column("detail")[0].as_py()
        raise NothingScored(f"no row could be scored; the first one: {first}")


def _summary(outcome: Outcome, seconds: float) -> dict[str, Any]:
    return {
        "out": str(outcome.folder.path),
        "rows": outcome.folder.rows,
        "by_status": dict(outcome.counts),
        "resumed_rows": outcome.resumed_rows,
        "formats": dict(outcome.formats),
        "update": outcome.folder.manifest["update"],
        "seconds": round(seconds, 3),
    }


def _summary_text(outcome: Outcome, seconds: float) -> str:
    folder, old = outcome.folder, outcome.resumed_rows
    update = folder.manifest["update"]
    lines = [f"{folder.rows:,} rows in {folder.path}: {output.counts(outcome.counts)}"]
    if outcome.formats:
        lines.append(f"formats: {output.counts(outcome.formats)}; update: {update['update']}, lr {update['lr']:g}")
    lines.append(f"{folder.rows - old:,} rows in {output.duration(seconds)}" + (f", {old:,} were there" if old else ""))
    lines.append(f"next: donod-fast select {folder.path} --keep 0.3 --out subset.jsonl")
    return "\n".join(lines)


def _plan_text(plan: RunPlan) -> str:
    total = plan.model_bytes + plan.batch_bytes + plan.workspace_bytes
    free = "unknown" if plan.free_bytes is None else output.size(plan.free_bytes)
    lines = [
        f"rows     {plan.rows:,}: {output.counts(plan.by_status)} (scored = ready to be)",
        f"formats  {output.counts(plan.formats)}",
        f"tokens   {plan.tokens:,}, of which {plan.scored_tokens:,} scored; {plan.truncated:,} rows cut to the limit",
        f"memory   model {output.size(plan.model_bytes)} + batch about {output.size(plan.batch_bytes)} + "
        f"head at most {output.size(plan.workspace_bytes)} = {output.size(total)}; free now, model loaded: {free}",
        f"time     about {output.duration(plan.seconds)} at {plan.tokens_per_second:,.0f} tokens/s "
        f"(timed on {plan.sample_rows} rows)",
    ]
    return "\n".join(lines)
