"""A real headless Chromium for tests of pages: it notes requests, messages and dialogs, and fails a test for them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
)  # fmt: skip
WITHOUT_WEBGL = """
const original = HTMLCanvasElement.prototype.getContext;
HTMLCanvasElement.prototype.getContext = function (kind, ...more) {
  return String(kind).startsWith("webgl") ? null : original.call(this, kind, ...more);
};
"""
_DRIVER = "GL Driver Message (OpenGL, Performance"
"""A remark of the driver in software about its own speed; the page has no part in it."""


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser; skips the test where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    program = next((found for name in ("chromium", "google-chrome") if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("needs Chromium")
    with api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=program, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


class Watched:
    """A page of a file, and what it did that it must not do.

    Attributes:
        page: of playwright.
        faults: messages, dialogs, and requests to anywhere but the file.
    """

    def __init__(self, browser: Any, file: Path, *, webgl: bool = False, **options: Any) -> None:
        options = {"viewport": {"width": 1400, "height": 900}, "reduced_motion": "reduce", **options}
        self._context = browser.new_context(offline=True, **options)
        self._url = file.absolute().as_uri()
        if not webgl:
            self._context.add_init_script(WITHOUT_WEBGL)
        self.faults: list[str] = []
        self.page = self._context.new_page()
        self.page.set_default_timeout(60_000)
        self._context.on("request", self._request)
        self.page.on("console", self._message)
        self.page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.page.on("dialog", self._dialog)

    def _request(self, request: Any) -> None:
        if request.url.partition("#")[0] != self._url:
            self.faults.append(f"request: {request.url[:200]}")

    def _message(self, message: Any) -> None:
        if message.type in ("error", "warning", "assert") and _DRIVER not in message.text:
            self.faults.append(f"{message.type}: {message.text}")

    def _dialog(self, dialog: Any) -> None:
        self.faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def open(self, state: str = "") -> Any:
        """Load the file anew, with a state in its address, and wait until it is drawn."""
        self.page.goto("about:blank")
        self.page.goto(f"{self._url}{state}")
        self.page.wait_for_selector("html[data-report]", state="attached")
        assert self.page.evaluate("document.documentElement.dataset.report") == "ready", self.page.inner_text(
            "#loading"
        )
        return self.page

    def close(self) -> None:
        """Close the page, and fail for what it did."""
        self._context.close()
        assert not self.faults


def settled(page: Any) -> None:
    """Wait until every view shows the latest change."""
    page.evaluate("donodReport.settled()")


def kept(page: Any) -> list[int]:
    """Row numbers that the method keeps, rising."""
    settled(page)
    found: list[int] = page.evaluate("donodReport.kept()")
    return found


def selected(page: Any) -> list[int]:
    """Row numbers that the method keeps and all filters pass, rising."""
    settled(page)
    found: list[int] = page.evaluate("donodReport.selected()")
    return found


def command(page: Any) -> str:
    """The command that the page shows."""
    settled(page)
    found: str = page.inner_text("#command")
    return found


def set_keep(page: Any, text: str) -> None:
    """Type how much to keep."""
    page.fill("#keep-text", text)
    page.press("#keep-text", "Enter")
    settled(page)


def set_bound(page: Any, column: str, which: str, text: str) -> None:
    """Type a bound of a histogram: ``which`` is ``low`` or ``high``."""
    field = f'[data-column="{column}"] input[id$="{which}"]'
    page.fill(field, text)
    page.press(field, "Enter")
    settled(page)
