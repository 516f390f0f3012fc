"""The comparison of a subset with its corpus, over parts, against the rule on arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from ranked_folders import drawn, folder_of

from donod_fast.scores.folder import ScoresFolder
from donod_fast.selection.likeness import likeness
from donod_fast.selection.out_of_core import RowSet, loading
from donod_fast.selection.representation import length_warning, mix_warning

COUNT = 200
SOURCES: list[str | None] = [("web", "code", "maths", None)[at % 4] for at in range(COUNT)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScoresFolder:
    """Scores of two files with lengths that rise."""
    write = ScoresFolder.write_table

    def with_lengths(self: ScoresFolder, part: int, table: pa.Table, *more: Any) -> Any:
        lengths = pa.array(table.column("row").to_numpy() + 1, pa.int32())
        return write(self, part, table.set_column(table.column_names.index("tokens"), "tokens", lengths), *more)

    monkeypatch.setattr(ScoresFolder, "write_table", with_lengths)
    monkeypatch.setattr(loading, "_BATCH_ROWS", 50)
    carried: dict[str, list[str | None]] = {"source": SOURCES, "id": [str(at) for at in range(COUNT)]}
    inputs = (("a.jsonl", 120), ("b.jsonl", 80))
    return folder_of(tmp_path / "scores", drawn(COUNT, 1), (40, 80, 80), carried, inputs)


def test_the_parts_say_what_the_arrays_say(folder: ScoresFolder) -> None:
    scored = np.flatnonzero(~np.isnan(drawn(COUNT, 1)["don"]))
    codes = {name: at for at, name in enumerate(("web", "code", "maths", None))}
    groups = np.array([codes[name] for name in SOURCES])
    draw = np.random.default_rng(2)
    for rows in (
        scored[-60:],  # long, and of one file
        scored[groups[scored] < 2],
        draw.choice(scored, 60, replace=False),
    ):
        found = likeness(folder, rows.tolist())
        expected = [
            length_warning(scored + 1, rows + 1),
            mix_warning(groups[scored], groups[rows], list(codes), "source"),
            mix_warning((scored >= 120).astype(int), (rows >= 120).astype(int), ["a.jsonl", "b.jsonl"], "file"),
        ]
        assert list(found.warnings) == [one for one in expected if one is not None]
        assert set(found.distances) == {"source", "file"}  # ids are no groups
        assert found.kept_tokens == pytest.approx((rows + 1).mean())
        assert found.tokens == pytest.approx((scored + 1).mean())
        for form in (torch.from_numpy(rows), RowSet.of(rows, COUNT)):
            assert likeness(folder, form) == found
    assert found.warnings == ()


def test_a_set_of_rows_gives_the_flags_of_any_range() -> None:
    rows = np.random.default_rng(0).choice(100, 37, replace=False)
    flags = np.isin(np.arange(100), rows)
    found = RowSet.of(rows.tolist(), 100)
    for start in range(0, 100, 3):
        for stop in range(start, 101, 5):
            assert found.flags(start, stop).tolist() == flags[start:stop].tolist()
