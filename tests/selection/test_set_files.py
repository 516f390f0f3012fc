"""Files of sets of similar rows: what is written is read again, and what is wrong is named with file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ranked_folders import drawn, folder_of

from donod_fast.errors import InputError
from donod_fast.scores.folder import ScoresFolder
from donod_fast.selection.set_files import corpus_of, read_sets, write_sets
from donod_fast.selection.similar_sets import SimilarSets

ROWS = 60
KINDS = {"exact": None, "minhash": 0.8, "embedding": 0.95, "kcenter": None, "kmeans": None, "facility": None}
GOOD: dict[str, Any] = {"kind": "minhash", "threshold": 0.8, "kept": 3, "dropped": [5, 4], "similarity": [0.9, 1]}


@pytest.fixture
def folder(tmp_path: Path) -> ScoresFolder:
    return folder_of(tmp_path / "scores", drawn(ROWS), (ROWS,))


def drawn_sets(kind: str, threshold: float | None, seed: int) -> SimilarSets:
    """Some rows in sets of several sizes, in any order."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(ROWS)
    kept = rng.choice(rows[:10], 30)
    return SimilarSets(kind, threshold, kept, rows[10:40], np.round(rng.uniform(-1, 1, 30), 6))


def text_of(*lines: Any) -> bytes:
    return b"".join((one if isinstance(one, bytes) else json.dumps(one).encode()) + b"\n" for one in lines)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_written_is_read_again(folder: ScoresFolder, tmp_path: Path, seed: int) -> None:
    sets = [drawn_sets(kind, threshold, seed + at) for at, (kind, threshold) in enumerate(KINDS.items())]
    file = tmp_path / "sets.jsonl"
    assert write_sets(folder, sets, file) == sum(map(len, sets))
    found = read_sets(folder, file)
    assert [(one.kind, one.threshold, list(one), one.rows) for one in found] == [
        (one.kind, one.threshold, list(one), one.rows) for one in sets
    ]


def test_kinds_and_thresholds_are_kept_apart_and_older_lines_are_read(folder: ScoresFolder, tmp_path: Path) -> None:
    file = tmp_path / "sets.jsonl"
    older = {key: value for key, value in GOOD.items() if key != "threshold"}
    file.write_bytes(b"\xef\xbb\xbf" + text_of(older, b"", {**GOOD, "more": 1}, {**GOOD, "kind": "kmeans"}))
    assert [(one.kind, one.threshold, len(one)) for one in read_sets(folder, file)] == [
        ("minhash", None, 1), ("minhash", 0.8, 1), ("kmeans", 0.8, 1)
    ]  # fmt: skip
    file.write_bytes(b"\n")
    assert read_sets(folder, file) == []


WRONG = [
    (b"{", "no JSON"),
    (b"\xff", "not UTF-8"),
    (b"[" * 100_000, "no JSON"),
    (b"[1]", "no set of similar rows"),
    (b'{"kind": "exact", "kind": "exact"}', "'kind' is there twice"),
    ({"id": 7, "instruction": "Say it."}, "kind: field required"),
    ({**GOOD, "kind": "\x1b[31m"}, "kind: input should be"),
    ({**GOOD, "kept": True}, "kept: input should be a valid integer"),
    ({**GOOD, "kept": 3.0}, "kept: input should be a valid integer"),
    ({**GOOD, "kept": -1}, "kept: input should be greater"),
    ({**GOOD, "dropped": []}, "dropped: list should have at least 1 item"),
    ({**GOOD, "dropped": "45"}, "dropped: input should be a valid list"),
    ({**GOOD, "similarity": [1]}, "2 dropped rows, but 1 values"),
    ({**GOOD, "similarity": [1, float("nan")]}, "similarity.1: input should be"),
    ({**GOOD, "similarity": [1, 2]}, "similarity.1: input should be less"),
    ({**GOOD, "threshold": 0}, "threshold: input should be greater"),
    ({**GOOD, "kept": 4}, "row 4 is twice"),
    ({**GOOD, "dropped": [5, 5]}, "row 5 is twice"),
    ({**GOOD, "kept": ROWS}, f"row {ROWS}, and .* has rows 0 to {ROWS - 1}"),
    ({**GOOD, "dropped": [1, 10**30]}, "the file is of another folder"),
    ({**GOOD, "corpus": "0123"}, "of another corpus"),
    ({**GOOD, "kept": 9}, "row 5 is in the set of line 2 too"),
]


@pytest.mark.parametrize(("line", "said"), WRONG, ids=[said for _, said in WRONG])
def test_a_wrong_line_is_refused_by_file_and_line(folder: ScoresFolder, tmp_path: Path, line: Any, said: str) -> None:
    file = tmp_path / "sets.jsonl"
    first = {**GOOD, "kept": 50, "dropped": [51, 52], "corpus": corpus_of(folder)}
    file.write_bytes(text_of(first, GOOD if "line 2 too" in said else b"", line))
    with pytest.raises(InputError, match=said) as caught:
        read_sets(folder, file)
    text = str(caught.value)
    assert text.startswith(f"{file}, line 3: ") and "\x1b" not in text and "\n" not in text
    assert "donod-fast select" in text and len(text) < 500 + 2 * len(str(tmp_path))


def test_a_file_that_cannot_be_read_is_named(folder: ScoresFolder, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.jsonl"):
        with pytest.raises(InputError, match="the sets cannot be read") as caught:
            read_sets(folder, path)
        assert str(path) in str(caught.value)
