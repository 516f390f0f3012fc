"""The command that the page shows, run as a user runs it, writes exactly the rows that the page shows."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from report_pages import Watched, chromium, command, selected, set_bound, set_keep, settled
from score_runs import invoke, write_lines

from donod_fast.demo.corpus import DATA

ROWS = 160
SOURCES = ('it\'s $HOME; `true` "x" \\', "a=b:c", "-x", "no-break\u00a0space", "⏎", "two\nlines", "\u202eodd", "", None)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus with odd sources, its scores and its report."""
    place = tmp_path_factory.mktemp("it's here")
    lines = (DATA / "corpus.jsonl").read_text("utf-8").splitlines()[:ROWS]
    records = [
        {**json.loads(line), "id": f"n{at}", "source": SOURCES[at % len(SOURCES)]} for at, line in enumerate(lines)
    ]
    records[5]["output"] = ""
    data = write_lines(place / "corpus.jsonl", records)
    scores = place / "my scores"
    done = invoke("score", data, "--model", DATA / "model", "--out", scores, "--carry", "source")
    assert done.code == 0, done.err
    done = invoke("report", scores, "--out", place / "report.html", "--near-duplicates", "none")
    assert done.code == 0, done.err
    return place


@pytest.fixture(scope="module")
def watched(place: Path) -> Iterator[Watched]:
    with chromium() as browser:
        watched = Watched(browser, place / "report.html", accept_downloads=True)
        yield watched
        watched.close()


@pytest.fixture
def page(watched: Watched) -> Any:
    return watched.open()


@pytest.fixture
def runs(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], list[int]]:
    """Runs the command of a page; gives the row numbers in what it writes."""
    monkeypatch.chdir(tmp_path)

    def run(page: Any) -> list[int]:
        text = command(page)
        if "--only-rows" in text:
            with page.expect_download() as download:
                page.click("#download")
            download.value.save_as(tmp_path / "rows.txt")
        program, *words = shlex.split(text)
        assert program == "donod-fast"
        done = invoke(*words, "--overwrite")
        assert done.code == 0, (text, done.err)
        return sorted(
            int(json.loads(line)["id"][1:]) for line in (tmp_path / "subset.jsonl").read_text("utf-8").splitlines()
        )

    return run


def test_shares_of_every_method(page: Any, runs: Callable[[Any], list[int]]) -> None:
    methods = page.eval_on_selector_all("#method option", "all => all.map(one => one.value)")
    assert {"topsis", "don", "loss"} <= set(methods)
    for at, method in enumerate(methods):
        page.select_option("#method", method)
        set_keep(page, ("0.3", "17", "7.5%", "1.0")[at % 4])
        assert runs(page) == selected(page), command(page)


def test_shares_of_each_source(page: Any, runs: Callable[[Any], list[int]]) -> None:
    page.select_option("#by", "source")
    for text in ("0.25", "31"):
        set_keep(page, text)
        assert runs(page) == selected(page), command(page)


def test_every_value_of_a_text_column(page: Any, runs: Callable[[Any], list[int]]) -> None:
    set_keep(page, "0.9")
    buttons = page.locator('[data-column="record.source"] button.category')
    assert buttons.count() >= 7
    for at in range(buttons.count()):
        page.evaluate(
            "at => document.querySelectorAll('[data-column=\"record.source\"] button.category')[at].click()", at
        )
        settled(page)
        assert runs(page) == selected(page) != [], command(page)
        page.evaluate("document.querySelector('[data-column=\"record.source\"] button.clear').click()")
        settled(page)


def test_bounds_of_columns_and_flags(page: Any, runs: Callable[[Any], list[int]]) -> None:
    set_keep(page, "0.8")
    set_bound(page, "tokens", "high", "70")
    page.evaluate("donodReport.brush('don', -1e-4, 4e-4)")
    page.click('[data-column="truncated"] button[data-category="false"]')
    settled(page)
    assert command(page).count("--where") == 3
    assert runs(page) == selected(page) != []
    page.evaluate("donodReport.brush('nod', 0.005, 0.0065)")
    assert runs(page) == selected(page) != []


def test_a_lasso_beside_a_filter(page: Any, runs: Callable[[Any], list[int]]) -> None:
    set_bound(page, "tokens", "high", "70")
    page.locator("#plane-frame").scroll_into_view_if_needed()
    box = page.locator("#plane-frame").bounding_box()
    page.keyboard.down("Shift")
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.3 * box["height"])
    page.mouse.down()
    for x, y in ((0.95, 0.3), (0.95, 0.7), (0.3, 0.7)):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
    page.mouse.up()
    page.keyboard.up("Shift")
    settled(page)
    assert "--only-rows rows.txt" in command(page)
    assert runs(page) == selected(page) != []
