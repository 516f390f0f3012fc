"""The failure browser: its lists and views, with keys in a terminal and as plain text without one."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from eval_cases import COMMAND, ENVIRONMENT, fake_judge, human_eval_record, run_eval, write_records
from rich.console import Console
from score_runs import assert_one_line_error

from donod_fast.errors import InputError
from donod_fast.evaluation import Sample, evaluate_samples, load_problems
from donod_fast.evaluation.browser import Entry, browse, filtered, found, listing, read_entries, shown, view
from donod_fast.evaluation.folder import RESULT, VERDICTS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """25 tasks of two samples: the first passes but for every fifth task, the second fails."""
    place = tmp_path_factory.mktemp("browse")
    problems = load_problems("humaneval", write_records(place / "p.jsonl", [human_eval_record(at) for at in range(25)]))
    samples = []
    for at, problem in enumerate(problems):
        samples.append(Sample(problem.task_id, 0, problem.canonical if at % 5 else "while True: pass"))
        samples.append(Sample(problem.task_id, 1, problem.prompt + "    return 'wrong\x1b[2J'"))
    with fake_judge():
        evaluate_samples(problems, samples, place / "out")
    return place / "out"


def printed(thing: object) -> str:
    out = io.StringIO()
    Console(file=out, width=100).print(thing)
    return out.getvalue()


def session(folder: Path, *answers: str, status: str | None = None) -> list[str]:
    """What the console shows before each question, and after the last."""
    out, screens = io.StringIO(), []
    given: Iterator[str] = iter(answers)

    def ask(keys: str) -> str:
        screens.append(out.getvalue() + keys)
        out.truncate(0)
        out.seek(0)
        try:
            return next(given)
        except StopIteration:
            raise EOFError from None

    browse(read_entries(folder), Console(file=out, width=100), ask, status)
    return screens


def test_the_list_is_paged_and_filtered_by_status(folder: Path) -> None:
    first, second, back, failed, timeouts, unknown, everything = session(
        folder, "n", "p", "f failed", "f timeout", "f nonsense", "f"
    )
    assert "50 of 50 programs: 25 failed, 20 passed, 5 timeout" in first
    assert "Fam/0#0" in first and "Fam/9#1" in first and "Fam/10#0" not in first
    assert "Fam/10#0" in second and "Fam/0#0" not in second and back == first
    assert "25 of 50 programs: 25 failed" in failed and "passed" not in failed.split("> ")[0].split("\n", 1)[1]
    assert "5 of 50 programs: 5 timeout" in timeouts
    assert "no program is 'nonsense'; there are 25 failed, 20 passed, 5 timeout" in unknown
    assert everything == first


def test_a_program_is_shown_with_its_verdict_and_walked_from(folder: Path) -> None:
    _, one, after, before, by_name, unknown, back = session(folder, "2", "n", "p", "Fam/3#1", "Fam/99", "l")
    assert "Fam/0#1" in one and "Add 0 to x." in one and "failed: assert add_0(1) == …" in one
    assert "Fam/1#0" in after and "passed" in after
    assert before == one
    assert "Fam/3#1" in by_name and "8 of 50" in by_name
    assert "there is no sample of 'Fam/99'" in unknown
    assert "50 of 50 programs" in back


def test_quitting_and_the_end_of_input_end_it(folder: Path) -> None:
    assert len(session(folder, "q", "n")) == 1
    assert len(session(folder, "1", "q", "n")) == 2
    assert len(session(folder)) == 1


def test_a_programs_control_characters_never_reach_the_terminal(folder: Path) -> None:
    entries = read_entries(folder)
    assert "\x1b" in entries[1].program
    assert "\x1b" not in printed(view(entries[1])) and r"\x1b[2J" in printed(view(entries[1]))
    evil = Entry("[red]T\x1b]0;x\x07", 0, "failed", "a\x9b2J\u202e [bold]b", False, None, "p\x08", "\r\x00")
    text = printed(view(evil)) + printed(listing([evil]))
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text) and "[red]T" in text and "[bold]b" in text
    assert shown("a\tb\n") == "a\tb\n"


def test_base_and_plus_are_told_apart() -> None:
    text = printed(view(Entry("T/1", 0, "failed", "input [7]", True, False, "", "pass")))
    assert "failed (base passed, plus failed): input [7]" in text


def test_entries_are_found_by_task_number_and_sample(folder: Path) -> None:
    entries = read_entries(folder)
    assert [one.name for one in found(entries, "Fam/3")] == ["Fam/3#0", "Fam/3#1"]
    assert [one.name for one in found(entries, "3#1")] == ["Fam/3#1"]
    assert len(filtered(entries, "not-passed")) == 30 and len(filtered(entries, None)) == 50
    with pytest.raises(InputError, match="first is Fam/0#0"):
        found(entries, "x")


def test_an_unfinished_folder_can_be_looked_at(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        if file.name not in (RESULT, "problems.jsonl", ".lock"):
            (tmp_path / file.name).write_bytes(file.read_bytes())
    lines = (tmp_path / VERDICTS).read_bytes().splitlines(keepends=True)
    (tmp_path / VERDICTS).write_bytes(b"".join(lines[:10]))
    statuses = [one.status for one in read_entries(tmp_path)]
    assert statuses.count("unjudged") == 40 and statuses[0] == "timeout"


def test_without_a_terminal_it_prints_plain_whole_lines(folder: Path) -> None:
    done = run_eval("browse", folder, "--status", "timeout")
    assert done.code == 0 and "\x1b" not in done.out
    assert [line.split()[1] for line in done.out.splitlines()[1:]] == [f"Fam/{at}#0" for at in (0, 5, 10, 15, 20)]
    one = run_eval("browse", folder, "--show", "Fam/7#1")
    assert one.code == 0 and "return 'wrong\\x1b[2J'" in one.out and "failed: assert add_7(1) == …" in one.out
    assert_one_line_error(run_eval("browse", folder, "--show", "Fam/99"), 2, "no sample of 'Fam/99'")
    assert_one_line_error(run_eval("browse", folder, "--status", "odd"), 2, "no program is 'odd'")


def test_in_a_terminal_it_answers_keys(folder: Path) -> None:
    ours, theirs = pty.openpty()
    command = [*COMMAND, "eval", "browse", str(folder), "--status", "failed"]
    running = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env={**ENVIRONMENT, "TERM": "xterm", "COLUMNS": "100"}
    )
    os.close(theirs)
    seen = ""

    def until(text: str) -> None:
        nonlocal seen
        end = time.monotonic() + 90
        while text not in seen:
            assert time.monotonic() < end, seen
            if select.select([ours], [], [], 0.5)[0]:
                seen += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", os.read(ours, 65536).decode(errors="replace"))

    try:
        until("q: quit > ")
        assert "25 of 50 programs: 25 failed" in seen
        os.write(ours, b"3\n")
        until("failed: assert add_2(1)")
        assert r"return 'wrong\x1b[2J'" in seen
        os.write(ours, b"n\n")
        until("failed: assert add_3(1)")
        os.write(ours, b"q\n")
        assert running.wait(timeout=30) == 0
    finally:
        running.kill()
        running.wait()
        os.close(ours)
