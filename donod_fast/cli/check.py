"""``donod-fast check``: are the scores right with this model, on this machine, and in this precision?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from donod_fast.cli import options, output
from donod_fast.errors import DonodError, InputError
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    from donod_fast.data.reading import Corpus
    from donod_fast.scoring.numerics_check import CheckLine
    from donod_fast.scoring.scorer import Scorer
    from donod_fast.selection.agreement import Agreement


class CheckFailed(DonodError):
    """An error is larger than its limit."""

    exit_code = 1


def check(
    model: options.Model,
    data: Annotated[str | None, typer.Option(help="Rows to check on (default: built-in sentences).")] = None,
    rows: Annotated[int, typer.Option(help="How many rows of DATA for the errors.", min=1)] = 8,
    revision: options.Revision = None,
    dtype: options.Dtype = "auto",
    precision: options.Precision = "auto",
    against: Annotated[
        str | None,
        typer.Option(help="Compare the ranks of DATA with those of this dtype, or of this other model."),
    ] = None,
    agreement_rows: Annotated[int, typer.Option(help="How many rows of DATA for the ranks.", min=3)] = 200,
    min_spearman: Annotated[float, typer.Option(help="Least rank correlation of DON and NOD.")] = 0.99,
    device: options.Device = None,
    device_map: options.DeviceMap = None,
    max_memory: options.MaxMemory = None,
    offload_folder: options.OffloadFolder = None,
    trust_remote_code: options.TrustRemoteCode = False,
    naive: Annotated[bool, typer.Option(help="Also show what the obvious program would give.")] = True,
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Compare our scores with float64 autograd and a real optimizer step on MODEL's own states.

    With --against, and with --precision float8 (against bfloat16), also whether both rank DATA alike.
    """
    from donod_fast.data.reading import open_corpus
    from donod_fast.models.placement import parse_max_memory
    from donod_fast.scoring.numerics_check import check_scorer
    from donod_fast.scoring.scorer import Scorer

    memory = None if max_memory is None else parse_max_memory(max_memory)

    def load(name: str, **choices: Any) -> Scorer:
        output.announce_model(name, choices.get("revision"), quiet=json)
        return Scorer.from_pretrained(
            name,
            device=device,
            device_map=device_map,
            max_memory=memory,
            offload_folder=offload_folder,
            trust_remote_code=trust_remote_code,
            **choices,
        )

    def checked() -> Scorer:
        return load(model, revision=revision, dtype=dtype, precision=precision)

    corpus = None if data is None else open_corpus([data])
    other = against or ("bfloat16" if precision == "float8" else None)
    ranks = None
    if other is None:
        scorer = checked()
    else:
        from donod_fast.models.loading import DTYPES

        if corpus is None:
            raise InputError("ranks are compared on rows of yours: give --data, the corpus that you mean to score")

        def reference() -> Scorer:
            return load(model, revision=revision, dtype=other) if other in DTYPES else load(other)

        ranks, scorer = _ranks(reference, checked, corpus, agreement_rows, min_spearman, quiet=json)
    records = None if corpus is None else list(islice(corpus.records(), rows))
    lines = check_scorer(scorer, records, naive=naive)
    failed = [line for line in lines if line.passed is False]
    if json:
        output.as_json(_report(scorer, lines, ranks))
    else:
        typer.echo(_text(scorer, lines, ranks))
    if failed:
        raise CheckFailed(f"{len(failed)} of the errors above are larger than their limits")
    if ranks is not None and not ranks.passed:
        raise CheckFailed(f"{ranks.checked} ranks the rows otherwise than {ranks.reference}: it is no stand-in for it")


@dataclass(frozen=True, slots=True)
class _Ranks:
    """What was compared with what, and how it came out."""

    reference: str
    checked: str
    agreement: Agreement
    least: float

    @property
    def passed(self) -> bool:
        return self.agreement.passed(self.least)


def _ranks(
    reference: Callable[[], Scorer],
    checked: Callable[[], Scorer],
    corpus: Corpus,
    rows: int,
    least: float,
    *,
    quiet: bool,
) -> tuple[_Ranks, Scorer]:
    from donod_fast.selection.agreement import compare_runs, spread_rows

    records = spread_rows(corpus, rows)
    with output.progress_bar(2 * len(records), quiet=quiet) as progress:
        agreement, before, scorer = compare_runs(reference, checked, records, progress)
    return _Ranks(before, scorer.loaded.precision, agreement, least), scorer


def _report(scorer: Scorer, lines: Sequence[CheckLine], ranks: _Ranks | None) -> dict[str, Any]:
    report = {
        "model": scorer.loaded.name,
        "precision": scorer.loaded.precision,
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
        "passed": all(line.passed is not False for line in lines) and (ranks is None or ranks.passed),
    }
    if ranks is not None:
        report["agreement"] = {
            "reference": ranks.reference,
            "checked": ranks.checked,
            **asdict(ranks.agreement),
            "limit": ranks.least,
            "passed": ranks.passed,
        }
    return report


def _text(scorer: Scorer, lines: Sequence[CheckLine], ranks: _Ranks | None) -> str:
    loaded, shape = scorer.loaded, "×".join(map(str, scorer.head.weight.shape))
    rows = (
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
    )
    text = [
        f"{loaded.name}: trunk {loaded.precision}, head {shape} {str(scorer.head.weight.dtype)[6:]}, "
        f"logits differ from the model's own by {scorer.proof.logits_error:.1e}, "
        f"padding changes hidden states by {scorer.trunk.padding_error:.1e}",
        "largest errors against float64 autograd (DON and NOD over NOD, loss over itself):",
        output.table(("update", "method", "DON", "NOD", "loss", "limit", ""), rows),
    ]
    if ranks is not None:
        found = ranks.agreement
        text += [
            f"ranks of {plural(found.rows, 'row')}, {ranks.checked} against {ranks.reference}:",
            f"Spearman DON {found.spearman_don:.4f}, NOD {found.spearman_nod:.4f} (at least {ranks.least:g}), "
            f"top-30 % overlap {found.overlap:.3f}  {'ok' if ranks.passed else 'FAILED'}",
        ]
    elif loaded.quantised:
        text.append("it is quantised: --against MODEL --data DATA compares its ranks with those of the unquantised one")
    return "\n".join(text)
