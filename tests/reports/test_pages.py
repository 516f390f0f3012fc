"""Pages of rows, comparisons and programs: what they hold, what they leave out, and when they are refused."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from eval_cases import fake_judge, human_eval_record, write_records
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import Read, rows
from score_runs import assert_one_line_error, invoke, write_lines

from donod_fast.data.viewing import RowView
from donod_fast.demo.corpus import DATA
from donod_fast.evaluation import Sample, evaluate_samples, load_problems
from donod_fast.evaluation.browser import Entry
from donod_fast.reports import highlighting, programs_page
from donod_fast.reports.compare_page import warnings
from donod_fast.reports.document import Map, Number
from donod_fast.reports.highlighting import highlighted
from donod_fast.reports.row_page import row_page
from donod_fast.reports.shell import render_page
from donod_fast.selection.comparison import Comparison
from donod_fast.selection.comparison.yardstick import Drawn, Spread, Yardstick

MODEL = DATA / "model"


def view_of(row: int) -> RowView:
    return RowView(row, "id", "file", "line", "scored", "", "", "", "", 1, 0, False, (), (), 0, (), text=f"text {row}")


def test_a_page_of_rows_holds_one_row_at_a_time() -> None:
    read = written = 0

    def views() -> Iterator[RowView]:
        nonlocal read
        for row in range(200):
            read += 1
            yield view_of(row)

    for piece in row_page("title", views()):
        written += piece.count("</section>")
        assert read - written <= 1
    assert read == written == 200


def test_a_row_without_a_mask_shows_its_text_its_record_or_its_line() -> None:
    read = Read(rows("seen"))
    assert read.text.count("seen") >= 4 * 5
    assert '{"seen": ["seen"]}' in read.text


def comparison(correlation: list[list[float]], longer: list[float], rows: int = 40) -> Comparison:
    size = len(correlation)
    names = tuple(f"c{at}" for at in range(size))
    spread = Spread(30.0, 20.0, 40.0)
    drawn = {"rows": Drawn(spread, spread, spread, spread)}
    return Comparison(
        names, ("high", "low", *["as is"] * (size - 2)), (99,) * size, (rows,) * size, np.array(correlation),
        np.array(correlation), "spearman", 0.3, 99, 99, "vector",
        tuple(Yardstick(name, rows, 33.0, 1.0, drawn, value) for name, value in zip(names, longer, strict=False)),
    )  # fmt: skip


@given(value=st.floats(-1, 1) | st.just(math.nan), longer=st.floats(0, 1) | st.just(math.nan), rows=st.integers(1, 60))
def test_warnings_follow_their_rules_and_no_criterion_without_an_end(value: float, longer: float, rows: int) -> None:
    found = warnings(comparison([[1, value, 1], [value, 1, 1], [1, 1, 1]], [longer], rows))
    expected = []
    if value > 0.99:
        expected.append("c0 and c1 give nearly the same order")
    if value < -0.99:
        expected.append("c0 and c1 give nearly opposite orders")
    if rows >= 20 and longer >= 2 / 3:
        expected.append("c0 keeps mostly long rows")
    if rows >= 20 and longer <= 1 / 3:
        expected.append("c0 keeps mostly short rows")
    assert [text.split(":")[0].split(" (")[0] for text in found] == expected


@given(values=st.lists(st.floats(-1, 1) | st.just(math.nan), min_size=4, max_size=4))
def test_a_map_shows_each_number_and_its_sign(values: list[float]) -> None:
    cells = [cell for _, row in Map("m", ("a", "b"), (values[:2], values[2:])).cells() for cell in row]
    for value, cell in zip(values, cells, strict=True):
        if math.isnan(value):
            assert (cell.kind, cell.strength, cell.text) == ("none", 0, "n/a")
            continue
        shown = float(cell.text.replace("−", "-"))
        assert abs(shown - value) <= 0.005 + 1e-9
        assert cell.kind == ("minus" if value < 0 else "plus")
        assert abs(cell.strength - 100 * abs(value)) <= 0.5
        assert "-0.00" not in cell.text


def test_a_number_that_is_none_sorts_by_nothing() -> None:
    assert [Number(value, "").sort_key for value in (1.5, math.nan, math.inf)] == ["1.5", "", ""]


@given(
    text=st.text(max_size=80) | st.sampled_from(["def f():\n  return '''", "@a\nclass B: pass  # c\r\n", "\n\n\tx\f"])
)
@settings(max_examples=60)
def test_a_coloured_program_is_the_program(text: str) -> None:
    assert "".join(part for _, part in highlighted(text)) == text
    assert {kind for kind, _ in highlighted(text)} <= {"", *(kind for _, kind in highlighting._KINDS)}


def test_what_has_a_meaning_in_python_has_its_colour() -> None:
    program = "@deco\ndef add(a):\n    'text'\n    return sum([a, 12]) not in a  # why\nclass Box: pass\n"
    kinds = {part.strip(): kind for kind, part in highlighted(program)}
    expected = {"@deco": "D", "def": "K", "add": "F", "'text'": "S", "sum": "B", "12": "N", "# why": "C", "Box": "F"}
    assert {part: kinds[part] for part in expected} == expected


def entry(at: int, status: str, size: int) -> Entry:
    return Entry(f"T/{at}", 0, status, "", status == "passed", None, "", f"{at}:" + "x" * size)


ENTRIES = st.lists(st.tuples(st.sampled_from(["passed", "failed", "timeout"]), st.integers(0, 40)), min_size=1)


@given(made=ENTRIES, listed=st.integers(1, 12), characters=st.integers(0, 200), longest=st.integers(1, 50))
@settings(max_examples=60, deadline=None)
def test_a_large_folder_keeps_what_failed_and_says_what_it_leaves_out(
    made: list[tuple[str, int]], listed: int, characters: int, longest: int
) -> None:
    entries = [entry(at, status, size) for at, (status, size) in enumerate(made)]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("LISTED", listed), ("CHARACTERS", characters), ("LONGEST", longest)):
            patch.setattr(programs_page, name, value)
        page = "".join(programs_page.programs_page(entries, "a folder"))
    shown = re.findall(r"<b>T/(\d+)#0</b>.*?(left out of this page|<h3>Program</h3>)", page, re.DOTALL)
    by_need = sorted(range(len(entries)), key=lambda at: entries[at].status == "passed")
    assert [int(at) for at, _ in shown] == sorted(by_need[:listed])
    told = [int(at) for at, text in shown if "Program" in text]
    sizes = [min(len(entries[at].program), longest) for at in by_need[:listed]]
    fits = next((at for at in range(len(sizes)) if sum(sizes[: at + 1]) > characters), len(sizes))
    assert sorted(told) == sorted(by_need[:fits])
    said = re.search(r'<p class="warning">(.*?)</p>', page)
    assert (said is None) == (fits == len(entries))
    if said is not None:
        assert "donod-fast eval browse &#39;a folder&#39; --show TASK" in said[1]
        assert (f"lists {min(listed, len(entries)):,} of" in said[1]) == (listed < len(entries))


def test_no_script_can_end_early_or_run_unnamed() -> None:
    for text in ("let a = '</SCRIPT>'", "<!-- a"):
        with pytest.raises(ValueError, match="would end it early"):
            render_page("rows.html.j2", title="", scripts=(text,), rows=())


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("browse")
    problems = load_problems("humaneval", write_records(place / "p.jsonl", [human_eval_record(at) for at in range(6)]))
    samples = [Sample(one.task_id, 0, one.canonical if at % 2 else "<b>'wrong\x1b[2J'</b>")
               for at, one in enumerate(problems)]  # fmt: skip
    with fake_judge():
        evaluate_samples(problems, samples, place / "out")
    return place / "out"


def test_programs_are_written_by_status_and_task(evaluation: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = invoke("eval", "browse", evaluation, "--html", page)
    assert (done.code, done.out) == (0, f"6 programs → {page}\n")
    read = Read(page.read_text(encoding="utf-8"))
    assert read.text.count("<b>'wrong⟨U+001B⟩[2J'</b>") == 3
    done = invoke("eval", "browse", evaluation, "--html", page, "--overwrite", "--status", "failed", "--show", "0")
    assert (done.code, done.out) == (0, f"1 program → {page}\n")
    assert "1 of 6" in Read(page.read_text(encoding="utf-8")).text
    again = invoke("eval", "browse", evaluation, "--html", page, "--overwrite", "--status", "nonsense")
    assert_one_line_error(again, 2, "no program is 'nonsense'")


def test_the_same_rules_of_files_hold_for_every_page(evaluation: Path, tmp_path: Path) -> None:
    data = write_lines(tmp_path / "rows.jsonl", [{"instruction": "a", "output": f"b {at}"} for at in range(4)])
    scores = tmp_path / "scores"
    assert invoke("score", data, "--model", MODEL, "--out", scores, "--device", "cpu").code == 0
    commands = {
        "show": ("show", data, "--model", MODEL),
        "compare": ("compare", scores),
        "browse": ("eval", "browse", evaluation),
    }
    for name, command in commands.items():
        page = tmp_path / f"{name}.html"
        page.write_text("mine", encoding="utf-8")
        refused = invoke(*command, "--html", page)
        assert_one_line_error(refused, 2, "--overwrite to replace it")
        assert page.read_text(encoding="utf-8") == "mine"
        assert_one_line_error(invoke(*command, "--html", tmp_path / "no" / "a.html"), 2, "there is no folder")
        (tmp_path / "folder.html").mkdir(exist_ok=True)
        refused = invoke(*command, "--html", tmp_path / "folder.html", "--overwrite")
        assert_one_line_error(refused, 5, "not a regular file")
        assert invoke(*command, "--html", page, "--overwrite").code == 0
        assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
        assert not list(tmp_path.glob("*.tmp*")), "nothing half-written stays"
    told = json.loads(invoke("compare", scores, "--json", "--html", tmp_path / "j.html").out)
    assert told["html"] == str(tmp_path / "j.html")


def test_a_folder_of_statuses_only_gives_a_page_that_says_so(tmp_path: Path) -> None:
    data = write_lines(tmp_path / "rows.jsonl", [{"foo": 1}, {"bar": 2}])
    invoke("score", data, "--model", MODEL, "--out", tmp_path / "scores", "--device", "cpu")
    page = tmp_path / "page.html"
    assert invoke("compare", tmp_path / "scores", "--html", page).code == 0
    text = Read(page.read_text(encoding="utf-8")).text
    assert "no row has a score: there is nothing to compare" in text
    assert "Fewer than two criteria select rows." in text
    shown = invoke("show", data, "--model", MODEL, "--html", page, "--overwrite")
    assert shown.out == f"2 rows → {page}\n"
    assert "unknown_format" in page.read_text(encoding="utf-8")
