"""No command and no method replaces an input of the corpus, also where it may overwrite files."""

from __future__ import annotations

from pathlib import Path

import pytest
from api_cases import folder_over, written_corpus
from ranked_folders import drawn
from score_runs import invoke

import donod_fast
from donod_fast.errors import StoreError

ROWS = 20
SELECT = ["select", "scores", "--keep", "0.5", "--overwrite"]
COMMANDS = {
    "subset": [*SELECT, "--out", "data.jsonl"],
    "sets": [*SELECT, "--out", "subset.jsonl", "--dedupe", "exact", "--sets", "data.jsonl"],
    "sets by a link": [*SELECT, "--out", "subset.jsonl", "--dedupe", "exact", "--sets", "link.jsonl"],
    "export": ["export", "scores", "--out", "data.jsonl", "--overwrite"],
    "report": ["report", "scores", "--out", "data.jsonl", "--overwrite"],
    "compare": ["compare", "scores", "--columns", "don,nod", "--html", "data.jsonl", "--overwrite"],
}


@pytest.fixture
def content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    corpus, _ = written_corpus(tmp_path / "data.jsonl", ROWS)
    folder_over(tmp_path / "scores", [corpus], drawn(ROWS, 1), {})
    (tmp_path / "link.jsonl").symlink_to("data.jsonl")
    monkeypatch.chdir(tmp_path)
    return (tmp_path / "data.jsonl").read_bytes()


@pytest.mark.parametrize("what", COMMANDS)
def test_a_command_does_not_replace_an_input(what: str, content: bytes) -> None:
    done = invoke(*COMMANDS[what])
    assert Path("data.jsonl").read_bytes() == content
    assert done.code == 5 and "one of the inputs" in done.err
    assert not Path("subset.jsonl").exists()


def test_a_method_does_not_replace_an_input(content: bytes) -> None:
    scores = donod_fast.load_scores("scores")
    for write in (scores.report, scores.export, scores.select(3).write):
        with pytest.raises(StoreError, match="one of the inputs"):
            write("data.jsonl", overwrite=True)
    assert Path("data.jsonl").read_bytes() == content
