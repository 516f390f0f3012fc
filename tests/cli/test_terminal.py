"""No text from data, options, names of files or verdicts reaches a terminal with a character that it obeys or hides."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from attack_counts import Attacks
from edge_cases import SCORE, EdgeRunner, Ended, evaluation_of, make_stage
from score_runs import invoke

from donod_fast.cli.app import Commands
from donod_fast.cli.study import Studies
from donod_fast.system.escaping import escaped, is_hidden
from donod_fast.system.terminal import EdgeStream

BIDI = [0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
UNSEEN = [
    *(0x00AD, 0x034F, 0x115F, 0x1160, 0x17B4, 0x180B, 0x180E, 0x200B, 0x200C, 0x200D, 0x2028, 0x2029),
    *(*range(0x2060, 0x2066), *range(0x206A, 0x2070), 0x3164, 0xFE00, 0xFE0F, 0xFEFF, 0xFFA0, 0xFFF9, 0xFFFB),
    *(0x1D173, 0xE0001, 0xE0020, 0xE0041, 0xE007F, 0xE0100, 0xE01EF),
]
MARKS: dict[str, list[int]] = {
    "C0": [at for at in range(0x20) if at != 0x0A],
    "DEL and C1": list(range(0x7F, 0xA0)),
    "bidirectional": BIDI,
    "invisible": UNSEEN,
    "surrogates": [0xD800, 0xDBFF, 0xDC00, 0xDFFF],
}
FORBIDDEN = (
    {at for points in MARKS.values() for at in points} | set(range(0xD800, 0xE000)) | set(range(0xE0000, 0xE0080))
)
SEQUENCES = (
    "\x1b[2J",
    "\x1b[8m",
    "\x1b]0;title\x07",
    "\x1b]52;c;aGk=\x07",
    "\x9b31m",
    "\x1b[30;48;5;114m",
    "\r",
    "\b\b",
)
OURS = re.compile(r"\x1b\[(?:0|1|2|22|3[0-9]|9[0-7]|1;3[0-9]|30;48;5;\d+|[0-9;]*)m")


def forbidden_in(text: str) -> list[str]:
    """Characters that no terminal may get."""
    return sorted({f"U+{ord(one):04X}" for one in text if ord(one) in FORBIDDEN})


@dataclass
class Attack:
    """A command whose output quotes a hostile text.

    Attributes:
        words: the command.
        files: files of the stage that hold the text.
        prepare: further keyword arguments of the runner.
    """

    words: tuple[Any, ...]
    files: dict[str | bytes, bytes] = field(default_factory=dict)
    is_json: bool = False


def _rows(*rows: dict[str, Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _name(text: str) -> bytes:
    """A name of a file or an argument; it holds no NUL, and no surrogate but as bytes that are no UTF-8."""
    return _raw(text).replace(b"\0", b"").replace(b"/", b"")[:200]


def _show(text: str, *options: str) -> Attack:
    rows = _rows({"question": text, "answer": text, "id": text, text: text})
    return Attack(("show", "h.jsonl", "--model", "model", *options), {"h.jsonl": rows}, "--json" in options)


def _conversation(text: str) -> Attack:
    row = {"messages": [{"role": text, "content": "a"}, {"role": "assistant", "content": "b"}]}
    return Attack(
        ("score", "h.jsonl", *SCORE[2:]), {"h.jsonl": _rows(row, {text: 1}, {"question": "a", "answer": text})}
    )


def _problem(text: str) -> dict[str, Any]:
    return {"task_id": text, "prompt": "def f():\n", "canonical_solution": "    pass\n", "test": "", "entry_point": "f"}


def _evaluation(text: str, *options: Any) -> Attack:
    return Attack(("eval", "browse", "evaluated", *options), evaluation_of(text, text))


def _tampered_evaluation(text: str, *options: Any) -> Attack:
    sample = {"task_id": text, "sample": 0, "solution": text, "tokens": 0, "ended": text}
    verdict = {"task_id": text, "sample": 0, "status": text, "detail": text, "base": False, "plus": None}
    return Attack(
        ("eval", "browse", "evaluated", *options),
        {
            "evaluated/verdicts.jsonl": _rows(verdict),
            "evaluated/samples.jsonl": _rows(sample),
            "evaluated/problems.jsonl": _rows(_problem(text)),
        },
    )


PLACES: dict[str, Callable[[str], Attack]] = {
    "a record, shown": _show,
    "a record, token by token": lambda text: _show(text, "--tokens"),
    "a record, as JSON": lambda text: _show(text, "--json"),
    "an id that is looked for": lambda text: Attack(("show", "rows.jsonl", "--model", "model", b"--id=" + _name(text))),
    "roles and columns": _conversation,
    "raw bytes of a row": lambda text: Attack(
        ("show", "h.jsonl", "--model", "model"),
        {"h.jsonl": b'{"question": "' + _raw(text).replace(b"\n", b"") + b'"\n'},
    ),
    "the name of an input": lambda text: Attack(("score", *SCORE[2:], "--", _name(text))),
    "the name of an input that is there": lambda text: Attack(
        ("score", *SCORE[2:], "--", _name(text) + b".jsonl"),
        {_name(text) + b".jsonl": _rows({"question": "a", "answer": "b"})},
    ),
    "the model": lambda text: Attack(("score", "rows.jsonl", b"--model=" + _name(text), "--out", "out")),
    "the folder of scores": lambda text: Attack(("status", b"x" + _name(text))),
    "the output": lambda text: Attack(("select", "scores", "--keep", "2", b"--out=" + _name(text) + b".jsonl")),
    "a column": lambda text: Attack(("compare", "scores", b"--columns=" + _name(text))),
    "a method": lambda text: Attack(
        ("select", "scores", "--keep", "2", "--out", "s.jsonl", b"--method=" + _name(text))
    ),
    "a column to group by": lambda text: Attack(
        ("select", "scores", "--keep", "2", "--out", "s.jsonl", b"--by=" + _name(text))
    ),
    "a template's name": lambda text: Attack((*SCORE, b"--template=" + _name(text))),
    "a template's text": lambda text: Attack(
        (*SCORE, "--template", "t.jinja"),
        {"t.jinja": b"{{ raise_exception('" + _raw(text).replace(b"'", b"") + b"') }}"},
    ),
    "a broken template": lambda text: Attack(
        (*SCORE, "--template", "t.jinja"), {"t.jinja": b"{% " + _raw(text) + b" %}"}
    ),
    "a config's key": lambda text: Attack(
        ("score", "--config", "c.yaml"), {"c.yaml": json.dumps({text: 1, "data": ["rows.jsonl"]}).encode()}
    ),
    "a config's value": lambda text: Attack(
        ("score", "--config", "c.yaml"), {"c.yaml": json.dumps({"data": [text], "model": text, "out": "out"}).encode()}
    ),
    "a recipe": lambda text: Attack(("train", "r.yaml", "--out", "o"), {"r.yaml": json.dumps({text: text}).encode()}),
    "a damoc recipe": lambda text: Attack(
        ("damoc", "r.yaml", "--out", "o"), {"r.yaml": json.dumps({text: text}).encode()}
    ),
    "a model's config": lambda text: Attack(
        SCORE, {"model/config.json": json.dumps({"model_type": text, "architectures": [text]}).encode()}
    ),
    "a manifest": lambda text: Attack(
        ("status", "scores"), {"scores/manifest.json": json.dumps({"format": text, text: text}).encode()}
    ),
    "a program": _evaluation,
    "a program, alone": lambda text: _evaluation(text, b"--show=" + _name(text)),
    "a verdict": _tampered_evaluation,
    "a verdict, alone": lambda text: _tampered_evaluation(text, b"--show=" + _name(text)),
    "a status": lambda text: _evaluation(text, b"--status=" + _name(text)),
    "a problems file": lambda text: Attack(
        ("eval", "humaneval", "--problems", "p.jsonl", "--samples", "s.jsonl"),
        {"p.jsonl": _rows(_problem(text), _problem(text)), "s.jsonl": _rows({"task_id": text, "completion": text})},
    ),
    "a best row": lambda text: Attack(
        ("select", "out", "--keep", "1", "--out", "s.jsonl", "--explain"),
        {"rows.jsonl": _rows({"question": text, "answer": text})},
    ),
    "the subcommand": lambda text: Attack((_name("x" + text),)),
    "the study": lambda text: Attack(("study", _name("x" + text))),
}


def _usage(command: str) -> Callable[[str], Attack]:
    return lambda text: Attack((*command.split(), b"--x" + _name(text), _name(text)))


def _positional(command: str) -> Callable[[str], Attack]:
    return lambda text: Attack((*command.split(), _name("x" + text), _name("y" + text)))


for _command in [
    *(name for name in Commands.table if name not in ("study", "demo", "bench")),
    *("study " + n for n in Studies.table),
]:
    PLACES[f"an unknown option of {_command}"] = _usage(_command)
    PLACES[f"arguments of {_command}"] = _positional(_command)


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeRunner]:
    place = tmp_path_factory.mktemp("terminal")
    with EdgeRunner(make_stage(place / "stage"), place / "scratch") as found:
        yield found


def hostile(draw: random.Random, kind: str) -> str:
    """A text with all marks of a kind between letters, and a sequence that a terminal would obey."""
    marks = MARKS[kind][:]
    draw.shuffle(marks)
    text = "".join(f"{chr(97 + at % 26)}{chr(mark)}" for at, mark in enumerate(marks))
    return text + (draw.choice(SEQUENCES) if kind.startswith(("C0", "DEL")) else "") + "z"


def faults_of(ended: Ended, encoding: str, *, terminal: bool, is_json: bool) -> list[str]:
    """What is wrong with the output of a command that quotes a hostile text."""
    faults = [one for one in ended.faults() if not one.startswith("left ")]
    for name, content in (("out", ended.out), ("err", ended.err)):
        text = content.decode(encoding, "surrogateescape")
        found = forbidden_in(OURS.sub("", text) if terminal else text)
        if found:
            faults.append(f"{name} has {', '.join(found[:8])}")
    if is_json and ended.code == 0:
        try:
            for line in ended.out.decode("ascii").splitlines():
                json.loads(line)
        except ValueError as error:
            faults.append(f"no JSON: {error}")
    return faults


@pytest.mark.attack
def test_no_hostile_text_reaches_the_terminal(attacks: Attacks, runner: EdgeRunner) -> None:
    draw = random.Random(11)
    trials = [(place, kind) for place in PLACES for kind in MARKS]
    draw.shuffle(trials)
    wrong = []
    trials = trials[: attacks.number(14, 260)]
    for place, kind in trials:
        attack = PLACES[place](hostile(draw, kind))
        encoding = draw.choice(["utf-8", "utf-8", "ascii", "latin-1"])
        terminal = draw.random() < 0.3
        if place == "a best row":
            runner.run("score", "rows.jsonl", *SCORE[2:], "--quiet", files=attack.files)
        ended = runner.run(
            *attack.words, files=attack.files, encoding=encoding, terminal=terminal, kept=place == "a best row",
            environment={"TERM": "xterm-256color"},
        )  # fmt: skip
        faults = faults_of(ended, encoding, terminal=terminal, is_json=attack.is_json)
        if faults:
            wrong.append((place, kind, encoding, terminal, faults, ended.code, ended.err[-300:], ended.out[-300:]))
    attacks.count("terminal", "hostile text in what a command prints", tried=len(trials), got_through=len(wrong))
    if wrong:
        pytest.fail("\n".join(map(repr, wrong)))


@pytest.mark.attack
def test_colours_in_data_never_colour_a_terminal(attacks: Attacks, runner: EdgeRunner) -> None:
    # Sequences that our own output uses too: only where they come from tells them apart.
    tried, wrong = 0, []
    for place in ("a record, shown", "a record, token by token", "a program", "a program, alone"):
        for sequence in ("\x1b[30;48;5;114m", "\x1b[0m", "\x1b[2m", "\x1b[1;31m", "\x1b[31m")[: attacks.number(1, 5)]:
            counts = []
            for text in (f"x{sequence}MARKED{sequence}y", "x......MARKED......y"):
                attack = PLACES[place](text)
                ended = runner.run(
                    *attack.words, files=attack.files, terminal=True, environment={"TERM": "xterm-256color"}
                )
                shown = ended.out.decode()
                counts.append(shown.count(sequence + "MARKED"))
                assert "\x1b[" in shown, (place, ended)
            tried += 1
            if counts[0] > counts[1]:
                wrong.append((place, sequence))
    attacks.count("terminal", "colours in data on a terminal", tried=tried, got_through=len(wrong))
    if wrong:
        pytest.fail("\n".join(map(repr, wrong)))


def test_every_mark_is_escaped_and_plain_text_is_not() -> None:
    for point in range(0x110000):
        character = chr(point)
        text = escaped(character)
        assert not forbidden_in(text) or point == 0x0A, hex(point)
        assert text.isascii() or text == character
        assert escaped(text) == text
    plain = "DON ‖U‖ → 95 %, é ü 語 한국어 العربية हिन्दी ⟦a⟧ ⏎ │ …\n"
    assert escaped(plain) == plain and not any(map(is_hidden, plain.strip("\n")))


def test_a_library_finds_no_way_around_the_stream(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w", encoding="utf-8") as file:
        stream = EdgeStream(file, str, optional=False)
        assert not hasattr(stream, "buffer")
        print("a\x1b[2Jb", file=stream)
        stream.writelines(["\x9b", "\u202e", "\ud800\n"])
        stream.write_styled("\x1b[2mc\x1b]0;d\x07\x1b[0m")
    assert (tmp_path / "out").read_text(encoding="utf-8") == (
        "a\\x1b[2Jb\n\\x9b\\u202e\\ud800\n\x1b[2mc\\x1b]0;d\\x07\x1b[0m"
    )


def test_messages_of_a_run_in_this_process_are_escaped() -> None:
    done = invoke("status", "no\x1b[2Jfolder\u202e")
    assert done.code == 5 and "no\\x1b[2Jfolder\\u202e" in done.err


def test_half_a_character_in_a_task_is_evaluated_and_shown() -> None:
    files = evaluation_of("a\ud800", "b\udfff")
    assert b"a\\ud800" in files["evaluated/verdicts.jsonl"] and b"b\\udfff" in files["evaluated/samples.jsonl"]
