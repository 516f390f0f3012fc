"""Brushes, values, lasso and rectangle: what passes, and the command that says it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_cases import SOURCES, Case, page_of, report_case
from report_pages import Watched, command, kept, selected, set_bound, settled


@pytest.fixture(scope="module")
def watched(browser: Any, file: Path) -> Iterator[Watched]:
    watched = Watched(browser, file, accept_downloads=True)
    yield watched
    watched.close()


@pytest.fixture
def page(watched: Watched) -> Any:
    return watched.open()


def rows_of_command(text: str, case: Case) -> list[int]:
    """The rows that a command selects: the kept ones, of which each condition's column holds one of its values."""
    words = shlex.split(text)
    method, keep = (words[words.index(name) + 1] for name in ("--method", "--keep"))
    order = case.orders[method]
    chosen = set(order[: int(np.floor(float(keep) * len(order) + 0.5 + 1e-9))].tolist())
    source = [None if row % 97 == 0 else SOURCES[at] for row, at in zip(case.rows, case.source, strict=True)]
    wanted: dict[str, list[str]] = {}
    for at, word in enumerate(words):
        if word == "--where":
            name, _, value = words[at + 1].partition("=")
            wanted.setdefault(name, []).append(value)
    good = np.ones(len(case.rows), bool)
    for name, values in wanted.items():
        if name == "source":
            good &= np.array([one in values for one in source])
        elif name == "truncated":
            good &= np.array([("true" if row % 7 == 0 else "false") in values for row in case.rows])
        else:
            low, high = (float(bound) if bound else None for bound in values[0].split(":"))
            column = case.numbers[name]
            good &= ~np.isnan(column) & (low is None or column >= low) & (high is None or column <= high)
    return [row for row, fits in zip(case.rows.tolist(), good, strict=True) if fits and row in chosen]


def drag(page: Any, selector: str, start: float, end: float) -> None:
    """Drag across an element, from one share of its width to another."""
    page.locator(selector).scroll_into_view_if_needed()
    box = page.locator(selector).bounding_box()
    height = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + start * box["width"], height)
    page.mouse.down()
    page.mouse.move(box["x"] + (start + end) / 2 * box["width"], height)
    page.mouse.move(box["x"] + end * box["width"], height)
    page.mouse.up()
    settled(page)


def test_a_brush_filters_and_the_command_gives_its_rows(page: Any, case: Case) -> None:
    for column, start, end in (("don", 0.3, 0.7), ("nod", 0.55, 0.2), ("loss", 0.6, -0.1), ("tokens", 0.05, 1.2)):
        drag(page, f'[data-column="{column}"] svg', start, end)
        seen = selected(page)
        assert 0 < len(seen) < 294
        assert seen == rows_of_command(command(page), case), command(page)
    text = command(page)
    assert text.count("--where") == 4
    assert re.search(r"loss=:\d", text), "a brush from the left edge has no lower bound"
    assert re.search(r"tokens=\d+:( |$)", text)
    assert f"{len(seen):,} of them pass your filters" in page.inner_text("#counts")
    drag(page, '[data-column="don"] svg', 0.5, 0.5)  # a click clears
    assert command(page).count("--where") == 3


def test_bounds_of_a_brush_keep_just_what_was_brushed(page: Any, case: Case) -> None:
    # Bounds become short decimals in the gap between two values, also where values tie.
    values = np.sort(case.numbers["don"])
    for low, high in ((0.2, 0.4), (0.41, 0.415), (0.6, 0.99)):
        bounds = [float(np.quantile(values, share)) for share in (low, high)]
        page.evaluate("([low, high]) => donodReport.brush('don', low, high)", bounds)
        settled(page)
        inside = (case.numbers["don"] >= bounds[0]) & (case.numbers["don"] <= bounds[1])
        rows = set(kept(page))
        assert selected(page) == [row for row in case.rows[inside].tolist() if row in rows]
        assert selected(page) == rows_of_command(command(page), case)


def test_each_histogram_counts_what_the_other_filters_pass(page: Any, case: Case) -> None:
    set_bound(page, "tokens", "high", "60")
    set_bound(page, "don", "low", "0.01")
    passing = (case.numbers["tokens"] <= 60) & (case.numbers["don"] >= 0.01)
    counts = page.inner_text('[data-column="nod"] footer')
    assert counts.startswith(f"{passing.sum():,} of 980 rows")
    source = np.where(case.rows % 97 == 0, 3, case.source)
    page.click('[data-column="record.source"] button[data-category="code"]')
    settled(page)
    for at, name in enumerate(SOURCES):  # its own filter does not count in a histogram
        shown = page.inner_text(f'[data-column="record.source"] button[data-category="{name}"] .number')
        assert shown == f"{(passing & (source == at)).sum():,}"
    both = passing & (source == 1)
    assert page.inner_text('[data-column="nod"] footer').startswith(f"{both.sum():,} of 980 rows")


def test_values_of_text_and_flags_become_conditions(page: Any, case: Case) -> None:
    for column, value in (("record.source", "code"), ("record.source", "maths"), ("truncated", "false")):
        page.click(f'[data-column="{column}"] button[data-category="{value}"]')
    settled(page)
    text = command(page)
    assert "--where source=code --where source=maths --where truncated=false" in text
    assert selected(page) == rows_of_command(text, case)
    page.click('[data-column="record.source"] button.clear')
    settled(page)
    assert "source" not in command(page)


def test_rows_without_a_value_need_a_file(page: Any, case: Case) -> None:
    page.click('[data-column="record.source"] button[data-category="(none)"]')
    settled(page)
    assert "--only-rows rows.txt" in command(page)
    with page.expect_download() as download:
        page.click("#download")
    listed = [int(line) for line in download.value.path().read_text().split()]
    assert listed == case.rows[case.rows % 97 == 0].tolist()


def test_typed_bounds_stay_and_nonsense_is_refused(page: Any, case: Case) -> None:
    set_bound(page, "nod", "low", "0.1")
    set_bound(page, "nod", "high", "0.2")
    assert "nod=0.1:0.2" in command(page)
    assert selected(page) == rows_of_command(command(page), case)
    for text in ("abc", "0.05", "0,5", "12,34", "0,150"):
        set_bound(page, "nod", "high", text)
        assert page.get_attribute('[data-column="nod"] input[id$=high]', "aria-invalid") == "true", text
        assert "nod=0.1:0.2" in command(page)
    set_bound(page, "tokens", "high", "1,000")
    assert "tokens=:1000" in command(page)


def test_a_selection_of_nothing_is_not_offered(page: Any) -> None:
    set_bound(page, "tokens", "high", "0")
    assert selected(page) == []
    assert page.is_disabled("#copy") and "would refuse" in page.inner_text("#command-view")
    set_bound(page, "tokens", "high", "")
    assert page.is_enabled("#copy") and "would refuse" not in page.inner_text("#command-view")


def test_the_ends_of_a_histogram_are_values_of_the_column(page: Any, case: Case) -> None:
    tokens = case.numbers["tokens"]
    ends = page.locator('[data-column="tokens"] .ends span').all_inner_texts()
    assert (ends[0], ends[-1]) == (f"{tokens.min():,.0f}", f"{tokens.max():,.0f}")


def test_the_keyboard_brushes_and_escape_clears(page: Any, case: Case) -> None:
    page.focus('[data-column="loss"] input[id$=low]')
    for _ in range(8):
        page.keyboard.press("ArrowUp")
        settled(page)
    text = command(page)
    assert "--where loss=" in text
    assert selected(page) == rows_of_command(text, case)
    page.keyboard.press("Escape")
    assert "--where" not in command(page)
    set_bound(page, "nod", "high", "0.1")
    page.focus("#copy")
    page.keyboard.press("Escape")
    assert "--where" not in command(page), "outside of a filter, Escape clears all"


def test_a_lasso_holds_the_points_inside_and_offers_their_rows(page: Any, case: Case) -> None:
    page.locator("#plane-frame").scroll_into_view_if_needed()
    box = page.locator("#plane-frame").bounding_box()
    page.click("#lasso")
    corners = [(0.2, 0.2), (0.7, 0.25), (0.6, 0.8), (0.25, 0.6), (0.2, 0.2)]
    page.mouse.move(*at(box, corners[0]))
    page.mouse.down()
    for corner in corners[1:]:
        page.mouse.move(*at(box, corner), steps=4)
    page.mouse.up()
    settled(page)
    places = page.evaluate(f"Promise.all([...Array({len(case.rows)}).keys()].map(at => donodReport.screenOf(at)))")
    width, height = (
        page.evaluate(f"document.getElementById('plane-frame').client{side}") for side in ("Width", "Height")
    )
    polygon = [(x * box["width"] - 1, y * box["height"] - 1) for x, y in corners[:-1]]
    inside = np.array([within(polygon, x, y) for x, y in places])
    assert width > 0 and height > 0
    assert 20 < inside.sum() < 900
    rows = set(kept(page))
    assert selected(page) == [row for row in case.rows[inside].tolist() if row in rows]
    assert "--only-rows rows.txt" in command(page)
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == "rows.txt"
    assert [int(line) for line in download.value.path().read_text().split()] == case.rows[inside].tolist()
    page.focus("#plane-frame")
    page.keyboard.press("Escape")
    assert selected(page) == sorted(rows)
    assert "--only-rows" not in command(page)


def at(box: dict[str, float], corner: tuple[float, float]) -> tuple[float, float]:
    """A place in a box, in pixels of the page."""
    return box["x"] + corner[0] * box["width"], box["y"] + corner[1] * box["height"]


def within(polygon: list[tuple[float, float]], x: float, y: float) -> bool:
    """Whether a point is inside, by the sum of the angles around it (the page counts crossings)."""
    angles = np.unwrap([np.arctan2(b - y, a - x) for a, b in [*polygon, polygon[0]]])
    return bool(abs(angles[-1] - angles[0]) > np.pi)


def test_a_rectangle_by_numbers_is_two_conditions(page: Any, case: Case) -> None:
    page.click("summary:has-text('Rectangle by numbers')")
    for at_, which, text in ((1, "low", "0.08"), (1, "high", "0.3"), (0, "low", "0.009")):
        page.fill(f"#rectangle-{at_}-{which}", text)
        page.press(f"#rectangle-{at_}-{which}", "Enter")
        settled(page)
    text = command(page)
    assert "--where don=0.009: --where nod=0.08:0.3" in text
    assert selected(page) == rows_of_command(text, case)
    assert page.input_value('[data-column="nod"] input[id$=high]') == "0.3"


@pytest.mark.parametrize("step", [3e-7, 7e-8], ids=["apart", "neighbours"])
def test_filters_of_rounded_values_stay_clear_of_both_sides(browser: Any, tmp_path: Any, step: float) -> None:
    case = report_case(50_500, dense=step)
    file = tmp_path / "large.html"
    file.write_text(page_of(case), encoding="utf-8")
    watched = Watched(browser, file)
    page = watched.open("#keep=1.0")
    shares = np.random.default_rng(1).uniform(size=(4, 2))
    shares.sort(axis=1)
    bounds = [np.quantile(case.numbers["nod"].astype(np.float32), pair).tolist() for pair in shares]
    found = page.evaluate(
        """async ([bounds]) => {
          const found = [];
          for (const [low, high] of bounds) {
            await donodReport.brush("nod", low, high);
            found.push([await donodReport.command(), (await donodReport.selected()).length]);
          }
          return found;
        }""",
        [bounds],
    )
    assert [(text, len(rows_of_command(text, case))) for text, _ in found] == [tuple(one) for one in found]
    watched.close()
