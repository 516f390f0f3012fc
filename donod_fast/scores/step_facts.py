"""What the scores of a folder tell about their step: the gradient against eps, and the variation of the columns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from donod_fast.scores.gradient_size import GradientSize
from donod_fast.scores.part_summary import PartSummary, whole_column


@dataclass(frozen=True, slots=True)
class StepFacts:
    """Facts about the scores of some parts. Each is None if it is not known, for example in parts of earlier releases.

    Attributes:
        gradient: size of the gradient's entries against eps, for AdamW.
        don, nod: coefficient of variation σ/|μ| of the column over the scored rows.
    """

    gradient: GradientSize | None
    don: float | None
    nod: float | None

    @staticmethod
    def of(summaries: Iterable[PartSummary | None]) -> StepFacts:
        """Read them from the footers of parts, in order."""
        found = [summary for summary in summaries if summary is not None]
        rows = sum(summary.rows for summary in found)
        gradient = next((summary.gradient for summary in found if summary.gradient is not None), None)
        don, nod = (
            whole_column(getattr(summary, name) for summary in found).variation(rows) for name in ("don", "nod")
        )
        return StepFacts(gradient, don, nod)

    def as_json(self) -> dict[str, Any]:
        """The facts that are known, as JSON values."""
        found = {"variation_don": self.don, "variation_nod": self.nod}
        if self.gradient is not None:
            found["gradient"] = asdict(self.gradient)  # type: ignore[assignment]
        return {name: value for name, value in found.items() if value is not None}

    def line(self) -> str | None:
        """One line, or None if nothing is known."""
        parts = [] if self.gradient is None else [self.gradient.text()]
        columns = [f"{name} {value:.2%}" for name, value in (("DON", self.don), ("NOD", self.nod)) if value is not None]
        if columns:
            parts.append(f"variation (σ/|μ|) of {', of '.join(columns)}")
        return "; ".join(parts) or None


__all__ = ["StepFacts"]
