"""Every kind of input end to end: equal scores, a run that breaks off and resumes, and a subset in its own kind."""

from __future__ import annotations

import datetime
import errno
import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from score_runs import assert_one_line_error, assert_same_bits, invoke, write_lines
from table_files import lance_dataset, shard, token_files
from tiny_models import save_tiny

from donod_fast.scores.folder import ScoresFolder
from donod_fast.system import files

ROWS = [{"question": f"What is {at} + {at}?", "answer": f"{2 * at} in all"} for at in range(20)]
TOKEN_OPTIONS = ("--token-dtype", "uint16")
KINDS = ("lance", "tar", "tar.gz", "npy", "npy without metadata")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("llama", tmp_path_factory.mktemp("model"))


def made(folder: Path, kind: str) -> tuple[list[str], Path, str]:
    """(arguments that name the input, the same records in JSON Lines, the suffix of its own kind)."""
    lines = write_lines(folder / "rows.jsonl", ROWS)
    if kind == "lance":
        return [lance_dataset(folder / "rows.lance", ROWS, None, 7)], lines, ".lance"
    if kind.startswith("tar"):
        return [shard(folder / f"rows.{kind}", ROWS, random.Random(1))], lines, f".{kind}"
    draw = random.Random(2)
    documents = [[draw.randrange(4, 60) for _ in range(draw.randint(3, 12))] + [3] for _ in ROWS]
    masks = [[0, *([1] * (len(document) - 1))] for document in documents]
    records = [
        {"input_ids": ids, "labels": [token if keep else -100 for token, keep in zip(ids, mask, strict=True)]}
        for ids, mask in zip(documents, masks, strict=True)
    ]
    has = kind == "npy"
    metadata = [(f"row {at}",) for at in range(len(ROWS))] if has else None
    path = token_files(folder / "token_ids_part_0000.npy", documents, "uint16", masks=masks, lines=metadata)
    ends = [] if has else ["--document-end", "3"]
    return [path, *TOKEN_OPTIONS, *ends], write_lines(folder / "tokens.jsonl", records), ".npy"


def failing_after(calls: int) -> Callable[[int], None]:
    """``os.fsync`` that works so many times, and then tells of a full disk."""
    left = iter(range(calls))

    def fsync(file: int) -> None:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return fsync


def scores(out: Path) -> pa.Table:
    """What the rows say about the records, apart from what names them."""
    return ScoresFolder.open(out).table().drop_columns(["id"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_run_resumes_with_the_scores_of_json_lines(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    named, lines, suffix = made(tmp_path, kind)
    fixed = ["--model", model, "--device", "cpu", "--part-rows", "6"]
    assert invoke("score", lines, *fixed, "--out", tmp_path / "lines").code == 0
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", failing_after(8))
        assert_one_line_error(invoke("score", *named, *fixed, "--out", out), 5, "free some space")
    committed = {path.name: path.read_bytes() for path in out.glob("part-*.parquet")}
    assert 0 < len(committed) < 4
    done = invoke("score", *named, *fixed, "--out", out)
    assert done.code == 0, done.err
    assert {name: (out / name).read_bytes() for name in committed} == committed
    columns = [name for name in scores(out).column_names if not name.startswith("record.")]
    assert_same_bits(scores(out).select(columns), scores(tmp_path / "lines").select(columns))
    if suffix == ".npy":
        told = "metadata of 1 of 1" if kind == "npy" else "by the token 3 of 1"
        assert "label masks of 1 of 1 (labels_mask_part_0000.npy)" in done.out + done.err
        assert told in done.out + done.err
    subset = tmp_path / f"subset{suffix}"
    picked = invoke("select", out, "--keep", "0.4", "--out", subset)
    assert picked.code == 0, picked.err
    again = [str(subset), *named[1:]]
    assert invoke("score", *again, *fixed, "--out", tmp_path / "again").code == 0
    wanted = scores(tmp_path / "lines").column("don").to_pylist()
    found = scores(tmp_path / "again").column("don").to_pylist()
    assert len(found) == 8 and set(found) <= set(wanted)


def test_a_lance_version_that_vanishes_costs_no_score(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lance = pytest.importorskip("lance")
    from donod_fast.data.reading import lance_datasets

    (path,), _, _ = made(tmp_path, "lance")
    fixed = ["--model", model, "--device", "cpu", "--part-rows", "6", "--out", tmp_path / "out"]
    assert invoke("score", path, *fixed).code == 0
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    lance.write_dataset(pa.Table.from_pylist(ROWS[:5]), path, mode="append")
    resumed = invoke("score", path, *fixed)
    assert resumed.code == 0 and "reads version 1, which was scored before; the newest is 2" in caplog.text
    newest = invoke("score", path, *fixed, "--data-revision", "latest")
    assert_one_line_error(newest, 5, "--rescore-changed")
    lance.dataset(path).cleanup_old_versions(older_than=datetime.timedelta(0))
    lance_datasets._cached.cache_clear()
    told = ("version 1, which was scored, is gone", "--data-revision latest", "--rescore-changed")
    assert_one_line_error(invoke("score", path, *fixed), 3, *told)
    assert_one_line_error(invoke("select", tmp_path / "out", "--keep", "0.5", "--out", tmp_path / "a.jsonl"), 3, *told)
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == before
    assert json.loads(before["manifest.json"])["input"]["inputs"][0]["version"] == 1
    changed = invoke("score", path, *fixed, "--data-revision", "latest", "--rescore-changed")
    assert changed.code == 0 and ScoresFolder.open(tmp_path / "out").rows == 25


def test_ids_beyond_the_vocabulary_are_rows_with_a_reason(model: Path, tmp_path: Path) -> None:
    path = token_files(tmp_path / "a.npy", [[5, 6, 7, 3], [5, 60_000, 7, 3]], "uint16")
    out = tmp_path / "out"
    named = [path, *TOKEN_OPTIONS, "--document-end", "3"]
    assert invoke("score", *named, "--model", model, "--device", "cpu", "--out", out).code == 0
    found = scores(out)
    assert found.column("status").to_pylist() == ["scored", "invalid_tokens"]
    assert "60000" in found.column("detail").to_pylist()[1]
