"""``donod-fast check``: are the scores right with this model, on this machine, and in this precision?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from donod_fast.cli import output
from donod_fast.cli.errors import CheckFailed
from donod_fast.cli.options import from_dataclasses
from donod_fast.errors import InputError
from donod_fast.models.settings import DTYPE_NAMES, ModelSettings
from donod_fast.scoring.settings import CheckSettings
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    from donod_fast.data.reading import Corpus
    from donod_fast.scoring.numerics_check import CheckLine
    from donod_fast.scoring.scorer import Scorer
    from donod_fast.selection.agreement import Agreement


@from_dataclasses
def check(
    model: ModelSettings,
    settings: CheckSettings,
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.", rich_help_panel="Output")] = False,
) -> None:
    """Compare our scores with float64 autograd and a real optimizer step on MODEL's own states.

    With --against, and with --precision float8 (against bfloat16), also compare how both rank DATA. With
    --head-precision float8 use the first rows of DATA that are long enough for it.
    """
    from donod_fast.data.reading import open_corpus
    from donod_fast.models.loading import load_settings
    from donod_fast.scoring.numerics_check import check_scorer, long_records
    from donod_fast.scoring.scorer import Scorer

    def load(source: ModelSettings, head_precision: str = "full") -> Scorer:
        output.announce_model(source.model, source.revision, quiet=json)
        return Scorer(load_settings(source), head_precision=head_precision)

    corpus = None if settings.data is None else open_corpus([settings.data])
    other = settings.against or ("bfloat16" if model.precision == "float8" else None)
    ranks = None
    if other is None:
        scorer = load(model, settings.head_precision)
    else:
        if corpus is None:
            raise InputError("ranks are compared on your own rows: give --data, the corpus that you want to score")
        if other in DTYPE_NAMES[1:]:
            reference = replace(model, dtype=other, precision="auto")
        else:
            reference = replace(model, model=other, revision=None, dtype="auto", precision="auto")
        ranks, scorer = _ranks(
            lambda: load(reference),
            lambda: load(model, settings.head_precision),
            corpus,
            settings.agreement_rows,
            settings.min_spearman,
            quiet=json,
        )
    if corpus is None:
        records = None
    elif settings.head_precision == "float8":
        records = long_records(scorer, corpus.records(), settings.rows)
    else:
        records = list(islice(corpus.records(), settings.rows))
    lines = check_scorer(scorer, records, naive=settings.naive)
    failed = [line for line in lines if line.passed is False]
    if json:
        output.as_json(_report(scorer, lines, ranks))
    else:
        typer.echo(_text(scorer, lines, ranks))
    if failed:
        raise CheckFailed(f"{len(failed)} of the errors above are larger than their limits")
    if ranks is not None and not ranks.passed:
        raise CheckFailed(f"{ranks.checked} does not preserve the ranking of {ranks.reference}: do not substitute it")


@dataclass(frozen=True, slots=True)
class _Ranks:
    """The compared precisions and the result."""

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
