"""The pages in a real browser: hostile text runs nothing and asks nothing, pages fit a phone, and controls work."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pages import HOSTILE, PAGES

from donod_fast.evaluation.browser import Entry
from donod_fast.reports.programs_page import programs_page

CHROMIUM = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
PATIENCE = 120_000  # milliseconds; a test waits for an event, not for a time


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as running:
        found = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=PATIENCE)
        yield found
        found.close()


class Opened:
    """A page in a browser, what its console said, and what it asked for."""

    def __init__(self, browser: Any, file: Path, width: int = 390, scheme: str = "dark") -> None:
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        self.page.set_default_timeout(PATIENCE)
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.said.append("a dialog"), dialog.dismiss()))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(file.as_uri())
        self.url = file.as_uri()


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1400, "light")])
def test_hostile_text_runs_nothing_asks_nothing_and_widens_no_page(
    browser: Any, tmp_path: Path, width: int, scheme: str
) -> None:
    for name, write in PAGES.items():
        file = tmp_path / f"{name}.html"
        file.write_text(write("".join(HOSTILE) + "long" * 200), encoding="utf-8")
        opened = Opened(browser, file, width, scheme)
        page = opened.page
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        page.evaluate(
            "document.querySelectorAll('[title], summary').forEach(one => one.dispatchEvent(new Event('mouseover')))"
        )
        assert (opened.said, opened.asked) == ([], [opened.url]), name
        assert page.title() != "taken"
        wide, room = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide <= room, f"{name}: tables and programs scroll within themselves"
        assert "<script>document.title='taken'</script>" in page.inner_text("main")
        page.close()


def test_programs_are_filtered_by_status_and_words_with_a_keyboard(browser: Any, tmp_path: Path) -> None:
    kinds = ["passed", "failed", "timeout", "failed"]
    entries = [
        Entry(f"T/{at}", 0, kind, f"assert {at}", kind == "passed", None, "", "x = 1") for at, kind in enumerate(kinds)
    ]
    file = tmp_path / "programs.html"
    file.write_text("".join(programs_page(entries, "out")), encoding="utf-8")
    page = Opened(browser, file).page

    def seen() -> list[str]:
        shown = page.locator("details.program:not([hidden]) b").all_inner_texts()
        assert page.inner_text("#seen") == f"{len(shown)} shown"
        return [name.split("#")[0] for name in shown]

    assert seen() == ["T/0", "T/1", "T/2", "T/3"]
    page.get_by_label("not passed").check()
    assert seen() == ["T/1", "T/2", "T/3"]
    page.keyboard.press("ArrowDown")  # the next status: the most frequent one
    assert seen() == ["T/1", "T/3"]
    page.get_by_label("Task or detail").fill("ASSERT 3")
    assert seen() == ["T/3"]
    page.locator("details.program:not([hidden]) summary").focus()
    page.keyboard.press("Enter")
    assert page.locator("details.program[open] .program-text").inner_text() == "x = 1"
