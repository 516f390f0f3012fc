"""Thousands of drawn templates and conversations: exactly the turns and their closings are scored.

An oracle in ``tests/support`` renders every template in Python and knows what each character is. For many more trials,
with each kind of failure in its smallest form: ``python tests/support/mask_trials.py --pairs 50000``.
"""

from __future__ import annotations

import random
from collections import Counter
from functools import cache

import pytest
from conversation_generator import Drawn, draw_conversation
from mask_trials import Outcome, judge, setup_of, trials
from template_oracle import character_flags, write
from template_specs import STYLES, TemplateSpec, draw_spec
from trial_shrinking import shrink

from donod_fast.data.types import Record

SEEDS = range(10)
PAIRS = 220

# The largest shares of pairs that may be refused, by the reason. A refusal counts as right only where the oracle
# knows that its reason holds; the shares make sure that most pairs are scored.
REFUSED = {
    "refused: a token crosses the border": 0.15,
    "refused: the last reasoning is cut": 0.20,
    "refused: the template raises": 0.05,
    "refused: no turn is asked for": 0.08,
}


@cache
def _tried(seed: int) -> tuple[Counter[str], tuple[str, ...]]:
    """The number of outcomes by kind, and the first failures in their smallest form."""
    counts, problems = Counter[str](), list[str]()
    for setup, drawn, outcome in trials(seed, PAIRS):
        counts[outcome.kind] += 1
        if outcome.kind == "wrong" and len(problems) < 3:
            problems.append(shrink(setup, drawn, outcome)[2].problem)
    return counts, tuple(problems)


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_mask_of_every_drawn_pair_is_the_oracles(seed: int) -> None:
    counts, problems = _tried(seed)
    assert not problems, f"{counts['wrong']} of {counts.total()} pairs are wrong:\n" + "\n".join(problems)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_of_fifty_thousand_drawn_pairs_hardly_any_is_wrong() -> None:
    """What is left are templates that no rendering tells apart from others, such as a closing like the user's own."""
    wrong = [trial for trial in trials(2026, 50_000) if trial[2].kind == "wrong"]
    assert len(wrong) <= 100, "\n".join(shrink(*trial)[2].problem for trial in wrong[:5])


def test_few_drawn_pairs_are_refused_and_each_for_a_known_reason() -> None:
    counts = sum((_tried(seed)[0] for seed in SEEDS), Counter[str]())
    assert counts.total() >= 2_000
    assert set(counts) - {"exact", "recast", "wrong"} <= set(REFUSED)
    assert {kind: n for kind, n in counts.items() if n > REFUSED.get(kind, 1) * counts.total()} == {}


def test_a_plain_template_scores_every_drawn_conversation() -> None:
    rng = random.Random(7)
    frames = STYLES["im"]
    spec = TemplateSpec(
        frames, prompt=frames["assistant"].before, parts=True, calls="tagged", tools="system", thinking="split_all"
    )
    setup = setup_of(spec)
    kinds = Counter[str]()
    for _ in range(200):
        drawn = draw_conversation(rng)
        outcome = judge(setup, drawn)
        assert outcome.kind != "wrong", outcome.problem
        kinds[outcome.kind] += 1
    assert kinds["exact"] > 180


def test_the_oracle_writes_what_jinja_writes() -> None:
    rng = random.Random(11)
    for _ in range(150):
        spec = draw_spec(rng)
        drawn = draw_conversation(rng)
        outcome: Outcome = judge(setup_of(spec), drawn)
        assert "DISAGREE" not in outcome.problem, outcome.problem


def test_the_oracle_flags_a_turn_and_its_closing_and_nothing_else() -> None:
    frames = STYLES["im"]
    spec = TemplateSpec(frames, prompt=frames["assistant"].before, trailer="<|pad|>", header_always=True)
    talk = [("user", "Yes."), ("assistant", "Yes."), ("user", "No"), ("assistant", "No")]
    drawn = Drawn([{"role": role, "content": text} for role, text in talk])
    written = write(spec, drawn.messages)
    flags = character_flags(spec, written, drawn.wanted("all"))
    assert written.text.endswith("No<|im_end|>\n<|pad|><|im_start|>assistant\n")
    shown = "".join(c if flag else "·" for c, flag in zip(written.text, flags, strict=True))
    assert [run for run in shown.split("·") if run] == ["Yes.<|im_end|>", "No<|im_end|>"]
    assert shown.index("Yes.") == written.text.rindex("Yes.")


@pytest.mark.parametrize("habit", ["right", "gap", "two", "trailer"])
def test_right_generation_marks_are_what_the_mask_is_made_from(habit: str) -> None:
    rng = random.Random(5)
    frames = STYLES["im"]
    spec = TemplateSpec(frames, prompt=frames["assistant"].before, trailer="<|pad|>", trim="all", marks=habit)
    setup = setup_of(spec)
    masks = Counter[str]()
    for _ in range(60):
        drawn = draw_conversation(rng)
        if judge(setup, drawn).kind == "exact":
            masks[setup.masker.tokenize(Record(row=0, file="-", place="case", data=drawn.data)).mask] += 1
    assert set(masks) == {"generation"}
    assert masks.total() > 20
