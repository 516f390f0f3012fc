"""The help texts of the commands."""

from __future__ import annotations

import re

import pytest
from score_runs import command as in_a_process
from score_runs import invoke

from donod_fast.cli.app import Commands
from donod_fast.cli.links import PAGES
from donod_fast.cli.study import Studies

COMMANDS = [[name] for name in Commands.table if name != "study"] + [["study", name] for name in Studies.table]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_has_sections_an_example_and_a_link(command: list[str]) -> None:
    done = invoke(*command, "--help")
    assert done.code == 0, done.err
    assert f"Example:\n  donod-fast {' '.join(command)}" in done.out
    assert PAGES in done.out
    other = done.out.partition("\nOther:\n")[2].partition("\n\n")[0]
    assert re.findall(r"--[a-z-]+", other) == ["--help"], "each option stands under a heading"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_help_text_begins_with_of(command: list[str]) -> None:
    assert not re.search(r"^ .*  Of ", invoke(*command, "--help").out, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_placeholders_of_values_have_one_style(command: list[str]) -> None:
    out = invoke(*command, "--help").out
    assert not re.findall(r"^ .*<.*>", out, re.MULTILINE)
    words = re.findall(r"^  (?:-[a-z], )?--[a-z-]+ (\w+)", out, re.MULTILINE)
    assert set(words) <= {"TEXT", "INT", "NUMBER", "PATH"}


def test_score_groups_its_options() -> None:
    out = invoke("score", "--help").out
    headings = re.findall(r"^([A-Z][a-z ]+):$", out, re.MULTILINE)
    assert headings == ["Input", "Model", "Scoring", "Running", "Output", "Other", "Example"]
    assert "--lr NUMBER" in out and "[default: 2e-05]" in out and "--out TEXT" in out


def test_python_m_donod_fast_is_the_command_line() -> None:
    import subprocess
    import sys

    done = subprocess.run([sys.executable, "-m", "donod_fast", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == in_a_process("--version").out


def test_the_shell_completes_commands_and_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    # Otherwise the shell is looked for among the parents of this process, which may have none.
    monkeypatch.setattr("shellingham.detect_shell", lambda: ("bash", "/bin/bash"))

    def completed(words: str) -> list[str]:
        place = str(len(words.split(" ")) - 1)
        done = in_a_process(_DONOD_FAST_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=place)
        return done.out.split()

    assert completed("donod-fast sel") == ["select"]
    assert completed("donod-fast score --update s") == ["sgd", "sign"]
    assert "complete" in invoke("--show-completion").out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["scroe"], "Did you mean 'score'?"),
        (["score", "x.jsonl", "--model", "m", "--out", "o", "--update", "adamv"], "did you mean 'adamw'?"),
        (["score", "x.jsonl", "--model", "m", "--out", "o", "--engine", "rays"], "did you mean 'ray'?"),
        (["score", "x.jsonl", "--model", "m", "--out", "o", "--signals", "perplexty"], "did you mean 'perplexity'?"),
        (["score", "x.jsonl", "--model", "m", "--out", "o", "--compile", "onn"], "did you mean 'on'?"),
        (["score", "x.jsonl", "--model", "m", "--out", "o", "--dtype", "bfloat"], "did you mean 'bfloat16'?"),
        (["score", "x.jsonl", "--model", "m", "--out", "o", "--overwrit"], "--overwrite"),
        (["eval", "humanevl", "--canonical"], "did you mean 'humaneval'?"),
        (["study", "treshold"], "Did you mean 'threshold'?"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_a_misspelt_name_gets_a_suggestion(arguments: list[str], told: str) -> None:
    done = invoke(*arguments)
    assert done.code == 2 and told in done.err
