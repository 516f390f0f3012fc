"""``donod-fast check``: are the scores right with this model, on this machine?"""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from donod_fast.cli import output
from donod_fast.errors import DonodError


class CheckFailed(DonodError):
    """An error is larger than its limit."""

    exit_code = 1


def check(
    model: Annotated[str, typer.Option(help="Folder or hub id of a causal language model (safetensors).")],
    data: Annotated[str | None, typer.Option(help="Rows to check on (default: built-in sentences).")] = None,
    rows: Annotated[int, typer.Option(help="How many rows of DATA.", min=1)] = 8,
    revision: Annotated[str | None, typer.Option(help="Revision of a hub model.")] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    device: Annotated[str | None, typer.Option(help="Device.")] = None,
    trust_remote_code: Annotated[bool, typer.Option(help="Run code that comes with the model.")] = False,
    naive: Annotated[bool, typer.Option(help="Also show what the obvious program would give.")] = True,
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Compare our scores with float64 autograd and a real optimizer step on MODEL's own states."""
    from donod_fast.check import check_scorer
    from donod_fast.reading import open_corpus
    from donod_fast.scorer import Scorer

    scorer = Scorer.from_pretrained(
        model, revision=revision, dtype=dtype, device=device, trust_remote_code=trust_remote_code
    )
    records = None if data is None else list(islice(open_corpus([data]).records(), rows))
    lines = check_scorer(scorer, records, naive=naive)
    failed = [line for line in lines if line.passed is False]
    shape = "×".join(map(str, scorer.head.weight.shape))
    if json:
        output.as_json(
            {
                "model": scorer.loaded.name,
                "head": {"shape": list(scorer.head.weight.shape), "logits_error": scorer.proof.logits_error},
                "padding_error": scorer.trunk.padding_error,
                "lines": [
                    {
                        "method": line.method,
                        "update": line.update,
                        "don_error": line.don_error,
                        "nod_error": line.nod_error,
                        "loss_error": line.loss_error,
                        "limit": line.limit,
                        "passed": line.passed,
                    }
                    for line in lines
                ],
                "passed": not failed,
            }
        )
    else:
        typer.echo(
            f"{scorer.loaded.name}: head {shape} {str(scorer.head.weight.dtype)[6:]}, "
            f"logits differ from the model's own by {scorer.proof.logits_error:.1e}, "
            f"padding changes hidden states by {scorer.trunk.padding_error:.1e}"
        )
        typer.echo("largest errors against float64 autograd (DON and NOD over NOD, loss over itself):")
        typer.echo(
            output.table(
                ("update", "method", "DON", "NOD", "loss", "limit", ""),
                (
                    (
                        line.update,
                        line.method,
                        f"{line.don_error:.1e}",
                        f"{line.nod_error:.1e}",
                        f"{line.loss_error:.1e}",
                        "" if line.limit is None else f"{line.limit:.0e}",
                        {True: "ok", False: "FAILED", None: ""}[line.passed],
                    )
                    for line in lines
                ),
            )
        )
    if failed:
        raise CheckFailed(f"{len(failed)} of the errors above are larger than their limits")
