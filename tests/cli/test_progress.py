"""Progress: a bar on a terminal, lines in a log file."""

from __future__ import annotations

import io
import subprocess
import sys
import threading

import pytest

from donod_fast.cli import output, progress
from donod_fast.cli.progress import Lines, display, step_progress


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_is_printed_for_every_five_per_cent(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(Clock())
    lines.begin("score", "row", 1000)
    for done in range(1, 1001):
        lines.reach(done)
    printed = capsys.readouterr().err
    assert "\r" not in printed
    assert [line.split()[1] for line in printed.splitlines()] == [f"{at:,}" for at in range(50, 1001, 50)]
    assert printed.splitlines()[-1] == "score: 1,000 of 1,000 rows (100%)"


def test_a_line_is_printed_after_thirty_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    lines = Lines(clock)
    lines.begin("", "row", 1_000_000)
    for second in range(1, 61):
        clock.now = float(second)
        lines.reach(second, "9 tokens/s")
    printed = capsys.readouterr().err.splitlines()
    assert [line.split(" of ")[0] for line in printed] == ["30", "60"]
    assert printed[0].startswith("30 of 1,000,000 rows (0%), 9 tokens/s, about 277.8 h left")


def test_a_silent_step_repeats_its_line_with_the_elapsed_time(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    lines = Lines(clock)
    lines.repeat()  # nothing has begun
    lines.begin("train", "step", 10)
    lines.reach(1, "loss 2")
    for clock.now in (29.0, 30.0, 59.0, 150.0):
        lines.repeat()
    lines.reach(10)
    clock.now = 500.0
    lines.repeat()  # it is done
    assert capsys.readouterr().err.splitlines() == [
        "train: 1 of 10 steps (10%), loss 2",
        "train: 1 of 10 steps (10%), loss 2, about 4 min left, running for 30.0 s",
        "train: 1 of 10 steps (10%), loss 2, about 22 min left, running for 2 min",
        "train: 10 of 10 steps (100%)",
    ]


def test_a_thread_repeats_lines_until_the_display_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = threading.Event()

    class File(io.StringIO):
        def write(self, text: str) -> int:
            if "running for" in text:
                printed.set()
            return super().write(text)

    monkeypatch.setattr(sys, "stderr", File())
    monkeypatch.setattr(progress, "_CHECK_SECONDS", 0.01)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    with display(quiet=False) as shown:
        shown.begin("", "row", 10)
        assert printed.wait(60)
    assert "progress" not in {thread.name for thread in threading.enumerate()}


def test_rows_of_an_earlier_run_do_not_count_for_the_speed(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    lines = Lines(clock)
    lines.begin("", "row", 100, 80)
    clock.now = 10.0
    lines.reach(90)
    assert capsys.readouterr().err == "90 of 100 rows (90%), about 10.0 s left\n"


def test_a_count_without_a_total_is_shown_alone(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    lines = Lines(clock)
    lines.begin("", "row", None)
    lines.reach(1)
    clock.now = 31.0
    lines.reach(5)
    assert capsys.readouterr().err == "5 rows\n"


def test_the_first_item_of_a_step_is_named_before_it_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    with step_progress({"damoc": "model", "score": "row"}, quiet=False) as advance:
        assert advance is not None
        advance("damoc", 0, 1, "llama")
        advance("damoc", 1, 1, "")
        advance("score", 700, 700, "1.0 s")
    assert capsys.readouterr().err.splitlines() == [
        "damoc: 0 of 1 model (0%), llama",
        "damoc: 1 of 1 model (100%)",
        "score: 700 of 700 rows (100%), 1.0 s",
    ]


def test_a_terminal_gets_a_bar_and_a_file_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, file = Terminal(), io.StringIO()
    for stream in (terminal, file):
        monkeypatch.setattr(sys, "stderr", stream)
        with display(quiet=False) as shown:
            shown.begin("score", "row", 10)
            if stream is terminal:
                shown._bar.delay = 0  # type: ignore[attr-defined]  # tqdm shows nothing in its first half second
            shown.reach(10)
    assert "\r" in terminal.getvalue() and "10/10" in terminal.getvalue()
    assert file.getvalue() == "score: 10 of 10 rows (100%)\n"


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with display(quiet=True) as shown:
        shown.begin("", "row", 10)
        shown.reach(10)
    with step_progress({}, quiet=True) as steps, output.progress_bar(10, quiet=True) as rows:
        assert steps is None and rows is None
    assert capsys.readouterr().err == ""


def test_rows_are_shown_with_tokens_per_second(capsys: pytest.CaptureFixture[str]) -> None:
    with output.progress_bar(20, quiet=False) as advance:
        assert advance is not None
        advance(10, 0)
        advance(5, 100)
        advance(5, 100)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("15 of 20 rows (75%), ") and " tokens/s, about " in first
    assert second.startswith("20 of 20 rows (100%), ")


def test_bars_of_downloads_are_off_without_a_terminal() -> None:
    program = """
import sys
sys.argv = ["donod-fast", "--help"]
from donod_fast.cli import main
try:
    main()
except SystemExit:
    pass
from datasets.utils import are_progress_bars_disabled
from huggingface_hub import utils
print(are_progress_bars_disabled(), utils.are_progress_bars_disabled())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "True True"
