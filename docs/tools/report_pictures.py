"""Make the pictures of a report in these pages, in both themes.

    donod-fast report scores --out report.html
    python docs/tools/report_pictures.py report.html

Opens the report in headless Chromium, chooses what a picture shows, and writes ``docs/pictures/report-NAME-THEME.png``
for the selection, the columns, the rows, two methods and a phone. Needs ``playwright`` and Chromium; asks no network.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

BROWSERS = ("chromium", "google-chrome", "google-chrome-stable")
FLAGS = ("--headless=new", "--no-sandbox", "--no-first-run", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
THEMES = ("light", "dark")
HERE = Path(__file__).resolve().parents[1] / "pictures"


def main() -> None:
    """Read the arguments and make the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path, help="a file that `donod-fast report` wrote")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the pictures")
    options = parser.parse_args()
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        raise SystemExit(f"no browser: install one of {', '.join(BROWSERS)}")
    options.out.mkdir(parents=True, exist_ok=True)
    for file in pictures(options.report, options.out, program):
        print(file)


def pictures(report: Path, out: Path, program: str) -> list[Path]:
    """Take all pictures of a report, and return their files."""
    from playwright.sync_api import sync_playwright

    made = []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=program, args=list(FLAGS))
        try:
            for theme in THEMES:
                made += _desktop(browser, report, out, theme)
                made.append(_phone(browser, report, out, theme))
        finally:
            browser.close()
    return made


def _open(browser: Any, report: Path, theme: str, width: int, height: int) -> Any:
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=theme, offline=True, reduced_motion="reduce"
    )
    page = context.new_page()
    page.goto(report.absolute().as_uri())
    page.wait_for_selector("html[data-report=ready]", state="attached")
    # What stays in view while a reader scrolls would lie over the parts of the page.
    page.add_style_tag(content=".bar-box, .reading { position: static !important; }")
    return page


def _settle(page: Any) -> None:
    page.evaluate("donodReport.settled()")


def _desktop(browser: Any, report: Path, out: Path, theme: str) -> list[Path]:
    page = _open(browser, report, theme, 1400, 1100)
    made = [_part(page, out / f"report-selection-{theme}.png", "#bar", 980)]
    page.evaluate("donodReport.brush('don', 0, Infinity)")
    _settle(page)
    made.append(_part(page, out / f"report-columns-{theme}.png", "#columns-title", 620))
    page.click("#clear")
    _settle(page)
    made.append(_part(page, out / f"report-rows-{theme}.png", "#rows-title", 820))
    second = page.evaluate("document.querySelector('#beside option:last-child').value")
    page.select_option("#beside", second)
    _settle(page)
    made.append(_part(page, out / f"report-compare-{theme}.png", "#compare-title", 640))
    page.context.close()
    return made


def _phone(browser: Any, report: Path, out: Path, theme: str) -> Path:
    page = _open(browser, report, theme, 390, 844)
    file = out / f"report-phone-{theme}.png"
    page.locator("#bar").scroll_into_view_if_needed()
    page.evaluate("document.getElementById('bar').scrollIntoView()")
    page.screenshot(path=file)
    page.context.close()
    return file


def _part(page: Any, file: Path, selector: str, height: int) -> Path:
    """The page from an element downwards, over its whole width."""
    page.evaluate("selector => document.querySelector(selector).scrollIntoView()", selector)
    top = page.locator(selector).bounding_box()["y"]
    page.screenshot(path=file, clip={"x": 0, "y": max(0, top - 12), "width": 1400, "height": height})
    return file


if __name__ == "__main__":
    main()
