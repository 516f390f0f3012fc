"""What the paper says (DONOD, arXiv 2504.14810), as far as it is known here, and when a run of ours is comparable.

Only its abstract, the parts that this project quotes, and a public review were available to us: most numbers of its
tables are not known here, and none is invented. A number without a source has no place in this module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

ABSTRACT = "abstract of arXiv 2504.14810"
QUOTED = "arXiv 2504.14810 as quoted in this project's design"
REVIEW = "a public review of the submission OpenReview PA0F35JTkf, which quotes it"

MODELS = ("llama-3.1-8b-instruct", "llama-2-13b-chat", "llama-3.2-3b-instruct", "qwen2.5-7b-instruct")
"""Models of the paper, as the review names them; repository names may end in ``-hf`` or begin with ``Meta-``."""

UNKNOWN = "not known here"


CORPORA = ("gsm8k", "logiqa")
"""Corpora of the paper whose public files we know; the review also names SAT questions and data like IFEval's."""


@dataclass(frozen=True)
class Needs:
    """What a run must share with the paper before two numbers of one row can be compared.

    Attributes:
        models: one of these models is trained (or scores, where nothing is trained).
        corpora: one of these corpora is there.
        share: this share of the rows is kept; None for any.
        accuracy: the measure is the accuracy of the whole benchmark (AGIEval and IFEval), not a loss.
        whole: the whole corpus is used.
    """

    models: Sequence[str] = MODELS
    corpora: Sequence[str] = CORPORA
    share: float | None = None
    accuracy: bool = True
    whole: bool = True


@dataclass(frozen=True)
class Fact:
    """One statement of the paper.

    Attributes:
        text: the statement.
        source: where it was read.
        value: its number; None if it has none.
        name: short name of the number, by which our value is found; "" if it has none.
    """

    text: str
    source: str
    value: float | None = None
    name: str = ""


@dataclass(frozen=True)
class Item:
    """A table, a figure or a section of the paper.

    Attributes:
        name: ``Table 5``.
        question: what it shows, as far as known.
        section: the section of our report that repeats it.
        facts: what is known of it.
        needs: what makes a run comparable.
    """

    name: str
    question: str
    section: str
    facts: Sequence[Fact] = ()
    needs: Needs = field(default_factory=Needs)


GRID, ACROSS, ABLATION, FOCUS, STABILITY, PLANE, NOISE = (
    "Target and other domains",
    "Across architectures",
    "Ablation",
    "Output layer",
    "Kept share",
    "NOD–DON plane",
    "Noise",
)

TARGET_GAIN, OTHER_GAIN, OVERLAP = "target gain", "other gain", "overlap"

_GRID = (
    "methods × kept shares × corpora × models, in the target domain and outside, also across architectures; which of "
    f"them this table shows is {UNKNOWN}"
)

ITEMS = (
    Item(
        "Abstract, accuracy",
        "accuracy in the target domain and in the others, with 70 % of the rows left out, against all rows",
        GRID,
        (
            Fact(
                "in the target domain it improves by 14.90 % (whether in points or of the accuracy, and for which "
                f"model and corpus of mathematics: {UNKNOWN})",
                ABSTRACT,
                14.90,
                TARGET_GAIN,
            ),
            Fact("in the other domains it improves by 5.67 % (with the same reservations)", ABSTRACT, 5.67, OTHER_GAIN),
        ),
        Needs(corpora=("gsm8k",), share=0.3),
    ),
    Item(
        "Abstract, architectures",
        "rows that one model selects, another is trained on",
        ACROSS,
        (Fact("rows that Llama-3.1-8B selects also serve Llama-2-13B; no numbers", ABSTRACT),),
        Needs(models=("llama-2-13b-chat",)),
    ),
    Item("Table 1", _GRID, GRID),
    Item(
        "Table 2",
        "kept shares, at least 20 and 30 %; more of it is " + UNKNOWN,
        GRID,
        (Fact("a kept share of 30 % does worse than one of 20 %; no numbers", REVIEW),),
    ),
    Item("Table 3", _GRID, GRID),
    Item("Table 4", _GRID, GRID),
    Item(
        "Table 5",
        "ablation: DON alone, NOD alone, and ways to combine them",
        ABLATION,
        (Fact("the methods select differently; no numbers", QUOTED),),
    ),
    Item("Table 8", _GRID, GRID),
    Item(
        "Figure 3",
        "change of every layer in fine-tuning",
        FOCUS,
        (Fact("the output layer moves farthest in absolute terms; no numbers", QUOTED),),
        Needs(accuracy=False),
    ),
    Item(
        "Figure 4",
        "results by kept share, 10 to 100 %",
        STABILITY,
        (Fact("for some corpora the best share is a small one; no numbers", REVIEW),),
    ),
    Item(
        "Figure 5",
        "where selected and dropped rows lie in the plane of NOD and DON",
        PLANE,
        (Fact("what NODON takes (the rows that TOPSIS ranks last) lies at high NOD; no numbers", QUOTED),),
        Needs(accuracy=False),
    ),
    Item(
        "§4.4",
        "the best 20 % are damaged (masked words) and scored again: how many remain among the best 20 %?",
        NOISE,
        (
            Fact(
                f"0.387 remain (model, corpus and share of masked words: {UNKNOWN})",
                QUOTED,
                0.387,
                OVERLAP,
            ),
        ),
        Needs(accuracy=False),
    ),
)
"""The paper's tables and figures that ``study paper`` repeats, in the paper's order."""


@dataclass(frozen=True)
class Ran:
    """What a run used, to compare it with the paper.

    Attributes:
        scored_by, trained: models.
        corpora: names and places of the corpora.
        shares: kept shares.
        is_whole: whether every corpus was used from its first to its last row.
        benchmarks: benchmarks that were measured on all of their problems.
        sections: sections of the report that have results.
    """

    scored_by: Sequence[str]
    trained: Sequence[str]
    corpora: Sequence[str]
    shares: Sequence[float]
    is_whole: bool
    benchmarks: Sequence[str]
    sections: Sequence[str]


@dataclass(frozen=True)
class Verdict:
    """Whether a run's numbers can be compared with the paper's, and why not.

    Attributes:
        comparable: whether they can.
        reasons: what stands in the way; empty if nothing does.
    """

    comparable: bool
    reasons: tuple[str, ...]

    @property
    def text(self) -> str:
        """``comparable …``, or ``not comparable: …; …``."""
        if self.comparable:
            return "comparable, with the reservations named"
        return f"not comparable: {'; '.join(self.reasons)}"


def verdict(item: Item, ran: Ran) -> Verdict:
    """Compare a run with what a table of the paper needs."""
    needs, reasons = item.needs, list[str]()
    if item.section not in ran.sections:
        return Verdict(False, ("this run has no such part",))
    if not any(fact.value is not None for fact in item.facts):
        reasons.append(f"the paper's numbers are {UNKNOWN}")
    used = list(dict.fromkeys([*ran.trained, *ran.scored_by]))
    if not any(is_model(name, wanted) for name in used for wanted in needs.models):
        reasons.append(f"another model ({', '.join(map(short_model, used))}) than {' or '.join(needs.models)}")
    if not any(wanted in one.lower() for one in ran.corpora for wanted in needs.corpora):
        reasons.append(f"another corpus than {' or '.join(needs.corpora)}")
    if needs.share is not None and needs.share not in ran.shares:
        reasons.append(f"no selection keeps {100 * needs.share:g} %")
    if needs.accuracy and not {"agieval", "ifeval"} <= set(ran.benchmarks):
        reasons.append("no accuracy on the whole of AGIEval and IFEval, which the paper measures")
    if needs.whole and not ran.is_whole:
        reasons.append("parts of the corpora only")
    return Verdict(not reasons, tuple(reasons))


def is_model(name: str, wanted: str) -> bool:
    """Whether a folder or hub id names a model of the paper."""
    return short_model(name).lower().removesuffix("-hf").removeprefix("meta-") == wanted


def short_model(name: str) -> str:
    """The last part of a folder or hub id."""
    return name.rstrip("/").rpartition("/")[2]


def facts(items: Sequence[Item] = ITEMS) -> Mapping[str, Fact]:
    """The paper's numbers by name."""
    return {fact.name: fact for item in items for fact in item.facts if fact.name}


__all__ = [
    "ABLATION",
    "ACROSS",
    "FOCUS",
    "GRID",
    "ITEMS",
    "NOISE",
    "OTHER_GAIN",
    "OVERLAP",
    "PLANE",
    "STABILITY",
    "TARGET_GAIN",
    "UNKNOWN",
    "Fact",
    "Item",
    "Needs",
    "Ran",
    "Verdict",
    "facts",
    "is_model",
    "short_model",
    "verdict",
]
