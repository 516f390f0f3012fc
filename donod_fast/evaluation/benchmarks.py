"""The code benchmarks by name: the sources of their files, their splits and their prompt styles."""

from __future__ import annotations

from dataclasses import dataclass

from donod_fast.errors import InputError, suggest

HUMAN_EVAL = "human-eval"
MBPP = "mbpp"
OF_LM_EVAL = ("agieval", "ifeval")
"""Benchmarks without programs; see :mod:`donod_fast.evaluation.harness`."""

FAMILY = "family"
"""The benchmark of generated tasks, whose file has the form of HumanEval's."""

MBPP_SPLITS: dict[str, range] = {
    "prompt": range(1, 11),
    "test": range(11, 511),
    "validation": range(511, 601),
    "train": range(601, 975),
}
"""Task numbers of MBPP's splits (Austin et al., arXiv 2108.07732, §2.1; its data file's own README)."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A benchmark that the command line offers.

    Attributes:
        name: as on the command line.
        family: the form of its records: ``"human-eval"`` or ``"mbpp"``.
        plus: True if it has EvalPlus's additional inputs.
        styles: its prompt styles, the default first.
        hub: dataset and configuration on the Hugging Face hub, None if its records are not on the hub unchanged.
        source: where to get its file, for messages.
    """

    name: str
    family: str
    plus: bool
    styles: tuple[str, ...]
    hub: tuple[str, str] | None
    source: str

    @property
    def split(self) -> bool:
        """Whether ``--split`` applies: only to MBPP's own files, whose test split is tasks 11 to 510."""
        return self.family == MBPP and not self.plus


_BENCHMARKS = (
    Benchmark(
        "humaneval",
        HUMAN_EVAL,
        False,
        ("completion", "chat"),
        ("openai/openai_humaneval", "openai_humaneval"),
        "HumanEval.jsonl.gz of the repository openai/human-eval",
    ),
    Benchmark(
        "humaneval+",
        HUMAN_EVAL,
        True,
        ("completion", "chat"),
        None,
        "HumanEvalPlus.jsonl.gz of the releases of evalplus/humanevalplus_release",
    ),
    Benchmark(
        "mbpp",
        MBPP,
        False,
        ("3-shot", "0-shot"),
        ("google-research-datasets/mbpp", "full"),
        "mbpp.jsonl of the repository google-research/google-research",
    ),
    Benchmark(
        "mbpp+",
        MBPP,
        True,
        ("3-shot", "0-shot"),
        None,
        "MbppPlus.jsonl.gz of the releases of evalplus/mbppplus_release",
    ),
    Benchmark(
        "mbpp-sanitized",
        MBPP,
        False,
        ("3-shot", "0-shot"),
        ("google-research-datasets/mbpp", "sanitized"),
        "sanitized-mbpp.json of the repository google-research/google-research",
    ),
    Benchmark(
        FAMILY,
        HUMAN_EVAL,
        False,
        ("completion", "chat"),
        None,
        "problems.jsonl, written by donod_fast.studies.family.write_family",
    ),
)
BENCHMARKS: dict[str, Benchmark] = {one.name: one for one in _BENCHMARKS}


def find_benchmark(name: str) -> Benchmark:
    """The benchmark with this name.

    Raises:
        InputError: it does not exist; the message lists all names.
    """
    if name in OF_LM_EVAL:
        raise InputError(f"{name} has options of its own: write donod-fast eval {name} first, and its options after it")
    if name not in BENCHMARKS:
        known = (*BENCHMARKS, *OF_LM_EVAL)
        raise InputError(f"unknown benchmark {name!r}; known are {', '.join(known)}{suggest(name, known)}")
    return BENCHMARKS[name]
