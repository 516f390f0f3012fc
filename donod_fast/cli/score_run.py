"""What is said about a finished run of ``donod-fast score``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from donod_fast.cli import output

if TYPE_CHECKING:
    from donod_fast.engines.choosing import Done


def summary(done: Done) -> dict[str, Any]:
    """For ``--json``."""
    outcome = done.outcome
    return {
        "out": outcome.folder.name,
        "rows": outcome.folder.rows,
        "by_status": dict(outcome.counts),
        "resumed_rows": outcome.resumed_rows,
        "formats": dict(outcome.formats),
        "update": outcome.folder.manifest["update"],
        "seconds": round(done.seconds, 3),
        "compiled": done.compiled,
        "smaller_token_budget": done.smaller_budget,
        "profile": [
            {**asdict(report), "idle": report.idle, "packing": report.packing, "tokens_per_second": rate}
            for report in done.reports
            for rate in (report.tokens_per_second,)
        ],
    }


def summary_text(done: Done) -> str:
    """For a reader."""
    folder, old = done.outcome.folder, done.outcome.resumed_rows
    update = folder.manifest["update"]
    lines = [f"{folder.rows:,} rows in {folder.name}: {output.counts(done.outcome.counts)}"]
    if done.outcome.formats:
        formats = output.counts(done.outcome.formats)
        lines.append(f"formats: {formats}; update: {update['update']}, lr {update['lr']:g}")
    new = f"{folder.rows - old:,} rows in {output.duration(done.seconds)}"
    lines.append(new + (f", {old:,} were there" if old else "") + (f"; {done.compiled}" if done.compiled else ""))
    if done.smaller_budget is not None:
        lines.append(f"memory ran out and batches were halved: --token-budget {done.smaller_budget} would have fitted")
    lines += [report.text() for report in done.reports]
    lines.append(f"next: donod-fast select {folder.name} --keep 0.3 --out subset.jsonl")
    return "\n".join(lines)
