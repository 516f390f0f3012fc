"""The report of a scores folder: time to write it, its size, and the time until a browser shows its first picture.

    python bench/report_page.py --scores gsm8k-scores --label "GSM8K train"
    python bench/report_rows.py --rows 1000000 --write FOLDER
    python bench/report_page.py --scores FOLDER/scores --label "10^6 synthetic rows"

``donod-fast report`` runs as a process of its own, as a user runs it; the peak is that of the process (VmHWM). Then
headless Chromium opens the file from disk several times, each time with a new profile; without a GPU it draws WebGL
in software. ``paint_s`` is the first contentful paint, ``ready_s`` is when the plane is drawn and controls work, both
since the start of the navigation, as medians. ``change_s`` is the time of one change of the keep slider until the page
has counted and drawn again. ``load`` is the machine's load average at the end. Appends to results/report_page.csv.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from record import print_rows, write_rows

BROWSERS = ("chromium", "google-chrome", "google-chrome-stable")
FIRST_PAINT = """() => new Promise((resolve) => {
  const seen = (list) => {
    const found = list.getEntriesByName("first-contentful-paint")[0];
    if (found) resolve(found.startTime);
  };
  new PerformanceObserver(seen).observe({ type: "paint", buffered: true });
})"""
TIMES = ("paint_s", "ready_s", "change_s")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
)


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scores", type=Path, required=True, help="a finished scores folder")
    parser.add_argument("--label", help="name of the corpus in the table")
    parser.add_argument("--options", default="", help="further options of `donod-fast report`")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-record", action="store_true")
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="donod-fast-bench-"))
    try:
        page = scratch / "report.html"
        written = timed_report(options.scores, page, options.options.split())
        opened = [in_browser(page) for _ in range(options.repeats)]
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    row = {
        "corpus": options.label or options.scores.name,
        "rows": opened[0]["rows"],
        "points": opened[0]["points"],
        **written,
        **{name: round(statistics.median(one[name] for one in opened) / 1000, 2) for name in TIMES},
        "repeats": options.repeats,
        "browser": opened[0]["browser"],
        "load": round(os.getloadavg()[0], 1),
    }
    print_rows([row])
    if not options.no_record:
        print("recorded in", write_rows("report_page", [row], kind="cpu"))


def timed_report(scores: Path, page: Path, options: list[str]) -> dict[str, Any]:
    """Seconds, peak memory and size of one run of the command."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "donod_fast", "report", str(scores), "--out", str(page), *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"the report failed: {' '.join(command)}")
    seconds = time.perf_counter() - begun
    return {
        "write_s": round(seconds, 1),
        "peak_mb": round(usage.ru_maxrss / 1024),
        "file_mb": round(page.stat().st_size / 1e6, 2),
    }


def in_browser(page: Path) -> dict[str, Any]:
    """Open a page once in a new browser, and take its times."""
    from playwright.sync_api import sync_playwright

    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        raise SystemExit(f"no browser: install one of {', '.join(BROWSERS)}")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=program, args=list(FLAGS))
        try:
            context = browser.new_context(viewport={"width": 1400, "height": 900}, offline=True)
            tab = context.new_page()
            tab.goto(page.absolute().as_uri())
            ready = tab.evaluate("async () => { await window.donodReport.ready; return performance.now(); }")
            paint = tab.evaluate(FIRST_PAINT)
            brush = tab.evaluate("() => window.donodReport.timeOfOneChange()")
            about = tab.evaluate("() => window.donodReport.about")
            return {
                "paint_s": paint,
                "ready_s": ready,
                "change_s": brush,
                "rows": about["rows"],
                "points": about["points"],
                "browser": f"{browser.browser_type.name} {browser.version}",
            }
        finally:
            browser.close()


if __name__ == "__main__":
    main()
