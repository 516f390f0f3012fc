"""Lists of rows, search, the whole conversation, and copying the command."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_cases import Case
from report_pages import Watched, kept, set_bound, set_keep, settled


@pytest.fixture(scope="module")
def watched(browser: Any, file: Path) -> Iterator[Watched]:
    watched = Watched(browser, file, permissions=["clipboard-read", "clipboard-write"])
    yield watched
    watched.close()


@pytest.fixture
def page(watched: Watched) -> Any:
    return watched.open()


def show(page: Any, mode: str) -> list[int]:
    """Choose a list, and read its first page."""
    page.select_option("#rows-mode", mode)
    page.wait_for_selector(f'#rows-list[data-mode="{mode}"]', state="attached")
    return listed(page)


def listed(page: Any) -> list[int]:
    """Row numbers of the list."""
    return [int(row) for row in page.eval_on_selector_all("#rows-list .item", "all => all.map(one => one.dataset.row)")]


def find(page: Any, text: str) -> list[int]:
    """Search, and read the first page of what is found."""
    page.evaluate("delete document.getElementById('rows-list').dataset.mode")
    page.fill("#search", text)
    page.press("#search", "Enter")
    page.wait_for_selector('#rows-list[data-mode="found"]', state="attached")
    return listed(page)


def read(page: Any, row: int) -> str:
    """Open a row of the list, and read its text."""
    page.click(f'#rows-list .item[data-row="{row}"]')
    page.wait_for_selector(f'#conversation[data-row="{row}"]')
    return str(page.text_content("#conversation .conversation"))


def test_lists_hold_best_worst_border_and_filtered_rows(page: Any, case: Case) -> None:
    order = case.orders["topsis"].tolist()
    assert show(page, "best") == order[:50]
    assert show(page, "worst") == order[::-1][:50]
    assert show(page, "selected") == order[:50]
    assert show(page, "border") == order[269:319], "50 rows around the cut at 294, best first"
    set_keep(page, "500")
    assert show(page, "border") == order[475:525]
    set_bound(page, "tokens", "high", "40")
    short = case.rows[case.numbers["tokens"] <= 40].tolist()
    assert show(page, "filtered") == short[:50]
    rows = set(kept(page))
    assert show(page, "selected") == [row for row in order if row in rows and row in set(short)][:50]
    unscored = show(page, "unscored")
    assert len(unscored) == 20
    assert not set(unscored) & set(order)


def test_the_border_of_groups_is_at_the_cut_of_each(page: Any, case: Case) -> None:
    order = case.orders["topsis"].tolist()
    group = dict(zip(case.rows.tolist(), np.where(case.rows % 97 == 0, 3, case.source).tolist(), strict=True))
    page.select_option("#by", "source")
    set_keep(page, "0.2")
    rows = set(kept(page))
    nearest: dict[bool, list[tuple[float, int, int]]] = {True: [], False: []}
    for number in set(group.values()):
        ranked = [row for row in order if group[row] == number]
        cut = sum(row in rows for row in ranked)
        for at, row in enumerate(ranked):
            nearest[row in rows].append((abs(at + 0.5 - cut), order.index(row), row))
    expected = [row for side in nearest.values() for *_, row in sorted(side)[:25]]
    assert show(page, "border") == sorted(expected, key=order.index)
    assert len({group[row] for row in expected}) == 4


def test_a_row_says_where_its_mask_is_another_one(page: Any, case: Case) -> None:
    for row in (next(int(row) for row in case.rows if row % 4 == rest) for rest in (0, 1)):
        find(page, f"row:{row}")
        page.wait_for_selector(f'#conversation[data-row="{row}"]')
        told = page.locator("#row-detail")
        assert told.all_inner_texts() == (["scored with another mask"] if row % 4 == 0 else [])


def test_pages_of_a_list_follow_each_other(page: Any, case: Case) -> None:
    order = case.orders["topsis"].tolist()
    page.click("text=Next")
    page.wait_for_selector(".pager >> text=page 2 of 20")
    assert listed(page) == order[50:100]
    page.focus("#rows-list .item")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_selector(f'#conversation[data-row="{order[51]}"]')
    assert page.get_attribute(f'#rows-list .item[data-row="{order[51]}"]', "aria-current") == "true"


def test_search_finds_words_rows_and_ids(page: Any, case: Case) -> None:
    assert find(page, "ANSWER is 101.") == [100], "without case, across pieces of a text"
    assert find(page, "row:123") == [123]
    page.wait_for_selector('#conversation[data-row="123"]')
    assert find(page, "id:id-77") == [77]
    assert find(page, "id:id-7") == [7], "an id is compared as a whole"
    assert find(page, "row:99999") == []
    assert "Nothing found" in page.inner_text("#rows-note")
    assert len(find(page, "is")) == 50
    assert page.get_attribute("#rows-list", "data-total") == "1000"
    assert find(page, ".*") == [], "a search is no pattern"


def test_a_conversation_shows_mask_losses_and_scores(page: Any, case: Case) -> None:
    even, odd = (next(row for row in case.orders["topsis"].tolist() if row % 2 == rest) for rest in (0, 1))
    find(page, f"row:{even}")
    text = read(page, even)
    assert text == f"<|user|>⏎\nWhat is {even} plus one? <|assistant|>The answer is {even + 1}."
    classes = page.eval_on_selector_all("#conversation .conversation .piece", "all => all.map(one => one.className)")
    assert classes == ["piece unscored", "piece scored special loss", "piece scored loss", "piece scored loss"]
    titles = page.eval_on_selector_all("#conversation .conversation .piece", "all => all.map(one => one.title)")
    assert titles == ["", "loss 0.1 nats", "loss 2.5 nats", "loss 0.4 nats"]
    heats = page.eval_on_selector_all(
        "#conversation .conversation .loss", "all => all.map(one => Number(one.style.getPropertyValue('--heat')))"
    )
    assert heats[1] > heats[2] > heats[0]
    assert "loss of a token" in page.inner_text("#conversation .legend")
    assert f"{case.orders['topsis'].tolist().index(even) + 1:,} of 980" in page.inner_text("#conversation dl")
    find(page, f"row:{odd}")
    read(page, odd)
    assert page.locator("#conversation .conversation .loss").count() == 0
    assert "loss of a token" not in page.inner_text("#conversation .legend")


def test_rows_without_a_score_say_why(page: Any) -> None:
    row = show(page, "unscored")[0]
    read(page, row)
    assert page.inner_text("#conversation .warning") == "malformed: not JSON"


def test_the_command_is_copied_with_a_click_and_with_the_keyboard(page: Any) -> None:
    for act in (lambda: page.click("#copy"), lambda: (page.focus("#copy"), page.keyboard.press("Enter"))):
        set_keep(page, "0.25" if "0.25" not in page.inner_text("#command") else "17")
        act()
        page.wait_for_function("document.getElementById('copied').textContent !== ''")
        assert page.inner_text("#copied") == "Copied."
        assert page.evaluate("navigator.clipboard.readText()") == page.inner_text("#command")
    assert page.inner_text("#command") == "donod-fast select 'my scores' --method topsis --keep 17 --out subset.jsonl"


def test_a_browser_that_refuses_to_copy_gets_the_text_selected(page: Any) -> None:
    page.evaluate(
        """() => {
          navigator.clipboard.writeText = () => Promise.reject(new Error('no'));
          document.execCommand = () => false;
        }"""
    )
    page.click("#copy")
    page.wait_for_selector("#copied:has-text('Ctrl+C')")
    assert page.evaluate("String(getSelection())").strip() == page.inner_text("#command")


def test_an_address_opens_a_row(watched: Watched, case: Case) -> None:
    row = case.orders["topsis"].tolist()[700]
    page = watched.open(f"#row={row}")
    assert page.get_attribute("#conversation", "data-row") == str(row)
    settled(page)


def test_sets_of_similar_rows_show_similarities_and_open_rows(page: Any, case: Case) -> None:
    sets = page.locator("details.sets")
    assert sets.count() == 2 and sets.nth(0).locator("summary").inner_text() == "exact: 1 set of 2 rows"
    given = sets.nth(1)
    assert given.locator("summary").inner_text() == "duplicates by MinHash: 70 sets of 210 rows"
    given.locator("summary").press("Enter")
    kept, *others = [int(case.rows[at]) for at in (9, 4, 7)]
    shown = " ".join(given.locator("li").inner_text().split())
    assert shown == f"{kept} (kept) {others[0]} 0.913 {others[1]} 0.850 and 9 more rows"
    assert "The largest 1 set of 70 is listed" in given.inner_text()
    for row in (*others, kept):
        given.locator("button", has_text=str(row)).first.click()
        page.wait_for_selector(f'#conversation[data-row="{row}"]')
        assert f"What is {row} plus one?" in page.inner_text("#conversation")
    assert "similarity" not in sets.nth(0).text_content()
