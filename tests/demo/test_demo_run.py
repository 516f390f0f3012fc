"""The whole demonstration runs from an installed package, and its files agree with one another."""

from __future__ import annotations

from pathlib import Path

import pytest

from donod_fast.demo.corpus import CORPUS_FILE
from donod_fast.demo.run import METHODS, run_demo


@pytest.mark.slow
def test_the_demo_scores_selects_reports_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_demo(tmp_path / "out", keep=0.3)
    first = capsys.readouterr().out
    report = (tmp_path / "out" / "report.txt").read_text(encoding="utf-8")
    lines = report.splitlines()
    assert report in first
    assert [line for line in lines for name, _, _ in METHODS if line.startswith(name + " ")] == lines[2:-2]
    assert lines[-1].startswith("chance (70%)")

    corpus = CORPUS_FILE.read_bytes().splitlines()
    subset = (tmp_path / "out" / "subset.jsonl").read_bytes().splitlines()
    assert len(subset) == 300
    assert set(subset) <= set(corpus)
    corrupted = sum(b'"corruption": "none"' not in line for line in subset)
    all_kinds = next(line for line in lines if line.startswith("TOPSIS, AdamW")).split("of 300")[0].split()[-1]
    assert int(all_kinds) == 300 - corrupted

    run_demo(tmp_path / "out", keep=0.3, quiet=True)
    assert capsys.readouterr().out == report
