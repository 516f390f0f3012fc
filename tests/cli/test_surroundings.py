"""Whatever surrounds a command: a clear error or the right result, no internal error, no hang, no litter."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attack_counts import Attacks
from edge_cases import SCORE, EdgeRunner, Ended, make_stage
from edge_runs import SIGNALS, SURROUNDINGS
from score_runs import assert_same_bits

from donod_fast.scores.folder import ScoresFolder

pytestmark = [
    pytest.mark.attack,
    pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounts of its own need root"),
]

COMMANDS: dict[str, tuple[str, ...]] = {
    "score": SCORE,
    "score standard input": ("score", "-", *SCORE[2:]),
    "select": ("select", "scores", "--keep", "0.5", "--out", "out/subset.jsonl"),
    "select to standard output": ("select", "scores", "--keep", "0.5", "--out", "-"),
    "select larger than memory": ("select", "scores", "--keep", "0.5", "--out", "s.jsonl", "--engine", "duckdb"),
    "rank": ("rank", "scores"),
    "show": ("show", "rows.jsonl", "--model", "model", "--rows", "2"),
    "show a page": ("show", "rows.jsonl", "--model", "model", "--html", "out/page.html"),
    "status": ("status", "scores"),
    "export": ("export", "scores", "--out", "out/all.parquet"),
    "export a folder": ("export", "scores", "--out", "out/all"),
    "merge": ("merge", "scores", "scores2", "--out", "out"),
    "compare": ("compare", "scores", "--columns", "topsis,nod,loss"),
    "browse": ("eval", "browse", "evaluated"),
    "usage": ("score", "--nix"),
    "help": ("--help",),
}
MID_RUN = tuple(name for name in SURROUNDINGS if name.endswith("_in_mid_run"))
STEADY = tuple(name for name in SURROUNDINGS if name not in (*MID_RUN, *SIGNALS))
# C++ code of libraries ends the process when it cannot have a few bytes; no Python code can answer that.
ABORTS = ("very_little_memory",)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_stage(tmp_path_factory.mktemp("edge") / "stage")


@pytest.fixture(scope="module")
def runner(stage: Path) -> Iterator[EdgeRunner]:
    with EdgeRunner(stage, stage.parent / "scratch") as found:
        yield found


def wrong_scores(ended: Ended, stage: Path) -> list[str]:
    """A score command that reports success has the scores of an undisturbed one."""
    if ended.code != 0 or not (ended.place / "out" / "manifest.json").is_file():
        return []
    try:
        tables = [ScoresFolder.open(folder).table() for folder in (ended.place / "out", stage / "scores")]
        # The detail of a row names its file.
        assert_same_bits(*(table.drop_columns(["detail"]) for table in tables))
    except Exception as error:
        return [f"other scores: {error}"]
    return []


def judged(attacks: Attacks, kind: str, found: list[tuple[str, list[str], Ended]]) -> None:
    """Count trials, and fail with what the faulty ones printed."""
    wrong = [(name, faults, one.code, one.err[-600:]) for name, faults, one in found if faults]
    attacks.count("surroundings", kind, tried=len(found), got_through=len(wrong))
    if wrong:
        pytest.fail("\n".join(map(repr, wrong)))


def test_odd_surroundings_end_in_a_clear_error_or_the_result(attacks: Attacks, runner: EdgeRunner, stage: Path) -> None:
    pairs = [(around, name) for around in STEADY for name in COMMANDS]
    random.Random(5).shuffle(pairs)
    rows = (stage / "rows.jsonl").read_bytes()
    found = []
    for around, name in pairs[: attacks.number(10, 260)]:
        words = COMMANDS[name]
        if around == "removed_folder":
            inside = stage.parent / "scratch" / "case" / "stage"
            words = tuple(
                str(inside / word) if (stage / word).exists() or word.startswith("out") else word for word in words
            )
        ended = runner.run(*words, surrounding=around, input=rows)
        faults = ended.faults()
        if around in ABORTS and ended.code < 0:
            faults = []
        if name.startswith("score") and around not in ("closed_stdin", "closed_streams"):
            faults += wrong_scores(ended, stage)
        found.append((f"{around}: {name}", faults, ended))
    judged(attacks, "odd surroundings of a command", found)


def test_what_vanishes_in_mid_run_ends_in_a_clear_error(attacks: Attacks, runner: EdgeRunner, stage: Path) -> None:
    found = []
    for around in MID_RUN:
        ended = runner.run(*SCORE, surrounding=around)
        found.append((around, ended.faults() + wrong_scores(ended, stage), ended))
    judged(attacks, "files removed in mid-run", found)


NAMES: tuple[str | bytes, ...] = (
    *("~x.jsonl", "~.jsonl", "~root.jsonl", "~nobody-has-this-name.jsonl", "-x.jsonl", "--help.jsonl"),
    *("a[b].jsonl", "[a-z].jsonl", "*.jsonl", "?.jsonl", "**.jsonl", "a b.jsonl", "a\nb.jsonl", "a'b\".jsonl"),
    *("$HOME.jsonl", "{a,b}.jsonl", "a%s.jsonl", "a:b.jsonl", "a::b.jsonl", "#.jsonl", "a=b.jsonl"),
    *("\u202egnp.jsonl", "\x1b[31m.jsonl", b"\xff\xfe.jsonl", b"a\x80.jsonl", "x" * 240 + ".jsonl"),
    *("ü.jsonl", "u\u0308.jsonl", ".jsonl", "..jsonl", "a.JSONL", "a\\b.jsonl"),
)


def test_files_with_odd_names_are_scored_and_selected(attacks: Attacks, runner: EdgeRunner, stage: Path) -> None:
    rows, found = (stage / "rows.jsonl").read_bytes(), []
    names = list(NAMES)
    random.Random(2).shuffle(names)
    for name in names[: attacks.number(5, len(names))]:
        words: tuple[Any, ...] = ("score", *SCORE[2:], "--", name)
        ended = runner.run(*words, files={name: rows})
        faults = ended.faults() + wrong_scores(ended, stage)
        # A name without a known suffix is refused.
        if ended.code != 0 and name not in (".jsonl", "..jsonl"):
            faults.append("is not scored")
        found.append((repr(name), faults, ended))
        if ended.code == 0:
            subset = name if isinstance(name, bytes) else name.encode()
            again = runner.run("select", "out", "--keep", "2", b"--out=" + subset, "--overwrite", kept=True)
            # The input is never replaced by its subset.
            faults = again.faults() + (["replaces its input"] if again.code == 0 else [])
            found.append((f"select over {name!r}", faults, again))
    judged(attacks, "odd names of files", found)


SPECIALS = ("fifo", "socket", "folder", "loop", "/dev/zero", "/dev/null", "/dev/full", "/nowhere", "/proc/self/mem")


def test_what_is_no_file_in_a_files_place_never_hangs(attacks: Attacks, runner: EdgeRunner) -> None:
    places: dict[str, tuple[str, ...]] = {
        "rows.jsonl": SCORE,
        "template.jinja": (*SCORE, "--template", "template.jinja"),
        "options.yaml": ("score", "--config", "options.yaml"),
        "dataset_info.json": (*SCORE, "--dataset-info", "dataset_info.json", "--dataset", "x"),
        "recipe.yaml": ("train", "recipe.yaml", "--out", "out"),
        "damoc.yaml": ("damoc", "damoc.yaml", "--out", "out"),
        "scores/manifest.json": ("status", "scores"),
        "scores/plan.parquet": ("select", "scores", "--keep", "2", "--out", "s.jsonl"),
        "scores/part-000001.parquet": ("rank", "scores"),
        "scores/.lock": ("score", "rows.jsonl", "--model", "model", "--out", "scores", "--part-rows", "8"),
        "model/config.json": SCORE,
        "model/tokenizer.json": SCORE,
        "model/tokenizer_config.json": SCORE,
        "model/model.safetensors": SCORE,
        "problems.jsonl": ("eval", "humaneval", "--problems", "problems.jsonl", "--samples", "rows.jsonl"),
        "evaluated/verdicts.jsonl": ("eval", "browse", "evaluated"),
        "evaluated/samples.jsonl": ("eval", "browse", "evaluated"),
        "evaluated/settings.json": ("eval", "browse", "evaluated"),
        "out": SCORE,
        "s.jsonl": ("select", "scores", "--keep", "2", "--out", "s.jsonl", "--overwrite"),
        "page.html": ("show", "rows.jsonl", "--model", "model", "--html", "page.html", "--overwrite"),
        "all.csv": ("export", "scores", "--out", "all.csv", "--overwrite"),
    }  # fmt: skip
    pairs = [(place, kind) for place in places for kind in SPECIALS]
    random.Random(9).shuffle(pairs)
    found = []
    for place, kind in pairs[: attacks.number(8, len(pairs))]:
        ended = runner.run(*places[place], specials={place: kind}, patience=60, surrounding="some_memory")
        found.append((f"{place} is {kind}", ended.faults(), ended))
    judged(attacks, "no regular file in a file's place", found)
