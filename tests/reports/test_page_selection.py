"""What the page says it keeps is what ``select`` keeps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_cases import SOURCES, Case
from report_pages import Watched, command, kept, selected, set_keep, settled

from donod_fast.selection.keeping import kept_count, parse_keep
from donod_fast.selection.out_of_core.shares import shares


@pytest.fixture(scope="module")
def watched(browser: Any, file: Path) -> Iterator[Watched]:
    watched = Watched(browser, file)
    yield watched
    watched.close()


@pytest.fixture
def page(watched: Watched) -> Any:
    return watched.open()


SHARES = [
    "0.3",
    "30%",
    "1",
    "1.0",
    "100%",
    "294",
    "5000",
    ".5",
    "1e-9",
    "0.014795918367346938",
    " 7 ",
    "0.1285",
    "99.95 %",
]


def test_every_share_keeps_the_rows_that_select_keeps(page: Any, case: Case) -> None:
    for method in ("topsis", "loss"):
        page.select_option("#method", method)
        for text in SHARES:
            set_keep(page, text)
            order = case.orders[method]
            count = kept_count(parse_keep(text), len(order))
            assert kept(page) == sorted(order[:count].tolist()), (method, text)
            assert f"--method {method}" in command(page)
            assert page.evaluate("document.getElementById('counts').innerText").startswith(
                f"{count:,} of {len(order):,}"
            )


def test_rounding_is_that_of_python_for_every_share(page: Any) -> None:
    # Ties of the rounding: shares whose product with the number of rows is a half.
    pairs = [
        (f"{(2 * half + 1) / 2 / rows:.17g}", rows) for rows in (7, 29, 980, 7473) for half in range(0, rows - 1, 3)
    ]
    found = page.evaluate("([pairs]) => pairs.map(([keep, rows]) => donodReport.keptCount(keep, rows))", [pairs])
    assert found == [kept_count(parse_keep(keep), rows) for keep, rows in pairs]


@pytest.mark.parametrize("text", ["0", "0.0", "1.5", "-1", "abc", "", "3e2", "101%", "1_000", "٣"])
def test_a_share_that_select_refuses_changes_nothing(page: Any, text: str) -> None:
    before = kept(page)
    set_keep(page, text)
    assert kept(page) == before
    assert page.get_attribute("#keep-text", "aria-invalid") == "true"


def test_each_source_keeps_what_by_gives_it(page: Any, case: Case) -> None:
    source = np.where(case.rows % 97 == 0, 3, case.source)
    numbers = list(dict.fromkeys(source.tolist()))  # groups in order of appearance
    of = dict(zip(case.rows.tolist(), source.tolist(), strict=True))
    page.select_option("#by", "source")
    for text in ("0.3", "10", "3", "1.0", "0.001"):
        set_keep(page, text)
        order = case.orders["topsis"].tolist()
        scored = [sum(of[row] == number for row in order) for number in numbers]
        quotas = dict(zip(numbers, shares(parse_keep(text), scored), strict=True))
        expected = []
        for number in numbers:
            expected += [row for row in order if of[row] == number][: quotas[number]]
        assert kept(page) == sorted(expected), text
        assert " --by source " in command(page)


def test_shares_of_groups_are_those_of_python(page: Any) -> None:
    rng = np.random.default_rng(3)
    cases = [(str(rng.integers(1, 60)), rng.integers(0, 12, rng.integers(1, 9)).tolist()) for _ in range(200)]
    cases += [(f"{rng.uniform(0.01, 1):.3f}", rng.integers(0, 40, 5).tolist()) for _ in range(50)]
    found = page.evaluate("([cases]) => cases.map(([keep, scored]) => donodReport.shares(keep, scored))", [cases])
    assert found == [shares(parse_keep(keep), scored) for keep, scored in cases]


def test_the_slider_keeps_a_share_and_the_keyboard_moves_it(page: Any, case: Case) -> None:
    page.focus("#keep")
    page.keyboard.press("ArrowRight")
    settled(page)
    assert page.input_value("#keep-text") == "0.301"
    page.keyboard.press("End")
    assert len(kept(page)) == 980
    assert "--keep 1.0 " in command(page), "1 would be one row"
    page.keyboard.press("Home")
    assert len(kept(page)) == kept_count(0.001, 980)
    assert page.get_attribute("#keep", "aria-valuetext") == "0.001: 1 row"


def test_the_address_sets_the_selection_and_follows_it(watched: Watched, case: Case) -> None:
    page = watched.open("#method=don&keep=25%25")
    assert kept(page) == sorted(case.orders["don"][: kept_count(0.25, 980)].tolist())
    set_keep(page, "12")
    assert "method=don&keep=12" in page.evaluate("location.hash")
    page = watched.open("#method=nonsense&keep=-3&row=abc&by=nothing")
    assert "the method nonsense, which this report does not hold" in page.inner_text("#about")
    assert kept(page) == sorted(case.orders["topsis"][: kept_count(0.3, 980)].tolist())


def test_sources_and_tokens_of_the_kept_rows_are_counted(page: Any, case: Case) -> None:
    rows = set(kept(page))
    there = np.array([row in rows for row in case.rows.tolist()])
    tokens = int(case.numbers["scored_tokens"][there].sum())
    assert f"{tokens:,} scored tokens" in page.inner_text("#counts")
    source = np.where(case.rows % 97 == 0, 3, case.source)
    for at, name in enumerate((*SOURCES, "(none)")):
        cells = page.locator(f'#composition tr[data-name="{name}"] td').all_inner_texts()
        expected = int(((source == at) & there).sum())
        assert cells[0] == f"{(source == at).sum():,}"
        assert cells[1].split()[0].startswith(f"{expected:,}")


def test_every_length_of_the_rows_is_shown_with_what_is_kept(page: Any, case: Case) -> None:
    rows = set(kept(page))
    shown = page.eval_on_selector_all(
        "#composition table:last-of-type tbody tr", "all => all.map(one => [one.dataset.name, one.innerText])"
    )
    lengths, total = case.numbers["tokens"], 0
    there = np.array([row in rows for row in case.rows.tolist()])
    for name, text in shown:
        low, _, high = name.partition(" to ")
        inside = (lengths >= int(low)) & (lengths <= int(high or low))
        assert f"{inside.sum():,}" in text.split()
        assert str((inside & there).sum()) in " ".join(text.split()), name
        total += int(inside.sum())
    assert len(shown) == 10
    assert total == 980


def test_two_methods_are_compared_side_by_side(page: Any, case: Case) -> None:
    page.select_option("#beside", "loss")
    settled(page)
    one = set(case.orders["topsis"][: kept_count(0.3, 980)].tolist())
    other = set(case.orders["loss"][: kept_count(0.3, len(case.orders["loss"]))].tolist())

    def fact(label: str) -> str:
        return str(page.inner_text(f'#compare-facts [data-label="{label}"] dd'))

    assert fact("Kept by both") == str(len(one & other))
    assert fact("Only A") == str(len(one - other))
    assert fact("Only B") == str(len(other - one))
    for mode, method, rows in (("only-a", "topsis", one - other), ("only-b", "loss", other - one)):
        page.click(f'#compare button[data-mode="{mode}"]')
        page.wait_for_selector(f'#rows-list[data-mode="{mode}"]')
        ranks = {row: at for at, row in enumerate(case.orders[method].tolist())}
        listed = [
            int(row) for row in page.eval_on_selector_all("#rows-list .item", "items => items.map(i => i.dataset.row)")
        ]
        assert listed == sorted(rows, key=ranks.__getitem__)[:50]
        assert page.get_attribute("#rows-list", "data-total") == str(len(rows))
    assert selected(page) == sorted(one)
