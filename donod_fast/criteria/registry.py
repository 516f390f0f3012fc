"""The criteria by the names that ``--signals`` accepts. A new criterion needs a class and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from donod_fast.criteria.base import Column, Criterion, Need
from donod_fast.criteria.bm25 import BM25
from donod_fast.criteria.embedding import QuestionEmbedding
from donod_fast.criteria.ifd import InstructionFollowingDifficulty
from donod_fast.criteria.influence import Influence, InfluenceMax
from donod_fast.criteria.length import AnswerLength
from donod_fast.criteria.less_head import LessHead, LessHeadMax
from donod_fast.criteria.rds import RepresentationSimilarity
from donod_fast.criteria.statistics import ErrorNorm, GradientNorm, Perplexity
from donod_fast.errors import InputError, suggest

BASE = (
    Column("don", "‖W‖ − ‖W′‖ of one step on the sample alone", "high"),
    Column("nod", "‖W − W′‖ of that step", "low"),
    Column("loss", "cross entropy per scored token, in nats", "low"),
    Column("entropy", "of the predicted distributions, in nats"),
)
"""Columns that every row has; naming them in ``--signals`` costs nothing."""


@dataclass(frozen=True, slots=True)
class SignalOptions:
    """Options that some criteria need.

    Attributes:
        references: paths, globs or hub ids of reference sets.
        ifd_prefix: what stands before the lone answer of ``ifd``, see :mod:`donod_fast.criteria.ifd`.
    """

    references: tuple[str, ...] = ()
    ifd_prefix: str | None = None


SIGNALS: Mapping[str, Callable[[SignalOptions], Criterion]] = {
    "perplexity": lambda options: Perplexity(),
    "el2n": lambda options: ErrorNorm(),
    "grand": lambda options: GradientNorm(),
    "ifd": lambda options: InstructionFollowingDifficulty(options.ifd_prefix),
    "embedding": lambda options: QuestionEmbedding(),
    "length": lambda options: AnswerLength(),
    "rds": lambda options: RepresentationSimilarity(options.references),
    "bm25": lambda options: BM25(options.references),
    "less-head": lambda options: LessHead(options.references),
    "less-head-max": lambda options: LessHeadMax(options.references),
    "influence": lambda options: Influence(options.references),
    "influence-max": lambda options: InfluenceMax(options.references),
}
"""Constructor of each criterion."""


def parse_signals(text: str, options: SignalOptions | None = None) -> tuple[Criterion, ...]:
    """Parse names separated by commas; see :func:`named_criteria`."""
    return named_criteria([name.strip() for name in text.split(",") if name.strip()] or [text], options)


def named_criteria(names: Sequence[str], options: SignalOptions | None = None) -> tuple[Criterion, ...]:
    """The criteria of these names, in their order; names of columns that every row has are ignored.

    Raises:
        InputError: a name is unknown or given twice, a criterion lacks an option that it needs, or an option is
            given that no criterion uses.
        CorpusError: a reference set cannot be read.
    """
    known = [*(column.name for column in BASE), *SIGNALS]
    unknown = [name for name in names if name not in known]
    if unknown:
        name = unknown[0]
        raise InputError(f"--signals: unknown signal {name!r}; known are {', '.join(known)}{suggest(name, known)}")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(f"--signals names {twice[0]} twice")
    chosen = options or SignalOptions()
    criteria = tuple(SIGNALS[name](chosen) for name in names if name in SIGNALS)
    for criterion in criteria:
        criterion.settings()  # reports a missing option before a model is loaded
    if chosen.references and not any(Need.REFERENCE in criterion.needs for criterion in criteria):
        raise InputError(
            f"--reference is used only by the signals that compare with it: {', '.join(comparing())}; add one of them "
            "to --signals"
        )
    if chosen.ifd_prefix is not None and InstructionFollowingDifficulty.name not in names:
        raise InputError("--ifd-prefix is used only by the signal ifd; add it to --signals")
    return criteria


def comparing() -> tuple[str, ...]:
    """The criteria that need a reference set."""
    return tuple(name for name, make in SIGNALS.items() if Need.REFERENCE in make(SignalOptions()).needs)


__all__ = ["BASE", "SIGNALS", "SignalOptions", "comparing", "named_criteria", "parse_signals"]
