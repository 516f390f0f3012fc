"""The losses of tokens: right for any batches, beside the same parts, complete or absent, never of other rows."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from loss_folders import assert_losses_fit, inodes, loss_bytes, losses_by_hand, mixed_rows
from score_runs import assert_one_line_error, assert_same_bits, invoke, leftovers, short_rows, write_lines
from scored_folders import committed, scored
from tiny_models import tiny_model, tiny_tokenizer

from donod_fast.criteria.registry import parse_signals
from donod_fast.data.masking import MaskSettings
from donod_fast.data.reading import corpus_from_rows, open_corpus
from donod_fast.data.types import Status
from donod_fast.engines.local import score_corpus, score_shard
from donod_fast.errors import CorpusError, InputError, StoreError
from donod_fast.scores.folder import ScoresFolder, locked
from donod_fast.scores.merging import merge
from donod_fast.scores.opening import known_files
from donod_fast.scores.token_losses import has_token_losses, read_token_losses
from donod_fast.scoring.dry_run import plan_run
from donod_fast.scoring.forward import Forward
from donod_fast.scoring.scorer import Scorer
from donod_fast.scoring.settings import UpdateSettings

ROWS = mixed_rows(30, seed=2)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "rows.jsonl", ROWS)


def parts_of(folder: Path) -> dict[str, bytes]:
    return {name: content for name, (_, content) in committed(folder).items()}


# ---- what is recorded ---------------------------------------------------------------------------------

SETTINGS: dict[str, dict[str, Any]] = {
    "packed": {"packing": "on", "token_budget": 200},
    "padded": {"packing": "off", "token_budget": 300},
    "alone": {"token_budget": 1},
    "cut": {"masks": MaskSettings(max_length=45), "token_budget": 90},
    "last turn": {"masks": MaskSettings(train_on="last"), "workspace_bytes": 1 << 20},
    "sum by sgd": {"update": UpdateSettings("sgd", reduction="sum")},
    "with criteria": {"signals": "ifd,el2n,grand", "token_budget": 150},
}


@pytest.mark.parametrize(("name", "kind"), [*((name, "llama") for name in SETTINGS), ("padded", "gemma2")])
def test_losses_are_those_of_the_model_and_average_to_the_column(name: str, kind: str, tmp_path: Path) -> None:
    options = {**SETTINGS[name]}
    options["signals"] = parse_signals(options["signals"]) if "signals" in options else ()
    scorer = Scorer(tiny_model(kind), tiny_tokenizer(), **options)
    with locked(tmp_path):
        rows = mixed_rows(24, seed=len(name))
        folder = score_corpus(corpus_from_rows(rows), scorer, tmp_path, part_rows=9, token_losses=True).folder
    found = assert_losses_fit(folder, "sum" if "sum" in name else "mean")
    assert len(found) > 10
    samples = scorer.masker.tokenize_many(list(corpus_from_rows(rows).records()))
    assert name != "cut" or any(samples[row].truncated for row in found)
    for row, losses in found.items():
        assert losses == pytest.approx(losses_by_hand(scorer, samples[row]), rel=1e-4, abs=1e-5)


def test_parts_are_the_same_bytes_with_and_without_losses(scorer: Scorer, data: Path, tmp_path: Path) -> None:
    without, within = (scored(scorer, tmp_path / name, [data], token_losses=name == "with") for name in ("w/o", "with"))
    assert parts_of(within.path) == parts_of(without.path) and loss_bytes(without.path) == {}
    assert len(loss_bytes(within.path)) == within.parts
    assert (has_token_losses(within), has_token_losses(without)) == (True, False)
    assert read_token_losses(without, [0, 1]) == {}
    assert (within.manifest["token_losses"], "token_losses" in without.manifest) == (True, False)
    assert not set(within.manifest) - set(without.manifest) - {"token_losses"}


def test_only_the_parts_that_hold_the_rows_are_read(
    scorer: Scorer, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = scored(scorer, tmp_path / "out", [data], token_losses=True)
    every = read_token_losses(folder, range(folder.rows))
    opened: list[str] = []
    real = folder.storage.open
    monkeypatch.setattr(folder.storage, "open", lambda name: opened.append(name) or real(name))
    wanted = [row for row in (1, 2, 13, 15) if row in every]
    assert read_token_losses(folder, [15, 1, 2, 13, 1]) == {row: every[row] for row in wanted}
    assert opened == ["losses-000000.parquet", "losses-000003.parquet"]
    for row in (-1, folder.rows):
        with pytest.raises(InputError, match=f"there is no row {row}: .* has {folder.rows} rows"):
            read_token_losses(folder, [0, row])


def test_a_part_without_a_scored_row_has_an_empty_file(scorer: Scorer, tmp_path: Path) -> None:
    data = write_lines(tmp_path / "rows.jsonl", [{"other": "x"}] * 5)
    folder = scored(scorer, tmp_path / "out", [data], token_losses=True)
    assert folder.parts == 2 and read_token_losses(folder, range(5)) == {} and folder.missing_parts() == []


def test_one_shard_scored_by_an_engine_of_ones_own_has_them(scorer: Scorer, data: Path, tmp_path: Path) -> None:
    folder = scored(scorer, tmp_path / "out", [data], token_losses=True)
    before = {**parts_of(folder.path), **loss_bytes(folder.path)}
    for lost in (folder.part_name(2), folder.losses.name(2), None):
        if lost is not None:
            (folder.path / lost).unlink()
        score_shard(folder.plan.shard(2), folder.corpus(), scorer, folder)
        assert {**parts_of(folder.path), **loss_bytes(folder.path)} == before


def test_an_object_store_has_them_too(scorer: Scorer, data: Path, tmp_path: Path) -> None:
    place = f"memory://losses-{tmp_path.name}/out"
    there = scored(scorer, place, [data], token_losses=True)
    assert assert_losses_fit(there) == assert_losses_fit(scored(scorer, tmp_path / "o", [data], token_losses=True))
    there.storage.remove(there.losses.name(1))
    assert ScoresFolder.open(place).missing_parts() == [1]
    assert scored(scorer, place, [data]).missing_parts() == []
    scored(scorer, place, [data], overwrite=True)
    assert there.storage.names("losses-*") == []


# ---- complete or absent -------------------------------------------------------------------------------


@pytest.mark.parametrize(("what", "lost"), [("losses", [1, 3]), ("part", [0]), ("both", [2, 7]), ("both", [*range(8)])])
def test_a_run_finishes_what_is_missing_and_leaves_the_rest(
    scorer: Scorer, data: Path, tmp_path: Path, what: str, lost: list[int]
) -> None:
    out = tmp_path / "out"
    folder = scored(scorer, out, [data], token_losses=True)
    whole = {**parts_of(out), **loss_bytes(out)}
    gone = [folder.losses.name(part) for part in lost] * (what != "part")
    gone += [folder.part_name(part) for part in lost] * (what != "losses")
    for name in gone:
        (out / name).unlink()
    assert folder.missing_parts() == lost
    assert [part for part in range(folder.parts) if not folder.is_committed(part)] == lost
    if what == "losses":
        rows = {row for part in lost for row in range(*folder.part_range(part))}
        assert not rows & read_token_losses(folder, rows).keys()
    kept = inodes(out, "part-*") if what == "losses" else {}
    progress: list[int] = []
    # Without the option: a folder that has losses keeps them.
    scored(scorer, out, [data], progress=lambda rows, tokens: progress.append(rows))
    assert {**parts_of(out), **loss_bytes(out)} == whole
    assert sum(progress) == folder.rows and kept.items() <= inodes(out).items()


def test_any_flipped_bit_is_an_error_that_names_the_file(scorer: Scorer, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    folder = scored(scorer, out, [data], token_losses=True)
    whole, parts = loss_bytes(out), inodes(out, "part-*")
    file = out / folder.losses.name(2)
    content = file.read_bytes()
    for at in range(0, len(content), 11):
        file.write_bytes(content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :])
        with pytest.raises(StoreError, match=f"{file} is damaged .*run `donod-fast score` again"):
            read_token_losses(folder, range(*folder.part_range(2)))
    assert read_token_losses(folder, range(*folder.part_range(1)))
    scored(scorer, out, [data])
    assert loss_bytes(out) == whole and inodes(out, "part-*") == parts


def test_losses_of_other_rows_are_refused_and_replaced(scorer: Scorer, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    folder = scored(scorer, out, [data], token_losses=True)
    whole, file = loss_bytes(out), folder.losses.name(1)
    rows = write_lines(tmp_path / "other.jsonl", mixed_rows(30, seed=8))
    cut = Scorer(tiny_model("llama"), tiny_tokenizer(), masks=MaskSettings(max_length=30))
    for foreign in (
        out / folder.losses.name(2),
        out / folder.part_name(1),
        scored(scorer, tmp_path / "other corpus", [rows], token_losses=True).path / file,
        scored(cut, tmp_path / "other masks", [data], token_losses=True).path / file,
    ):
        shutil.copy(foreign, out / file)
        with pytest.raises(StoreError, match=f"{out / file} .*run `donod-fast score` again"):
            read_token_losses(folder, range(*folder.part_range(1)))
        assert folder.missing_parts() == [1] and not (out / file).exists()
    scored(scorer, out, [data])
    assert loss_bytes(out) == whole


def test_losses_that_do_not_fit_the_rows_of_their_part_are_replaced(scorer: Scorer, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    folder = scored(scorer, out, [data], token_losses=True)
    whole = loss_bytes(out)
    table = folder.losses.read(0)
    assert table is not None
    for signals in ((), parse_signals("perplexity")):
        folder.losses.write_table(0, table.slice(1))  # as a faulty program would: sealed, and a row short
        scored(Scorer(tiny_model("llama"), tiny_tokenizer(), signals=signals), out, [data])
        assert loss_bytes(out) == whole


# ---- added, dropped, copied ---------------------------------------------------------------------------


def test_a_folder_that_is_scored_gets_its_losses_added(scorer: Scorer, data: Path, tmp_path: Path) -> None:
    wanted = scored(scorer, tmp_path / "wanted", [data], token_losses=True)
    folder = scored(scorer, tmp_path / "out", [data])
    before = inodes(folder.path, "part-*")
    added = scored(scorer, folder.path, [data], token_losses=True)
    assert has_token_losses(added)
    assert inodes(folder.path, "part-*") == before, "no part was written again"
    found, direct = assert_losses_fit(added), assert_losses_fit(wanted)
    assert found.keys() == direct.keys()
    for row, losses in direct.items():
        assert found[row] == pytest.approx(losses, rel=1e-6)
    assert leftovers(folder.path) == []


def test_criteria_and_losses_are_added_to_a_folder_alone_and_together(
    scorer: Scorer, data: Path, tmp_path: Path
) -> None:
    signals = parse_signals("ifd,perplexity")
    both = Scorer(tiny_model("llama"), tiny_tokenizer(), signals=signals)
    whole = scored(both, tmp_path / "whole", [data], token_losses=True)
    scored(scorer, tmp_path / "a", [data])
    seen: list[int] = []
    together = scored(both, tmp_path / "a", [data], token_losses=True, progress=lambda rows, _: seen.append(rows))
    assert sum(seen) == len(ROWS)
    scored(scorer, tmp_path / "b", [data], token_losses=True)
    kept = inodes(tmp_path / "b", "losses-*")
    later = scored(both, tmp_path / "b", [data])
    assert inodes(tmp_path / "b", "losses-*") == kept
    for found in (together, later):
        assert found.table().column_names == whole.table().column_names
        assert assert_losses_fit(found).keys() == assert_losses_fit(whole).keys()
        assert_same_bits(found.table().select(["don", "nod", "loss"]), whole.table().select(["don", "nod", "loss"]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda one: replace(one, scored=(*one.scored[:-1], False)),  # as a later release might mask
            r"row \d+ has \d+ scored tokens now .*, and had \d+ when it was scored.*--overwrite",
        ),
        (
            lambda one: replace(one, status=Status.WORKER_LOST, detail="it died"),
            r"the losses of row \d+, which was scored, cannot be added: it died",
        ),
    ],
    ids=["other mask", "lost"],
)
def test_losses_that_are_not_of_the_scored_tokens_are_not_added(
    scorer: Scorer, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any, message: str
) -> None:
    scored(scorer, tmp_path / "out", [data])
    real = scorer.masker.tokenize_many
    monkeypatch.setattr(
        scorer.masker, "tokenize_many", lambda records: [change(one) if one.scored else one for one in real(records)]
    )
    with pytest.raises(StoreError, match=message):
        scored(scorer, tmp_path / "out", [data], token_losses=True)
    assert loss_bytes(tmp_path / "out") == {}


def test_a_row_that_does_not_fit_in_memory_has_no_losses_and_gets_none(
    scorer: Scorer, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = scored(scorer, tmp_path / "plain", [data])
    real, least = Forward.launch, 30

    def short(self: Forward, batch: Any, *arguments: Any) -> Any:
        if batch.longest > least:
            raise MemoryError
        return real(self, batch, *arguments)

    monkeypatch.setattr(Forward, "launch", short)
    folder = scored(scorer, tmp_path / "out", [data], token_losses=True)
    assert folder.counts()["out_of_memory"] and assert_losses_fit(folder)
    with pytest.raises(StoreError, match=r"row \d+ was scored, but its \d+ tokens do not fit in memory now"):
        scored(scorer, plain.path, [data], token_losses=True)


def test_overwriting_drops_the_losses(scorer: Scorer, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    scored(scorer, out, [data], token_losses=True)
    folder = scored(scorer, out, [data], overwrite=True)
    assert loss_bytes(out) == {} and not has_token_losses(folder) and leftovers(out) == []
    assert_losses_fit(scored(scorer, out, [data], overwrite=True, token_losses=True))


def test_merged_folders_keep_their_losses(scorer: Scorer, tmp_path: Path) -> None:
    files = [write_lines(tmp_path / f"{at}.jsonl", ROWS[15 * at : 15 * at + 15]) for at in range(2)]
    whole = scored(scorer, tmp_path / "whole", files, token_losses=True)
    for at, file in enumerate(files):
        scored(scorer, tmp_path / str(at), [file], token_losses=True)
    merged = merge([tmp_path / "0", tmp_path / "1"], tmp_path / "out")
    assert assert_losses_fit(merged) == assert_losses_fit(whole)
    assert merged.missing_parts() == [] and leftovers(tmp_path / "out") == []


def test_of_merged_folders_one_may_lack_losses_and_a_run_adds_them(scorer: Scorer, tmp_path: Path) -> None:
    files = [write_lines(tmp_path / f"{at}.jsonl", ROWS[15 * at : 15 * at + 15]) for at in range(2)]
    whole = scored(scorer, tmp_path / "whole", files, token_losses=True)
    scored(scorer, tmp_path / "0", files[:1])
    scored(scorer, tmp_path / "1", files[1:], token_losses=True)
    done = invoke("merge", tmp_path / "0", tmp_path / "1", "--out", tmp_path / "out")
    assert done.code == 0 and "4 of 8 parts without the losses of their tokens" in done.out, done
    assert "in none of them" not in done.out
    merged = ScoresFolder.open(tmp_path / "out")
    wanted = assert_losses_fit(whole)
    assert read_token_losses(merged, range(30)) == {row: wanted[row] for row in wanted if row >= 15}
    assert merged.missing_parts() == [0, 1, 2, 3]
    assert_losses_fit(scored(scorer, tmp_path / "out", files))


def test_a_damaged_file_of_losses_is_not_merged(scorer: Scorer, tmp_path: Path) -> None:
    files = [write_lines(tmp_path / f"{at}.jsonl", ROWS[15 * at : 15 * at + 15]) for at in range(2)]
    for at, file in enumerate(files):
        folder = scored(scorer, tmp_path / str(at), [file], token_losses=True)
    file = folder.path / folder.losses.name(0)
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(StoreError, match=f"{file} is damaged"):
        merge([tmp_path / "0", tmp_path / "1"], tmp_path / "out")


def test_of_a_changed_file_alone_losses_are_computed_again(scorer: Scorer, tmp_path: Path) -> None:
    files = [write_lines(tmp_path / f"{at}.jsonl", ROWS[15 * at : 15 * at + 15]) for at in range(2)]
    folder = scored(scorer, tmp_path / "out", files, token_losses=True)
    write_lines(files[0], short_rows(21, seed=5))
    damaged = folder.path / folder.losses.name(6)
    damaged.write_bytes(damaged.read_bytes()[:-20])
    found = scored(scorer, tmp_path / "out", files, rescore_changed=True)
    wanted = scored(scorer, tmp_path / "whole", files, token_losses=True)
    assert assert_losses_fit(found) == assert_losses_fit(wanted)
    assert len(loss_bytes(tmp_path / "out")) == found.parts


# ---- the commands -------------------------------------------------------------------------------------


def test_status_says_how_many_parts_have_losses(scorer: Scorer, data: Path, tmp_path: Path) -> None:
    folder = scored(scorer, tmp_path / "out", [data], token_losses=True)
    assert "losses   of the scored tokens, in every part\n" in invoke("status", folder.path).out
    (folder.path / folder.losses.name(3)).unlink()
    text = invoke("status", folder.path).out
    assert f"in {folder.parts - 1} parts; run `donod-fast score` again to add them to the others" in text
    assert json.loads(invoke("status", folder.path, "--json").out)["token_losses"] == folder.parts - 1
    plain = scored(scorer, tmp_path / "plain", [data]).path
    assert "losses" not in invoke("status", plain).out
    assert json.loads(invoke("status", plain, "--json").out)["token_losses"] is None


def test_a_dry_run_says_how_much_more_the_folder_takes(scorer: Scorer, tmp_path: Path) -> None:
    rows = [{"question": "which", "answer": " ".join(["river", "house", "seven"] * 12)}] * 200
    corpus = corpus_from_rows(rows)
    planned = plan_run(corpus, scorer, workspace_bytes=1 << 20, part_rows=100, token_losses=True)
    with locked(tmp_path):
        folder = score_corpus(corpus, scorer, tmp_path, part_rows=100, token_losses=True).folder
    tokens = sum(len(losses) for losses in assert_losses_fit(folder).values())
    assert 4 * tokens <= planned.token_loss_bytes < 5 * tokens
    assert plan_run(corpus, scorer, workspace_bytes=1 << 20).token_loss_bytes == 0


def test_losses_are_not_added_to_a_file_that_has_changed(scorer: Scorer, data: Path, tmp_path: Path) -> None:
    """Adding losses reads the records of parts that have their scores: other bytes are not theirs."""
    folder = scored(scorer, tmp_path / "out", [data])
    times = data.stat()
    data.write_text(data.read_text(encoding="utf-8").replace("river", "rivet"), encoding="utf-8")
    os.utime(data, ns=(times.st_atime_ns, times.st_mtime_ns))
    corpus = open_corpus([str(data)], known=known_files(folder.path))
    with locked(folder.path), pytest.raises(CorpusError, match=str(data)):
        score_corpus(corpus, scorer, folder.path, part_rows=4, token_losses=True)
    assert loss_bytes(folder.path) == {}


def test_a_wrong_flag_in_a_manifest_is_named(scorer: Scorer, data: Path, tmp_path: Path) -> None:
    folder = scored(scorer, tmp_path / "out", [data], token_losses=True)
    file = folder.path / "manifest.json"
    file.write_text(file.read_text(encoding="utf-8").replace('"token_losses": true', '"token_losses": "yes"'))
    assert_one_line_error(invoke("status", folder.path), 5, "token_losses")
