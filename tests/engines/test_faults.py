"""Full disks, read-only folders, damaged files, exhausted memory: one clear error, and no data is lost."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from score_runs import (
    assert_one_line_error,
    assert_same_bits,
    command,
    invoke,
    leftovers,
    short_rows,
    tiny_scorer,
    write_lines,
)
from scored_folders import part_path
from tiny_models import save_tiny

from donod_fast.data.masking import MaskSettings
from donod_fast.data.reading import open_corpus
from donod_fast.data.types import Status
from donod_fast.engines.local import manifest_of, score_corpus
from donod_fast.errors import CorpusError, DonodError, SettingsMismatchError, StoreError
from donod_fast.models.batching import Batch
from donod_fast.scores.folder import ScoresFolder, locked
from donod_fast.scoring.scorer import Scorer
from donod_fast.scoring.settings import UpdateSettings
from donod_fast.system import files

ROWS = short_rows(24, seed=3)
PART_ROWS = 8


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("llama", tmp_path_factory.mktemp("model"))


@pytest.fixture
def scorer(model: Path) -> Scorer:
    """With all rows of a test in one batch."""
    return tiny_scorer(model, token_budget=4096)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "rows.jsonl", ROWS)


def run(scorer: Scorer, data: Path, out: Path, part_rows: int = PART_ROWS, **options: Any) -> ScoresFolder:
    with locked(out):
        return score_corpus(open_corpus([str(data)]), scorer, out, part_rows=part_rows, **options).folder


# --- the disk


def failing_from(call: Callable[..., Any], number: int, code: int) -> Callable[..., Any]:
    """A function that works until its ``number``-th call, and fails with an operating-system error from there."""
    calls = iter(range(10**6))

    def wrapped(*arguments: Any, **options: Any) -> Any:
        if next(calls) >= number:
            raise OSError(code, os.strerror(code))
        return call(*arguments, **options)

    return wrapped


@pytest.mark.parametrize(
    ("code", "remedy"),
    [(errno.ENOSPC, "free some space"), (errno.EDQUOT, "quota"), (errno.EROFS, "read-only"), (errno.EIO, "error")],
)
@pytest.mark.parametrize("number", [0, 1, 2, 4, 6, 7])  # two a file: the file and its folder
def test_a_sync_error_is_reported_once_and_earlier_parts_survive(
    scorer: Scorer, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, remedy: str, number: int
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", failing_from(os.fsync, number, code))
        with pytest.raises(StoreError, match=remedy) as caught:
            run(scorer, data, out)
    assert str(caught.value).startswith(f"cannot write {out}{os.sep}")
    assert leftovers(out) == []
    committed = {path.name: path.read_bytes() for path in out.glob("part-*.parquet")}
    assert len(committed) == max(0, (number - 3) // 2)  # after plan and manifest
    table = run(scorer, data, out).table()
    assert {name: (out / name).read_bytes() for name in committed} == committed
    assert_same_bits(table, run(scorer, data, tmp_path / "undisturbed").table())


def test_a_write_error_is_reported_once_and_leaves_no_partial_file(
    scorer: Scorer, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_open = Path.open

    class FullDisk:
        def __init__(self, file: Any) -> None:
            self._file, self._left = file, 100

        def write(self, content: Any) -> int:
            self._left -= len(bytes(content))
            if self._left < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return int(self._file.write(content))

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

        def __enter__(self) -> FullDisk:
            return self

        def __exit__(self, *error: object) -> None:
            self._file.close()

    def opened(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        file = real_open(path, mode, *arguments, **options)
        return FullDisk(file) if "w" in mode and "part-000002" in path.name else file

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", opened)
        with pytest.raises(StoreError, match=r"cannot write .*part-000002.parquet: the disk is full"):
            run(scorer, data, out)
    assert leftovers(out) == []
    assert len(list(out.glob("part-*.parquet"))) == 2
    assert_same_bits(run(scorer, data, out).table(), run(scorer, data, tmp_path / "undisturbed").table())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 40 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("mounting a file system needs root on Linux")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", place], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_gives_a_one_line_error_and_the_run_resumes_later(
    model: Path, tmp_path: Path, small_disk: Path
) -> None:
    data = write_lines(tmp_path / "rows.jsonl", short_rows(64))
    out = small_disk / "out"
    options = ["score", data, "--model", model, "--part-rows", 8, "--device", "cpu", "--out"]
    done = invoke(*options, out)
    assert_one_line_error(done, 5, f"cannot write {out}", "the disk is full: free some space")
    assert leftovers(out) == []
    committed = {path.name: path.read_bytes() for path in out.glob("part-*.parquet")}
    assert 1 <= len(committed) < 8
    assert_one_line_error(invoke(*options, out), 5, "the disk is full")  # and again, still

    subprocess.run(["mount", "-o", "remount,size=1m", small_disk], check=True)
    done = invoke(*options, out)
    assert done.code == 0, done.err
    assert {name: (out / name).read_bytes() for name in committed} == committed
    assert invoke(*options, tmp_path / "undisturbed").code == 0
    undisturbed = ScoresFolder.open(tmp_path / "undisturbed").table()
    assert_same_bits(ScoresFolder.open(out).table(), undisturbed)


def test_a_file_system_that_is_really_read_only_is_one_line(model: Path, data: Path, small_disk: Path) -> None:
    options = ["score", data, "--model", model, "--part-rows", 16, "--device", "cpu", "--out"]
    assert invoke(*options, small_disk / "old").code == 0
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert_one_line_error(invoke(*options, small_disk / "new"), 5, "cannot write", "the file system is read-only")
    assert_one_line_error(invoke(*options, small_disk / "old"), 5, "cannot write", "the file system is read-only")
    out = small_disk / "subset.jsonl"
    done = invoke("select", small_disk / "old", "--keep", "0.5", "--out", out)
    assert_one_line_error(done, 5, f"cannot write {out}", "the file system is read-only")


def test_a_folder_without_permission_is_one_line() -> None:
    # In a process that is nobody's: no mode stops root. Not in tmp_path, which is closed to others.
    program = """if True:
        import os, sys, filelock
        from pathlib import Path
        from donod_fast.scores.folder import locked
        if os.geteuid() == 0:
            os.setuid(65534)
        try:
            with locked(Path(sys.argv[1])):
                pass
        except Exception as error:
            print(type(error).__name__, error)
    """
    with tempfile.TemporaryDirectory() as parent:
        Path(parent).chmod(0o555)
        out = Path(parent) / "out"
        done = subprocess.run([sys.executable, "-P", "-c", program, out], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"StoreError cannot write {out}: permission denied: choose a folder")


@pytest.mark.parametrize("below", ["", "/out"])
def test_a_file_in_the_folders_place_is_one_line(model: Path, data: Path, tmp_path: Path, below: str) -> None:
    (tmp_path / "taken").write_text("mine")
    done = invoke("score", data, "--model", model, "--device", "cpu", "--out", f"{tmp_path / 'taken'}{below}")
    assert_one_line_error(done, 5, "cannot write", "not a folder")
    assert (tmp_path / "taken").read_text() == "mine"


# --- parts and manifests


def damage_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


def damage_other(path: Path) -> None:
    path.write_text("not a Parquet file at all")


def damage_neighbour(path: Path) -> None:
    path.write_bytes(path.with_name("part-000000.parquet").read_bytes())


def damage_order(path: Path) -> None:
    table = pq.read_table(path)
    pq.write_table(table.take(list(reversed(range(table.num_rows)))), path)


def damage_columns(path: Path) -> None:
    pq.write_table(pq.read_table(path).drop_columns(["nod"]), path)


DAMAGES = [damage_cut, damage_empty, damage_other, damage_neighbour, damage_order, damage_columns]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_part_is_named_and_rescored_bit_for_bit(
    scorer: Scorer, data: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    out = tmp_path / "out"
    wanted = run(scorer, data, out).table()
    damage(out / "part-000001.parquet")
    with pytest.raises(StoreError, match=r"part-000001\.parquet .*run `donod-fast score` again"):
        ScoresFolder.open(out).table()
    kept = (out / "part-000002.parquet").stat().st_mtime_ns
    assert_same_bits(run(scorer, data, out).table(), wanted)
    assert (out / "part-000002.parquet").stat().st_mtime_ns == kept


def test_no_flipped_bit_of_a_part_changes_a_score_unseen(scorer: Scorer, data: Path, tmp_path: Path) -> None:
    folder = run(scorer, data, tmp_path / "out")
    wanted = folder.table()
    path = part_path(folder, 1)
    content = path.read_bytes()
    seen = 0
    for byte in range(3, len(content), 17):
        flipped = bytearray(content)
        flipped[byte] ^= 1 << byte % 8
        path.write_bytes(flipped)
        try:
            table = folder.table()
        except StoreError:
            seen += 1
            continue
        assert_same_bits(table, wanted)
    assert seen > 100


def test_an_unfinished_folder_and_one_without_a_manifest_say_what_to_do(
    scorer: Scorer, data: Path, tmp_path: Path
) -> None:
    folder = run(scorer, data, tmp_path / "out")
    part_path(folder, 2).unlink()
    with pytest.raises(StoreError, match=r"unfinished: 2 of 3 parts .*run `donod-fast score` again"):
        folder.table()
    (tmp_path / "out" / "manifest.json").unlink()
    with pytest.raises(StoreError, match=r"holds no manifest\.json"):
        ScoresFolder.open(tmp_path / "out")
    with pytest.raises(StoreError, match="holds parts but no manifest"):
        run(scorer, data, tmp_path / "out")
    assert run(scorer, data, tmp_path / "out", overwrite=True).table().num_rows == len(ROWS)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"version": 2}', b'{"version": 1}', b'{"version": 1, "input": 3}'],
)
def test_a_damaged_manifest_is_refused_and_overwritten_on_demand(
    scorer: Scorer, data: Path, tmp_path: Path, content: bytes
) -> None:
    out = tmp_path / "out"
    run(scorer, data, out)
    (out / "manifest.json").write_bytes(content)
    with pytest.raises(StoreError, match=r"manifest\.json|other settings"):
        run(scorer, data, out)
    with pytest.raises(DonodError):
        ScoresFolder.open(out).table()
    assert_one_line_error(invoke("select", out, "--keep", "0.5", "--out", tmp_path / "s.jsonl"), 5)
    assert len(list(out.glob("part-*.parquet"))) == 3
    assert run(scorer, data, out, overwrite=True).table().num_rows == len(ROWS)


def test_another_process_in_the_folder_is_waited_for_by_nobody(model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["score", data, "--model", model, "--device", "cpu", "--out", out]
    with locked(out):
        assert_one_line_error(command(*options), 5, f"{out} is in use: another process scores into it")
        with pytest.raises(StoreError, match="in use"), locked(out):
            pass
    assert invoke(*options).code == 0


# --- settings


OTHER_SETTINGS: dict[str, tuple[str, list[object]]] = {
    "lr": ("update.lr: 2e-05 in the folder, 0.001 requested", ["--lr", "1e-3"]),
    "update": ("update.update: 'adamw' in the folder, 'sgd' requested", ["--update", "sgd"]),
    "weight decay": ("update.weight_decay", ["--weight-decay", "0.1"]),
    "eps": ("update.eps", ["--eps", "1e-6"]),
    "reduction": ("update.reduction", ["--reduction", "sum"]),
    "storage dtype": ("update.storage_dtype", ["--storage-dtype", "bfloat16"]),
    "template": ("masks.template", ["--template", "alpaca"]),
    "format": ("masks.format", ["--format", "question_answer"]),
    "train on": ("masks.train_on", ["--train-on", "last"]),
    "columns": ("masks.columns: None in the folder", ["--columns", "prompt=question,response=answer"]),
    "preference": ("masks.preference: None in the folder, 'chosen' requested", ["--preference", "chosen"]),
    "text only": ("masks.text_only: None in the folder, True requested", ["--text-only"]),
    "max length": ("masks.max_length: 128 in the folder, 64 requested", ["--max-length", "64"]),
    "like": ("masks.like: None in the folder, 'trl-whole' requested", ["--like", "trl-whole"]),
    "dtype": ("model.dtype: 'float32' in the folder, 'bfloat16' requested", ["--dtype", "bfloat16"]),
    "part rows": ("part_rows: 8 in the folder, 9 requested", ["--part-rows", "9"]),
}


@pytest.fixture(scope="module")
def scored(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[object], Path, Path]:
    """(arguments of the command, its data, its finished folder)"""
    folder = tmp_path_factory.mktemp("scored")
    data = write_lines(folder / "rows.jsonl", ROWS)
    arguments = ["score", data, "--device", "cpu", "--part-rows", PART_ROWS, "--out", folder / "out"]
    assert invoke(*arguments, "--model", model).code == 0
    return arguments, data, folder / "out"


@pytest.mark.parametrize("name", OTHER_SETTINGS)
def test_another_setting_in_the_same_folder_is_refused_by_name(
    model: Path, scored: tuple[list[object], Path, Path], name: str
) -> None:
    arguments, _, out = scored
    told, options = OTHER_SETTINGS[name]
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    done = invoke(*arguments, "--model", model, *options)
    assert_one_line_error(done, 5, "other settings", told, "--overwrite")
    blamed = sum(" in the folder, " in line for line in done.err.splitlines())
    assert blamed <= (3 if name == "dtype" else 2)  # nothing else: a dtype shows in precision and ‖W‖, too
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize("name", [name for name in OTHER_SETTINGS if name != "dtype"])
def test_another_setting_is_refused_before_the_model_is_loaded(
    scored: tuple[list[object], Path, Path], tmp_path: Path, name: str
) -> None:
    arguments, _, _ = scored
    told, options = OTHER_SETTINGS[name]
    done = invoke(*arguments, "--model", tmp_path / "absent", *options)
    assert_one_line_error(done, 5, "other settings", told, "--overwrite")


def test_another_model_tokenizer_or_input_for_a_folder_is_refused_by_name(
    model: Path, scored: tuple[list[object], Path, Path], tmp_path: Path
) -> None:
    arguments, data, _ = scored
    other = save_tiny("llama", tmp_path / "other", seed=1)
    assert_one_line_error(invoke(*arguments, "--model", other), 5, "model.fingerprint")

    same_weights = save_tiny("llama", tmp_path / "same")
    assert invoke(*arguments, "--model", same_weights).code == 0
    tokenizer = json.loads((same_weights / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (same_weights / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert_one_line_error(invoke(*arguments, "--model", same_weights), 5, "masks.tokenizer_sha256")

    original = data.read_bytes()
    data.write_bytes(original.replace(b"answer", b"Answer", 1))
    try:
        changed = invoke(*arguments, "--model", model)
        assert_one_line_error(changed, 5, "have changed since", str(data), "--rescore-changed")
    finally:
        data.write_bytes(original)


def test_what_decides_no_number_may_differ(scorer: Scorer, data: Path, tmp_path: Path) -> None:
    folder = run(scorer, data, tmp_path / "out")
    manifest = manifest_of(open_corpus([str(data)]), scorer, PART_ROWS)
    later = {**manifest, "created": "later", "token_budget": 1, "versions": {"torch": "9"}}
    assert ScoresFolder.open_or_create(folder.path, later).manifest == folder.manifest
    # The norm of W is a sum whose last digit depends on the number of threads
    norm = manifest["model"]["weight_norm"]
    moved = {**manifest, "model": {**manifest["model"], "weight_norm": math.nextafter(norm, 1e9)}}
    ScoresFolder.open_or_create(folder.path, moved)
    with pytest.raises(SettingsMismatchError, match=r"model\.weight_norm"):
        moved["model"]["weight_norm"] = norm * (1 + 1e-8)
        ScoresFolder.open_or_create(folder.path, moved)


def test_overwrite_starts_anew_and_drops_every_old_part(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--model", model, "--device", "cpu", "--out", out]
    long = write_lines(tmp_path / "long.jsonl", ROWS)
    short = write_lines(tmp_path / "short.jsonl", ROWS[:4])
    assert invoke("score", long, *options, "--part-rows", 2).code == 0
    assert invoke("score", short, *options, "--part-rows", 3, "--lr", "1e-3", "--overwrite").code == 0
    assert sorted(path.name for path in out.glob("part-*")) == ["part-000000.parquet", "part-000001.parquet"]
    assert ScoresFolder.open(out).manifest["update"]["lr"] == 1e-3
    assert ScoresFolder.open(out).table().num_rows == 4


def test_overwrite_removes_nothing_before_corpus_and_model_are_loaded(model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--device", "cpu", "--out", out, "--overwrite"]
    assert invoke("score", data, "--model", model, *options).code == 0
    wanted = ScoresFolder.open(out).table()
    assert_one_line_error(invoke("score", data, "--model", tmp_path / "no-model", *options), 4)
    assert_one_line_error(invoke("score", tmp_path / "no-data.jsonl", "--model", model, *options), 3)
    assert_one_line_error(invoke("score", data, "--model", model, *options, "--max-length", "1000"), 2)
    assert_same_bits(ScoresFolder.open(out).table(), wanted)


def test_an_input_that_changes_during_scoring_is_reported(scorer: Scorer, data: Path, tmp_path: Path) -> None:
    corpus = open_corpus([str(data)])
    write_lines(data, ROWS[:-1])
    with pytest.raises(CorpusError, match="changed"), locked(tmp_path / "out"):
        score_corpus(corpus, scorer, tmp_path / "out")


# --- memory


def out_of_memory_above(scorer: Scorer, tokens: int, monkeypatch: pytest.MonkeyPatch, error: Exception) -> list[int]:
    """Let the scorer's decoder fail on batches of more tokens; returns the sizes that it was asked for."""
    run, sizes = scorer.trunk.run, []

    def limited(input_ids: torch.Tensor, **options: Any) -> Any:
        sizes.append(input_ids.numel())
        if input_ids.numel() > tokens:
            raise error
        return run(input_ids=input_ids, **options)

    monkeypatch.setattr(scorer.trunk, "run", limited)
    return sizes


MEMORY_ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("MPS backend out of memory (MPS allocated: 1.00 GB)"),
]


@pytest.mark.parametrize("error", MEMORY_ERRORS, ids=lambda error: str(error)[:20] or "MemoryError")
def test_out_of_memory_halves_the_batch_and_goes_on(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    wanted = scorer.score_table(ROWS)
    sizes = out_of_memory_above(scorer, 300, monkeypatch, error)
    seen: list[tuple[int, int]] = []
    found = scorer.score_table(ROWS, progress=lambda rows, tokens: seen.append((rows, tokens)))
    failed = [size for size in sizes if size > 300]
    assert failed[0] > 1200
    assert all(after <= before / 2 for before, after in pairwise(sizes) if before > 300)
    assert sizes[: len(failed)] == failed  # each size fails once, not each batch
    assert sum(rows for rows, _ in seen) == len(ROWS)
    assert found.column("status").to_pylist() == wanted.column("status").to_pylist()
    assert_close_scores(found, wanted)


def test_batches_after_out_of_memory_equal_those_of_an_undisturbed_run(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = scorer.score_table(ROWS)
    with monkeypatch.context() as patch:
        out_of_memory_above(scorer, 200, patch, MEMORY_ERRORS[0])
        scorer.score_table(ROWS)
    assert_same_bits(scorer.score_table(ROWS), wanted)


def test_a_sample_that_never_fits_gets_a_status_and_the_others_are_scored(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = scorer.score_table(ROWS)
    run = scorer.trunk.run
    longest = max(tokens for tokens in wanted.column("tokens").to_pylist() if tokens <= 128)

    def limited(input_ids: torch.Tensor, **options: Any) -> Any:
        if input_ids.shape[1] >= longest - 1:  # the last token predicts nothing, and is not run
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(input_ids=input_ids, **options)

    monkeypatch.setattr(scorer.trunk, "run", limited)
    found = scorer.score_table(ROWS)
    lost = [
        row["row"] for row in wanted.to_pylist() if row["status"] == "scored" and min(row["tokens"], 128) >= longest
    ]
    assert lost
    for before, after in zip(wanted.to_pylist(), found.to_pylist(), strict=True):
        if before["row"] in lost:
            assert after["status"] == Status.OUT_OF_MEMORY
            assert "do not fit in memory" in after["detail"] and math.isnan(after["don"])
        else:
            assert after["status"] == before["status"]


def test_memory_that_is_short_in_the_head_mathematics_counts_too(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import donod_fast.scoring.forward

    wanted = scorer.score_table(ROWS)
    real = donod_fast.scoring.forward.don_nod

    def limited(hidden: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        if len(hidden) > 60:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(hidden, *arguments, **options)

    monkeypatch.setattr(donod_fast.scoring.forward, "don_nod", limited)
    assert_close_scores(scorer.score_table(ROWS), wanted)


@pytest.mark.parametrize("error", [RuntimeError("device-side assert triggered"), ValueError("x"), KeyError("y")])
def test_errors_that_are_no_shortage_of_memory_are_not_hidden(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    out_of_memory_above(scorer, 0, monkeypatch, error)
    with pytest.raises(type(error)):
        scorer.score_table(ROWS)


# --- the model


def test_a_nan_of_the_model_costs_its_own_row_only(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = scorer.score_table(ROWS)
    states = scorer.trunk.scored_states
    for bad in (math.nan, math.inf):

        def spoiled(batch: Batch, bad: float = bad) -> torch.Tensor:
            hidden = states(batch).clone()
            hidden[batch.cu_seqlens[1] : batch.cu_seqlens[2]] = bad
            return hidden

        with monkeypatch.context() as patch:
            patch.setattr(scorer.trunk, "scored_states", spoiled)
            found = scorer.score_table(ROWS)
        statuses = [
            (before, after)
            for before, after in zip(
                wanted.column("status").to_pylist(), found.column("status").to_pylist(), strict=True
            )
            if before != after
        ]
        assert statuses == [("scored", "non_finite")]  # all rows were one batch
        lost = found.column("status").to_pylist().index("non_finite")
        assert "NaN or infinity" in found.column("detail")[lost].as_py()
        rest = [row for row in range(len(ROWS)) if row != lost]
        assert_close_scores(found.take(rest), wanted.take(rest))


def assert_close_scores(found: Any, wanted: Any) -> None:
    """Equal to the bounds of what may depend on a sample's batch: 1e-5 of NOD, 1e-5 of the loss."""
    for a, b in zip(found.to_pylist(), wanted.to_pylist(), strict=True):
        assert a["status"] == b["status"]
        if a["status"] == "scored":
            assert abs(a["don"] - b["don"]) <= 1e-5 * b["nod"]
            assert abs(a["nod"] - b["nod"]) <= 1e-5 * b["nod"]
            assert abs(a["loss"] - b["loss"]) <= 1e-5 * b["loss"]


def test_every_field_of_the_settings_is_compared() -> None:
    told = " ".join(message for message, _ in OTHER_SETTINGS.values())
    ways = {"dataset_info": "columns", "dataset": "columns", "mapping": "columns"}  # further ways to name the columns
    for settings, section in ((UpdateSettings, "update"), (MaskSettings, "masks")):
        for field in dataclasses.fields(settings):
            if field.name.startswith("warm_"):
                continue  # of adamw-warm alone, whose folders test_warm_scoring.py compares
            if field.name == "head_precision":
                continue  # needs a larger head, which test_head_precision.py resumes
            assert f"{section}.{ways.get(field.name, field.name)}" in told
