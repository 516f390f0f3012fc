"""Cost of each further criterion over DON and NOD alone: the same tokenised rows, in turns, in one process.

    python bench/criteria.py --model ../shared/models/tiny-instruct --data ../shared/data/gsm8k/test.jsonl

``together`` computes a criterion with the scores, ``later`` adds it to scored rows; both are ratios to the time of
DON and NOD alone. ``trunk`` is the bare trunk over the rows' own samples. Criteria that compare with a reference set
are measured if ``--reference`` is given; the work on the set itself is not timed.
Appends to results/criteria.csv.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import torch
from record import interleaved, print_rows, write_rows

from donod_fast.criteria.base import Criterion, Need
from donod_fast.criteria.registry import SIGNALS, SignalOptions, comparing, parse_signals
from donod_fast.criteria.running import NO_SIGNALS, SignalSet
from donod_fast.data.reading import open_corpus
from donod_fast.data.types import Status
from donod_fast.models.batching import collate, make_batches
from donod_fast.scoring.scorer import Scorer
from donod_fast.scoring.settings import UpdateSettings

ALL = "all of these"


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--reference", help="JSON Lines; its last rows are the reference set")
    parser.add_argument("--reference-rows", type=int, default=64)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--update", default="adamw")
    parser.add_argument("--signals", help="names, separated by commas (default: each one alone, and all together)")
    parser.add_argument("--no-record", action="store_true")
    options = parser.parse_args()

    scorer = Scorer.from_pretrained(options.model, update=UpdateSettings(options.update))
    records = list(islice(open_corpus([options.data]).records(), options.rows))
    samples = [one for one in scorer.masker.tokenize_many(records) if one.status is Status.SCORED]
    told = SignalOptions(_last_rows(options.reference, options.reference_rows))
    compared = comparing()
    wanted = [name for name in SIGNALS if options.reference or name not in compared]
    names = options.signals.split(",") if options.signals else wanted
    sets = {name: parse_signals(name, told if name in compared else None) for name in names}
    if len(names) > 1:
        sets[ALL] = tuple(criterion for one in sets.values() for criterion in one)
    bound = {name: SignalSet.of(criteria, scorer.context) for name, criteria in sets.items()}
    losses = [row.loss for row in scorer.sample_scorer.score(samples)]

    programs: dict[str, Callable[[], object]] = {"trunk": lambda: _trunk(scorer, samples)}
    programs["don, nod"] = lambda: _scored(scorer, samples, NO_SIGNALS)
    for name, signals in bound.items():
        programs[f"{name}: together"] = lambda signals=signals: _scored(scorer, samples, signals)  # type: ignore[misc]
        programs[f"{name}: later"] = lambda signals=signals: scorer.sample_scorer.add(samples, losses, signals)  # type: ignore[misc]
    times = interleaved(programs, rounds=options.rounds)
    base = statistics.median(times["don, nod"])
    tokens = sum(sample.tokens for sample in samples)
    second = {name: _second_pass_tokens(criteria, scorer, samples) for name, criteria in sets.items()}
    rows = [
        {
            "signal": name,
            "ratio": round(statistics.median(times[f"{name}: together"]) / base, 3),
            "ratio_later": round(statistics.median(times[f"{name}: later"]) / base, 3),
            "seconds": round(statistics.median(times[f"{name}: together"]), 3),
            "seconds_alone": round(base, 3),
            "trunk_ratio": round(statistics.median(times["trunk"]) / base, 3),
            "second_pass_tokens": round(second[name] / tokens, 3),
            "rows": len(samples),
            "tokens": tokens,
            "update": options.update,
            "references": options.reference_rows if name in (*compared, ALL) and told.references else 0,
            "rounds": options.rounds,
        }
        for name in sets
    ]
    print_rows(rows)
    if not options.no_record:
        write_rows("criteria", rows)


def _last_rows(path: str | None, count: int) -> tuple[str, ...]:
    """Write the last rows, which are not scored, to a file."""
    if path is None:
        return ()
    chosen = Path(tempfile.mkdtemp(prefix="donod-fast-bench-")) / "reference.jsonl"
    chosen.write_text(
        "".join(Path(path).read_text(encoding="utf-8").splitlines(keepends=True)[-count:]), encoding="utf-8"
    )
    return (str(chosen),)


def _scored(scorer: Scorer, samples: list, signals: SignalSet) -> object:  # type: ignore[type-arg]
    return scorer.sample_scorer.with_signals(signals).score(samples)


@torch.inference_mode()
def _trunk(scorer: Scorer, samples: list) -> None:  # type: ignore[type-arg]
    packs, rope = scorer.trunk.packs, scorer.trunk.rope
    for group in make_batches(samples, scorer.sample_scorer.token_budget, packs, rope):
        scorer.trunk.scored_states(collate(samples, group, packed=packs, rope=rope))


def _second_pass_tokens(criteria: tuple[Criterion, ...], scorer: Scorer, samples: list) -> int:  # type: ignore[type-arg]
    signals = SignalSet.of([one for one in criteria if Need.REFERENCE not in one.needs], scorer.context)
    return sum(one.tokens for sample in samples for some in signals.second_pass(sample) for one in some)


if __name__ == "__main__":
    main()
