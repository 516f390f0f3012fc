"""A URL with a secret may be given to any option, key or file: no command shows the secret or keeps it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from attack_counts import Attacks
from canaries import PLACES, canary, leaks
from edge_cases import SCORE, EdgeRunner, make_stage

from donod_fast.cli.app import app

WORDS: dict[str, tuple[str, ...]] = {
    "score": SCORE[1:],
    "select": ("scores", "--keep", "2", "--out", "s.jsonl"),
    "show": ("rows.jsonl", "--model", "model", "--rows", "1"),
    "rank": ("scores",),
    "compare": ("scores",),
    "dual": ("rows.jsonl", "--model", "model", "--reference", "rows.jsonl", "--out", "dual"),
    "status": ("scores",),
    "merge": ("scores", "scores2", "--out", "out"),
    "compact": ("scores", "--dry-run"),
    "export": ("scores", "--out", "all.jsonl"),
    "train": ("--model", "model", "--data", "rows.jsonl", "--out", "tuned", "--dry-run"),
    "eval": ("humaneval", "--problems", "problems.jsonl", "--samples", "rows.jsonl", "--out", "judged"),
    "damoc": ("recipe.yaml", "--out", "damoc"),
    "study noise": ("rows.jsonl", "--model", "model", "--out", "noise"),
}
"""What makes a command complete; the attacked option comes after it, or the attacked argument instead of it."""

SCHEMES = ("memory", "nothing", "s3", "file", "HTTPS+x")
MARKS = ("", "", "\x1b[2J", "\u202e", "\x9b31m")


def options() -> list[tuple[str, str]]:
    """Every option of every command that takes a value; "" stands for the argument."""
    found: list[tuple[str, str]] = []

    def look(name: str, command: Any) -> None:
        context = typer.Context(command)
        if hasattr(command, "resolve_command"):
            for one in command.list_commands(context):
                look(f"{name} {one}".strip(), command.get_command(context, one))
            return
        found.append((name, ""))
        for parameter in command.params:
            names = [one for one in parameter.opts if one.startswith("--")]
            if names and not getattr(parameter, "is_flag", False):
                found.append((name, names[0]))

    look("", typer.main.get_command(app))
    return [one for one in found if one[0] not in ("demo", "bench")]


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeRunner]:
    place = tmp_path_factory.mktemp("secrets")
    with EdgeRunner(make_stage(place / "stage"), place / "scratch") as found:
        yield found


def judged(attacks: Attacks, kind: str, number: int, wrong: list[tuple[Any, ...]]) -> None:
    attacks.count("secrets", kind, tried=number, got_through=len(wrong))
    if wrong:
        pytest.fail("\n".join(map(repr, wrong)))


def tried(runner: EdgeRunner, draw: random.Random, secret: str, words: tuple[str, ...], **case: Any) -> list[str]:
    """Run a command. Returns what is wrong with what it printed and wrote."""
    traced = draw.random() < 0.3
    terminal = draw.random() < 0.3
    given: dict[str, bytes] = case.pop("files", {})
    environment = {"DONOD_FAST_TRACEBACK": "1"} if traced else {}
    environment |= draw.choice(({}, {"NO_COLOR": "1"}, {"TERM": "dumb"}, {"FORCE_COLOR": "1", "TERM": "xterm"}))
    ended = runner.run(*words, files=given, terminal=terminal, environment=environment, patience=60, **case)
    shown = (ended.out + ended.err).decode("utf-8", "surrogateescape")
    found = [one for one in ended.faults() if not (traced and one in ("Traceback", "code 70"))]
    found += [f"shows {mark!r}" for mark in MARKS if mark and mark in shown]
    for name in given:
        (ended.place / name).unlink(missing_ok=True)
    found += [f"shows it: {one}" for one in leaks([secret], [shown], ended.place)]
    return [*found, shown[-400:]] if found else []


@pytest.mark.attack
def test_no_option_of_any_command_shows_a_secret(attacks: Attacks, runner: EdgeRunner) -> None:
    draw, trials = random.Random(17), options()
    assert len(trials) > 200
    draw.shuffle(trials)
    trials = trials[: attacks.number(16, len(trials))]
    wrong = []
    for at, (command, option) in enumerate(trials):
        secret, url = drawn(draw, at)
        words = WORDS.get(command, ())
        words = (*words, f"{option}={url}") if option else (url, *words[1:])
        faults = tried(runner, draw, secret, (*command.split(), *words))
        if faults:
            wrong.append((command, option, url, faults))
    judged(attacks, "a URL as the value of an option", len(trials), wrong)


def drawn(draw: random.Random, at: int) -> tuple[str, str]:
    secret = canary(1_000 + at)
    places = [place for place in PLACES if "?" not in PLACES[place]]  # elsewhere a question mark is a wildcard
    host = draw.choice(("h", "h.example", "127.0.0.1:1"))
    path = draw.choice(("x.jsonl", "a/*.jsonl", "a.parquet", "x", "x.gz", "a b.parquet")) + draw.choice(MARKS)
    place = PLACES[draw.choice(places)]
    return secret, place.format(scheme=draw.choice(SCHEMES), secret=secret, host=host, path=path)


@pytest.mark.attack
def test_no_file_of_settings_shows_a_secret(attacks: Attacks, runner: EdgeRunner) -> None:
    draw, wrong = random.Random(18), []
    keys = ("data", "model", "out", "template", "dtype", "rows", "nothing", "reference", "columns")
    recipe_keys = ("name", "train", "data", "heldout", "candidates", "score", "eval", "nothing")
    number = attacks.number(6, 80)
    for at in range(number):
        secret, url = drawn(draw, 500 + at)
        value: Any = draw.choice((url, [url], {"a": url}, {url: 1}, f"see {url}, please"))
        kind = draw.randrange(4)
        key = draw.choice(keys if kind == 0 else recipe_keys)
        content = json.dumps({"name": "x", key: value}, ensure_ascii=draw.random() < 0.5)
        content = content if draw.random() < 0.8 else content[: -draw.randrange(1, 9)]
        file = draw.choice(("c.yaml", "c.json"))
        words = (
            ("score", "rows.jsonl", "--model", "model", "--out", "out", "--config", file),
            ("train", file, "--out", "out", "--dry-run"),
            ("damoc", file, "--out", "out"),
            ("train", file, "--out", "out", "--dry-run", "--set", f"train.{key}={url}"),
        )[kind]
        faults = tried(runner, draw, secret, words, files={file: content.encode("utf-8", "surrogatepass")})
        if faults:
            wrong.append((words, content, faults))
    judged(attacks, "a URL in a file of settings", number, wrong)
