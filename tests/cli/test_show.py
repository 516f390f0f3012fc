"""``donod-fast show``: rows as the model sees them, as text, page and JSON."""

from __future__ import annotations

import json
import math
import re
import shlex
import shutil
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from score_runs import assert_one_line_error, invoke, write_lines
from scored_folders import without_checksum

from donod_fast.cli.shown_text import row_text
from donod_fast.data.viewing import Piece, RowView
from donod_fast.demo.corpus import DATA
from donod_fast.reports.row_page import row_page
from donod_fast.system.escaping import visible

MODEL = DATA / "model"
CORPUS = DATA / "corpus.jsonl"
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
HOSTILE = "<script>alert(1)</script>\x1b[31mred\x1b]0;title\x07 \u202eabc\x00\r\n&amp;\ud800 ⟦no⟧"

ROWS: list[dict[str, Any]] = [
    {"id": "first", "instruction": "List 3 things.", "output": "1. bowl\n2. cup"},
    {"id": "empty", "instruction": "Say it.", "output": "  "},
    {
        "id": "masked",
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "A", "weight": 0}],
    },
    {"other": "column"},
    {"id": "last", "text": "Nilo lost a copper key."},
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lines(tmp_path_factory.mktemp("data") / "rows.jsonl", ROWS)


@pytest.fixture(scope="module")
def scores(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished scores folder, which no test changes."""
    out = tmp_path_factory.mktemp("scores") / "out"
    done = invoke("score", data, "--model", MODEL, "--out", out, "--device", "cpu")
    assert done.code == 0, done.err
    return out


def shown(*arguments: object) -> str:
    done = invoke("show", *arguments)
    assert done.code == 0, done.err
    return done.out


def test_scored_tokens_stand_in_marks_with_place_and_facts() -> None:
    out = shown(CORPUS, "--model", MODEL, "--rows", 1)
    assert out.splitlines() == [
        f"row 0: {CORPUS}, line 1, id demo-00000",
        "  scored: 27 of 47 tokens; format alpaca, mask from the template's generation marks, chat template of the "
        "tokenizer",
        "  columns no score depends on: id, family, corruption",
        "  │ <|user|>List 5 kitchen things as a numbered list.<|end|><|assistant|>⟦1. bowl⏎",
        "  │ 2. cup⏎",
        "  │ 3. ladle⏎",
        "  │ 4. plate⏎",
        "  │ 5. spoon<|end|>⟧",
    ]


def test_a_row_without_a_mask_shows_its_cause_and_its_record(data: Path) -> None:
    out = shown(data, "--model", MODEL, "--row", "2-3")
    assert "row 2:" in out and "  all_masked\n" in out and '"weight": 0' in out
    assert "row 3:" in out and "  unknown_format\n" in out and '"other": "column"' in out
    assert "⟦" not in out


def test_a_line_that_cannot_be_parsed_is_shown(tmp_path: Path) -> None:
    broken = tmp_path / "rows.jsonl"
    broken.write_bytes(b'{"text": "ok"}\n{"text": \xff\x1b[0m}\n')
    out = shown(broken, "--model", MODEL, "--row", 1)
    assert "  not_parsable\n" in out and "\\xff⟨U+001B⟩[0m" in out


@pytest.mark.parametrize(
    ("chosen", "rows"),
    [
        (["--rows", 2], [0, 1]),
        (["--row", "4", "--row", "0,2-3"], [4, 0, 2, 3]),
        (["--id", "last", "--id", "empty"], [1, 4]),
        (["--status", "all_masked"], [2]),
        (["--status", "scored"], [0, 4]),
        (["--status", "scored", "--rows", 1], [0]),
    ],
    ids=str,
)
@pytest.mark.parametrize("source", ["data", "scores"])
def test_rows_are_chosen(source: str, chosen: list[object], rows: list[int], data: Path, scores: Path) -> None:
    arguments = [data, "--model", MODEL] if source == "data" else ["--scores", scores]
    out = shown(*arguments, *chosen, "--json")
    assert [json.loads(line)["row"] for line in out.splitlines()] == rows


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--row", 5], "there is no row 5: the input has 5 rows"),
        (["--row", "x"], "cannot be read"),
        (["--row", "9-3"], "first row first"),
        (["--id", "gone"], "no row has the id gone"),
        (["--status", "too_long"], "no row has the status too_long"),
        (["--status", "masked"], "did you mean 'all_masked'?"),
        (["--status", "odd"], "statuses are scored, not_parsable, "),
        (["--status", "scored", "--id", "first"], "--status and --id exclude each other"),
        (["--json", "--tokens"], "--tokens and --json exclude each other"),
        (["--max-length", 100_000], "more than the model's own"),
        (["--template", "alpacca"], "did you mean 'alpaca'?"),
    ],
    ids=lambda value: str(value),
)
def test_what_cannot_be_shown_is_one_line(arguments: list[object], told: str, data: Path) -> None:
    assert_one_line_error(invoke("show", data, "--model", MODEL, *arguments), 2, told)


def test_weights_are_not_needed(tmp_path: Path, data: Path) -> None:
    shutil.copytree(MODEL, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    assert shown(data, "--model", tmp_path / "model") == shown(data, "--model", MODEL)


def test_masking_options_are_those_of_score(data: Path) -> None:
    out = shown(data, "--model", MODEL, "--template", "alpaca", "--max-length", 90, "--rows", 1)
    assert "chat template alpaca (built in)" in out and "cut to the limit" not in out
    cut = shown(data, "--model", MODEL, "--max-length", 8, "--id", "last")
    assert "cut to the length limit" in cut


def test_a_scores_folder_adds_its_numbers_and_settles_the_rest(scores: Path, data: Path) -> None:
    out = shown("--scores", scores, "--id", "first")
    assert re.search(r"in the scores folder: loss [\d.]+, entropy [\d.]+, .*don -?[\d.e-]+, nod [\d.]+\n", out)
    assert out == shown("--scores", scores, data, "--id", "first")
    other = write_lines(data.parent / "other.jsonl", ROWS[1:])
    assert_one_line_error(invoke("show", "--scores", scores, other), 2, "holds scores of other rows than")


def test_another_mask_than_the_folders_is_named(scores: Path) -> None:
    out = shown("--scores", scores, "--id", "last", "--max-length", 4)
    assert "in the scores folder: scored with another mask " in out
    refused = shown("--scores", scores, "--id", "first", "--max-length", 4)
    assert "  too_long; format alpaca\n" in refused and "in the scores folder: status scored, loss" in refused


def test_a_folder_without_recorded_options_is_enough(scores: Path, tmp_path: Path) -> None:
    old = shutil.copytree(scores, tmp_path / "old")
    without_checksum(old)
    assert shown("--scores", old) == shown("--scores", scores).replace(str(scores), str(old))


def test_the_losses_are_those_that_are_scored(scores: Path) -> None:
    view = json.loads(shown("--scores", scores, "--id", "first", "--losses", "--device", "cpu", "--json"))
    losses = [loss for piece in view["pieces"] for loss in piece["losses"]]
    assert len(losses) == view["scored_tokens"]
    assert math.fsum(losses) / len(losses) == pytest.approx(view["scores"]["loss"], rel=1e-5)
    out = shown("--scores", scores, "--id", "first", "--losses", "--device", "cpu")
    assert f"loss: mean {view['scores']['loss']:.4f} nats per token; highest ⟦" in out
    table = shown("--scores", scores, "--id", "first", "--losses", "--device", "cpu", "--tokens")
    assert len(re.findall(r"^ +\d+ +[\d+]+ +\d+\.\d{4} ⟦.*⟧$", table, re.MULTILINE)) == len(
        [piece for piece in view["pieces"] if piece["scored"]]
    )


def test_the_hints_of_score_can_be_pasted(tmp_path: Path) -> None:
    lines = write_lines(tmp_path / "all masked.jsonl", [ROWS[2]])
    options = [lines, "--model", MODEL, "--device", "cpu", "--train-on", "last"]
    plan = invoke("score", *options, "--out", tmp_path / "no", "--dry-run").out
    failed = invoke("score", *options, "--out", tmp_path / "the scores").err
    for hint in (plan.partition("look     ")[2], failed.partition("look at them: ")[2]):
        words = shlex.split(hint.splitlines()[0])
        assert words[:2] == ["donod-fast", "show"] and words[-2:] == ["--status", "all_masked"]
        assert "  all_masked\n" in shown(*words[2:])


def test_a_plan_for_standard_input_has_no_hint(tmp_path: Path) -> None:
    options = ["-", "--model", MODEL, "--device", "cpu", "--out", tmp_path / "no", "--dry-run"]
    done = invoke("score", *options, stdin=json.dumps(ROWS[2]).encode())
    assert done.code == 0 and "1 all_masked" in done.out and "look" not in done.out


def test_the_summary_of_score_names_the_command(data: Path, tmp_path: Path) -> None:
    out = invoke("score", data, "--model", MODEL, "--out", tmp_path / "out", "--device", "cpu").out
    command = re.findall(r"check the masks: (.*)", out)[0]
    assert "⟦" in shown(*shlex.split(command)[2:])


def test_a_very_long_row_says_that_its_tokens_were_not_all_counted(tmp_path: Path) -> None:
    long = "lorem ipsum " * 25_000
    lines = write_lines(tmp_path / "rows.jsonl", [{"text": long}, {"prompt": long, "completion": "yes"}, ROWS[4]])
    options = ["--model", MODEL, "--max-length", 64]
    assert invoke("score", lines, *options, "--out", tmp_path / "out", "--device", "cpu").code == 0
    views = [json.loads(line) for line in shown("--scores", tmp_path / "out", "--json").splitlines()]
    for status, view in zip(["scored", "too_long"], views, strict=False):
        assert view["status"] == status and f"at least {view['tokens']} tokens" in view["detail"]
    from donod_fast.scores.folder import ScoresFolder

    assert ScoresFolder.open(tmp_path / "out").table().column("detail").to_pylist() == [v["detail"] for v in views]
    assert views[2]["detail"] == ""
    assert "more characters" not in shown(lines, *options, "--row", 2)
    assert len(shown(lines, *options, "--row", 1)) < 30_000


# --- text of records is data


def view_of(words: str, **given: Any) -> RowView:
    pieces = (Piece("<s>", (0,), ("<s>",), False, True), Piece(words, (7,), (words,), True, False, (1.25,)))
    values: dict[str, Any] = {
        "row": 0, "id": words, "file": words, "place": "line 1", "status": "scored", "detail": words, "format": "text",
        "template": words, "mask": "text", "tokens": 2, "scored_tokens": 1, "truncated": False, "recasts": (words,),
        "unused": (words,), "excluded": 2, "pieces": pieces, "record": {words: words},
        "scores": {words: 1.0, "status": words},
    }  # fmt: skip
    return RowView(**{**values, **given})


class Reading(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.names: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.names |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


TEXTS = st.one_of(
    st.text(alphabet=st.characters(), max_size=30),
    st.lists(
        st.sampled_from([*"<>&\"'/=", "script", " onload=", "\x1b[2J", "\x9b", "\u202e", "]]>", "-->", "</pre>"])
    ).map("".join),
    st.just(HOSTILE),
)


@given(text=TEXTS, is_refused=st.booleans())
@settings(max_examples=60, deadline=None)
def test_no_record_text_reaches_terminal_or_page_as_markup(text: str, is_refused: bool) -> None:
    view = view_of(text, **({"pieces": (), "text": None} if is_refused else {}))
    for tokens in (False, True):
        plain = row_text(view, colour=False, tokens=tokens)
        assert not CONTROL.search(plain)
        styles = re.sub(r"\x1b\[[\d;]*m", "", row_text(view, colour=True, tokens=tokens))
        assert not CONTROL.search(styles)
    for line in row_text(view, colour=False).splitlines()[1:]:
        assert line.startswith("  ")  # no text can look like the heading of another row
    written = "".join(row_page(text, [view]))
    written.encode("utf-8")
    read = Reading(written)
    assert read.tags <= {
        *("html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "p", "section", "pre", "span")
    }
    assert read.names <= {"lang", "charset", "http-equiv", "content", "name", "id", "class", "title", "dir"}
    assert not CONTROL.search(written)
    if not is_refused:
        assert visible(text) in read.text or not text


def test_marks_in_a_record_cannot_be_taken_for_ours() -> None:
    assert visible("⟦a⟧⏎") == "⟨U+27E6⟩a⟨U+27E7⟩⟨U+23CE⟩"
    assert visible("a\tb\n") == "a⇥b⏎\n"
    assert visible("é 語 a\u200db") == "é 語 a⟨U+200D⟩b"  # the model sees joiners, and so must the reader


def test_colour_marks_exactly_the_scored_text() -> None:
    view = view_of("a\nb", pieces=(
        Piece("no", (1,), ("no",), False, False), Piece("a\nb", (2,), ("x",), True, False),
        Piece("no", (3,), ("no",), False, False),
    ))  # fmt: skip
    text = row_text(view, colour=True)
    assert re.findall(r"\x1b\[30[^m]*m([^\x1b]*)\x1b\[0m", text) == ["a⏎", "b"]
    assert "⟦" not in text.partition("│")[2]


def test_a_token_that_writes_nothing_is_shown_by_its_name() -> None:
    view = view_of("", pieces=(Piece("", (1,), ("▁",), True, False),))
    assert "⟦⟨▁⟩⟧" in row_text(view, colour=False)


def test_colour_is_for_terminals_only(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(io, "StringIO", Terminal)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[30;48;5;114m" in shown(data, "--model", MODEL, "--rows", 1)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in shown(data, "--model", MODEL, "--rows", 1)


def test_a_page_is_self_contained(tmp_path: Path, scores: Path) -> None:
    hostile = write_lines(
        tmp_path / "rows.jsonl", [{"id": "x", "instruction": HOSTILE.replace("\ud800", ""), "output": "ok"}]
    )
    file = tmp_path / "page.html"
    assert shown(hostile, "--model", MODEL, "--html", file) == f"1 row → {file}\n"
    written = file.read_text(encoding="utf-8")
    assert "<script" not in written and "http://" not in written and "https://" not in written
    assert "prefers-color-scheme: dark" in written and "default-src 'none'" in unescape(written)
    assert_one_line_error(invoke("show", hostile, "--model", MODEL, "--html", file), 2, "--overwrite to replace it")
    (tmp_path / "taken").mkdir()
    refused = invoke("show", hostile, "--model", MODEL, "--html", tmp_path / "taken", "--overwrite")
    assert_one_line_error(refused, 5, "not a regular file")
    shown("--scores", scores, "--html", file, "--overwrite", "--losses", "--device", "cpu")
    assert re.search(r'class="s l\d" title="token \d+, id \d+, [^"]+, loss \d', file.read_text(encoding="utf-8"))
