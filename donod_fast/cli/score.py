"""``donod-fast score``: score a corpus into a scores folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from donod_fast.cli.config import config_option
from donod_fast.cli.errors import Interrupted, NothingScored
from donod_fast.cli.options import from_dataclasses
from donod_fast.cli.settings import ScreenSettings
from donod_fast.engines.choosing import PANEL, ScoreRequest, ScoreRun, TargetSettings
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    from donod_fast.scoring.dry_run import RunPlan

_CONFIG = config_option(ScoreRequest, TargetSettings, ScreenSettings)


@from_dataclasses
def score(
    request: ScoreRequest,
    target: TargetSettings,
    screen: ScreenSettings,
    config: Annotated[str | None, _CONFIG] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Read, plan and time a few rows; write nothing.", rich_help_panel=PANEL),
    ] = False,
) -> None:
    """Score every row of DATA with MODEL into the folder OUT. Rerun to resume."""
    from dataclasses import asdict

    from donod_fast.cli import output
    from donod_fast.cli.score_run import look_command, summary, summary_text
    from donod_fast.cli.stopping import terminated_by_signal
    from donod_fast.scores.unscored import commonest_cause

    def announce() -> None:
        output.announce_model(request.model.model, request.model.revision, quiet=screen.hides_progress)

    run = ScoreRun(request, target)
    if dry_run:
        plan = run.plan(announce)
        if screen.json:
            output.as_json(asdict(plan))
        else:
            typer.echo(_plan_text(plan))
            unscored = {status: rows for status, rows in plan.by_status.items() if status != "scored"}
            if unscored:
                commonest = max(unscored, key=lambda status: (unscored[status], status))
                if look := look_command(request, commonest):
                    typer.echo(f"look     {look}")
        return
    try:
        with terminated_by_signal(in_array=run.is_in_array):
            done = run.score(lambda rows: output.progress_bar(rows, quiet=screen.hides_progress), announce)
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; run the same command again to resume in {target.out}") from None
    if screen.json:
        output.as_json(summary(done))
    elif not screen.quiet:
        typer.echo(summary_text(done))
    if not done.outcome.counts["scored"] and done.outcome.task is None:
        cause = commonest_cause(done.outcome.folder)
        raise NothingScored(f"no row could be scored: {'there are no rows' if cause is None else cause.text()}")


def _plan_text(plan: RunPlan) -> str:
    from donod_fast.cli import output

    total = plan.model_bytes + plan.batch_bytes + plan.workspace_bytes
    free = "unknown" if plan.free_bytes is None else output.size(plan.free_bytes)
    lines = [
        f"rows     {plan.rows:,}: {output.counts(plan.by_status)} (scored = can be scored)",
        f"formats  {output.counts(plan.formats)}",
        *(f"records  {line}" for line in plan.records.lines(plan.rows)),
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
    if plan.token_loss_bytes:
        lines.append(f"losses   of the scored tokens: about {output.size(plan.token_loss_bytes)} more in the folder")
    return "\n".join(lines)
