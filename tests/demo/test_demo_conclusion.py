"""The sentences under the demonstration's table follow from its counts."""

from __future__ import annotations

import pytest

from donod_fast.demo.conclusion import Verdict, conclude, judge
from donod_fast.demo.report import ALL_KINDS, Count, Detection

DEFAULT, CONTROL = "TOPSIS", "random"


def detection(method: str, *dropped: int, share: float = 0.7) -> Detection:
    """A method on 1,000 rows with 100 damaged ones per count of ``dropped``."""
    kinds = {f"kind_{number}": Count(count, 100) for number, count in enumerate(dropped, 1)}
    planted = 100 * len(dropped)
    kinds[ALL_KINDS] = Count(sum(dropped), planted)
    return Detection(method, kinds, Count(round(1000 * share) - sum(dropped), 1000 - planted), share)


def said(*detections: Detection) -> list[str]:
    return conclude([*detections, detection(CONTROL, 70, 70, 70)], default=DEFAULT, control=CONTROL).splitlines()


def test_other_methods_win_and_the_default_loses() -> None:
    lines = said(detection(DEFAULT, 63, 69, 55), detection("NOD", 100, 97, 100), detection("loss", 100, 100, 100))
    assert lines == [
        "NOD and loss find the damage; the default, TOPSIS, does not: compare before you trust.",
        "Of 300 damaged rows, chance drops 197 to 223.",
        "- NOD and loss drop most of the damage: 297 and 300.",
        "- TOPSIS drops fewer than chance: 187.",
    ]


def test_one_other_method_wins() -> None:
    lines = said(detection(DEFAULT, 70, 71, 72), detection("NOD", 95, 97, 99), detection("DON", 66, 68, 70))
    assert lines[0] == "NOD finds the damage; the default, TOPSIS, does not: compare before you trust."
    assert lines[2:] == [
        "- NOD drops most of the damage: 291.",
        "- TOPSIS and DON drop as many as chance: 213 and 204.",
    ]


def test_only_the_default_wins() -> None:
    lines = said(detection("NOD", 70, 70, 70), detection(DEFAULT, 99, 99, 99))
    assert lines[0] == "Only the default, TOPSIS, finds the damage here: compare before you trust."


def test_the_default_and_others_win() -> None:
    lines = said(detection("NOD", 99, 99, 99), detection(DEFAULT, 99, 99, 99))
    assert lines[0] == "The default, TOPSIS, finds the damage here, and so does NOD: compare before you trust."
    lines = said(detection("NOD", 99, 99, 99), detection(DEFAULT, 99, 99, 99), detection("loss", 99, 99, 99))
    assert "and so do NOD and loss:" in lines[0]


def test_no_method_wins() -> None:
    lines = said(detection(DEFAULT, 70, 70, 70), detection("NOD", 78, 78, 78), detection("DON", 50, 50, 50))
    assert lines[0] == "No method finds the damage, the default, TOPSIS, included: compare before you trust."
    assert lines[2:] == [
        "- NOD drops somewhat more than chance: 234.",
        "- TOPSIS drops as many as chance: 210.",
        "- DON drops fewer than chance: 150.",
    ]


def test_a_method_that_finds_one_kind_and_keeps_another_is_named() -> None:
    lines = said(detection(DEFAULT, 49, 86, 70))
    assert lines[-1] == ("- By kind, TOPSIS is above chance on kind 2 (86 of 100), but below it on kind 1 (49 of 100).")


def test_the_random_draw_gets_no_verdict() -> None:
    assert CONTROL not in "\n".join(said(detection(DEFAULT, 70, 70, 70)))


@pytest.mark.parametrize(("dropped", "share"), [((0, 0, 0), 0.0), ((100, 100, 100), 1.0), ((), 0.7)])
def test_a_table_that_shows_nothing_says_so(dropped: tuple[int, ...], share: float) -> None:
    (line,) = said(detection(DEFAULT, *dropped, share=share))
    assert line.startswith("This table shows nothing")


def test_a_default_that_is_not_in_the_table_is_refused() -> None:
    with pytest.raises(ValueError, match="TOPSIS is not among the methods"):
        said(detection("NOD", 99, 99, 99))


def test_verdicts_change_at_two_deviations_and_at_half_way() -> None:
    # 70 of 100 expected with a standard deviation of sqrt(100·0.7·0.3·900/999) = 4.35
    verdicts = {count: judge(detection("NOD", count), Count(count, 100)) for count in (61, 62, 78, 79, 84, 85)}
    assert verdicts == {
        61: Verdict.BELOW,
        62: Verdict.CHANCE,
        78: Verdict.CHANCE,
        79: Verdict.ABOVE,
        84: Verdict.ABOVE,
        85: Verdict.FOUND,
    }


def test_the_best_count_is_limited_by_what_is_dropped() -> None:
    # 100 of 1,000 rows are dropped and 300 damaged: 30 is chance, 100 the best, 65 half-way
    found = detection("NOD", 22, 22, 22, share=0.1)
    assert judge(found, found.kinds[ALL_KINDS]) is Verdict.FOUND
