"""Files of tokens as OLMo-core trains on them: documents, masks and metadata, and what is refused by name."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stored_records import old
from table_files import token_files

from donod_fast.data.reading import Corpus, open_corpus, reopen_corpus
from donod_fast.data.shards import plan_shards
from donod_fast.data.token_rules import TokenRules
from donod_fast.errors import CorpusError, InputError
from donod_fast.selection.subset import subset_file

END, BEGIN = 2, 1
BUDGET = settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
Documents = list[list[int]]


def drawn(draw: random.Random, count: int, largest: int = 60_000) -> tuple[Documents, list[list[int]]]:
    """Documents that end in ``END`` and have no other one, with masks."""
    documents = [[draw.randint(3, largest) for _ in range(draw.randint(0, 30))] + [END] for _ in range(count)]
    return documents, [[draw.randint(0, 1) for _ in document] for document in documents]


def records_of(documents: Documents, masks: list[list[int]] | None, lines: Any = None) -> list[dict[str, Any]]:
    """What the reader must give, from the definition: a label is its token where the mask is 1, else -100."""
    found: list[dict[str, Any]] = []
    for at, document in enumerate(documents):
        record: dict[str, Any] = {"input_ids": document}
        if masks is not None:
            record["labels"] = [token if keep else -100 for token, keep in zip(document, masks[at], strict=True)]
        if lines is not None:
            record.update({name: str(value) for name, value in zip(("id", "src", "loc"), lines[at], strict=False)})
        found.append(record)
    return found


@pytest.mark.parametrize("has_metadata", [True, False])
@pytest.mark.parametrize("has_mask", [True, False])
@pytest.mark.parametrize("dtype", ["uint16", "uint32", "uint64"])
def test_documents_are_records_of_tokens(tmp_path: Path, dtype: str, has_mask: bool, has_metadata: bool) -> None:
    documents, masks = drawn(random.Random(3), 2600)
    lines = [(f"id {at}", "a,b.jsonl", at) for at in range(len(documents))]
    path = token_files(
        tmp_path / "token_ids_part_0000.npy",
        documents,
        dtype,
        masks=masks if has_mask else None,
        lines=lines if has_metadata else None,
    )
    wanted = records_of(documents, masks if has_mask else None, lines if has_metadata else None)
    corpus = open_corpus([path], tokens=TokenRules(dtype, None if has_metadata else END))
    assert [record.data for record in corpus.records()] == wanted
    plan = plan_shards(corpus, 1000)
    assert len(plan.tasks(range(3), 1)) == 3
    again = reopen_corpus(json.loads(json.dumps(corpus.describe())), plan.checkpoints(1))
    for start in (0, 1023, 1024, 1999, 2599):
        assert [record.data for record in again.records(start, start + 30)] == wanted[start : start + 30]
    entry = corpus.describe()["inputs"][0]
    assert (entry["mask"] is not None, entry["metadata"] is not None) == (has_mask, has_metadata)


@BUDGET
@given(st.lists(st.sampled_from([BEGIN, END, 7, 70_000]), max_size=60), st.sampled_from([None, BEGIN]), st.booleans())
def test_documents_end_where_the_named_tokens_meet(
    tmp_path_factory: pytest.TempPathFactory, tokens: list[int], begin: int | None, header: bool
) -> None:
    path = tmp_path_factory.mktemp("ends") / "a.npy"
    token_files(path, [tokens], "uint32", header=header)
    wanted: Documents = [[]]
    for at, token in enumerate(tokens):
        wanted[-1].append(token)
        if token == END and at + 1 < len(tokens) and begin in (None, tokens[at + 1]):
            wanted.append([])
    rules = TokenRules(None if header else "uint32", END, begin)
    if not tokens:
        with pytest.raises(CorpusError, match="contains no rows"):
            open_corpus([str(path)], tokens=rules)
        return
    corpus = open_corpus([str(path)], tokens=rules)
    assert [record.data for record in corpus.records()] == [{"input_ids": document} for document in wanted]


def test_blocks_of_the_scan_do_not_change_the_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documents, _ = drawn(random.Random(5), 200)
    path = token_files(tmp_path / "a.npy", documents, "uint16")
    for size in (2, 6, 64, 1 << 20):
        monkeypatch.setattr("donod_fast.data.reading.token_documents.SCAN_BYTES", size)
        corpus = open_corpus([path], tokens=TokenRules("uint16", END))
        assert [(record.data or {})["input_ids"] for record in corpus.records()] == documents


def test_a_type_that_cannot_be_right_is_refused_by_name(tmp_path: Path) -> None:
    documents, masks = drawn(random.Random(7), 50)
    for right, wrong, words in (
        ("uint32", "uint16", "every second number is 0 as uint16; these are tokens of uint32"),
        ("uint64", "uint32", "every second number is 0 as uint32; these are tokens of uint64"),
        ("uint16", "uint32", "beyond any vocabulary as uint32|no whole number of tokens"),
        ("uint16", "uint8", "beyond|token"),
    ):
        path = token_files(tmp_path / "token_ids.npy", documents, right, masks=masks)
        with pytest.raises(CorpusError, match=words):
            open_corpus([path], tokens=TokenRules(wrong, END))
    with pytest.raises(CorpusError, match=r"without a header, whose type .* --token-dtype uint16"):
        open_corpus([path])
    with pytest.raises(CorpusError, match=r"no metadata \(token_ids.csv.gz\) beside it.* --document-end ID"):
        open_corpus([path], tokens=TokenRules("uint16"))
    with pytest.raises(InputError, match="--token-dtype is one of"):
        TokenRules("int3")
    with pytest.raises(InputError, match="--document-end is the number of a token"):
        TokenRules("uint16", -1)
    with pytest.raises(InputError, match="belongs to --document-end"):
        TokenRules("uint16", None, 1)


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    documents, masks = drawn(random.Random(8), 50)
    path = tmp_path / "token_ids_part_0000.npy"
    token_files(path, documents, "uint16", masks=masks, lines=[()] * 50)
    mask, metadata = tmp_path / "labels_mask_part_0000.npy", tmp_path / "token_ids_part_0000.csv.gz"
    rules = TokenRules("uint16")
    assert open_corpus([str(path)], tokens=rules).rows == 50
    with pytest.raises(CorpusError, match="a label mask, which is read with its tokens"):
        open_corpus([str(mask)], tokens=rules)
    whole = mask.read_bytes()
    mask.write_bytes(whole[:-1])
    with pytest.raises(CorpusError, match=r"labels_mask_part_0000.npy: a label mask of .* but .* has"):
        open_corpus([str(path)], tokens=rules)
    mask.write_bytes(whole)
    text = gzip.decompress(metadata.read_bytes())
    for wrong, words in (
        (text + b"5,9\n", "line 51: a document from 5 to 9, but it begins before the one before it ends"),
        (text.replace(b"0,", b"x,", 1), "line 1: not the start and end"),
        (text + b"\n", "line 51: not the start and end"),
        (text + b"%d,%d\n" % (len(whole), len(whole) + 1), "line 51: .* but the file has"),
    ):
        metadata.write_bytes(gzip.compress(wrong))
        with pytest.raises(CorpusError, match=words):
            open_corpus([str(path)], tokens=rules)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorpusError, match="no whole number of tokens"):
        open_corpus([str(path)], tokens=rules)


def test_tokens_in_no_document_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    documents, _ = drawn(random.Random(8), 5)
    path = tmp_path / "a.npy"
    token_files(path, documents, "uint16", lines=[()] * 5)
    left = sum(map(len, documents)) - len(documents[0])
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"0,%d\n" % len(documents[0])))
    corpus = open_corpus([str(path)], tokens=TokenRules("uint16"))
    assert [record.data for record in corpus.records()] == [{"input_ids": documents[0]}]
    assert f"{left:,} of " in caplog.text and "in no document" in caplog.text


def test_wrong_masks_and_long_documents_are_rows_with_reasons(tmp_path: Path) -> None:
    from donod_fast.system.limits import ReadLimits

    documents: Documents = [[3, END], [4] * 600 + [END], [5, END]]
    masks = [[1] * len(document) for document in documents]
    path = token_files(tmp_path / "token_ids.npy", documents, "uint16", masks=masks)
    (tmp_path / "labels_mask.npy").write_bytes(b"\1\7" + b"\1" * 603)
    corpus = open_corpus([path], tokens=TokenRules("uint16", END), limits=ReadLimits(1000))
    wrong, long, whole = corpus.records()
    assert "the label mask holds 7 at token 1" in str(wrong.problem)
    assert "601 tokens, 1,202 bytes" in str(long.problem)
    assert whole.data == {"input_ids": [5, END], "labels": [5, END]}


def test_a_file_beside_the_tokens_that_changes_is_noticed(tmp_path: Path) -> None:
    documents, masks = drawn(random.Random(9), 20)
    path = Path(token_files(tmp_path / "token_ids.npy", documents, "uint16", masks=masks))
    mask = old(tmp_path / "labels_mask.npy")
    corpus = open_corpus([str(path)], tokens=TokenRules("uint16", END))
    description = corpus.describe()
    assert [one.data for one in reopen_corpus(description).records()] == records_of(documents, masks)
    content = bytearray(mask.read_bytes())
    content[3] ^= 1
    mask.write_bytes(content)
    with pytest.raises(CorpusError, match=r"labels_mask.npy has changed since it was first read"):
        list(corpus.records())
    with pytest.raises(CorpusError, match="has changed"):
        reopen_corpus(description)
    mask.unlink()
    with pytest.raises(CorpusError, match="has changed"):
        reopen_corpus(description)


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("has_mask", [True, False])
@pytest.mark.parametrize("has_metadata", [True, False])
def test_a_subset_is_written_as_its_source(tmp_path: Path, header: bool, has_mask: bool, has_metadata: bool) -> None:
    draw = random.Random(11)
    names, wanted = [], []
    for number in range(2):
        documents, masks = drawn(draw, 30)
        lines = [(f"{number} {at}", "a,b") for at in range(30)] if has_metadata else None
        used = masks if has_mask else None
        path = tmp_path / f"token_ids_part_{number:04}.npy"
        names.append(token_files(path, documents, "uint16", masks=used, lines=lines, header=header))
        wanted += records_of(documents, used, lines)
    rules = TokenRules(None if header else "uint16", None if has_metadata else END)
    corpus = open_corpus([str(tmp_path / "token_ids_part_{0000..0001}.npy")], tokens=rules)
    rows = draw.sample(range(60), 9)
    for order in ("input", "best"):
        out = tmp_path / f"{order}.npy"
        subset_file(corpus, rows, out, order=order)  # type: ignore[arg-type]
        chosen = [wanted[row] for row in (sorted(rows) if order == "input" else rows)]
        assert [record.data for record in open_corpus([str(old(out))], tokens=rules).records()] == chosen
        assert (tmp_path / f"labels_mask_{order}.npy").exists() == has_mask
        assert (tmp_path / f"{order}.csv.gz").exists() == has_metadata
        loaded = np.load(out) if header else np.fromfile(out, "uint16")
        assert loaded.tolist() == [token for record in chosen for token in record["input_ids"]]
    mixed = token_files(tmp_path / "other.npy", [[3, END]], "uint32", header=header)
    both = (
        open_corpus([names[0]], tokens=rules).sources + open_corpus([mixed], tokens=TokenRules("uint32", END)).sources
    )
    with pytest.raises(InputError, match="have different types of numbers"):
        subset_file(Corpus(both), [0], tmp_path / "mixed.npy")


@BUDGET
@given(st.integers(0, 400), st.sampled_from(["tokens", "mask", "metadata"]))
def test_cut_files_are_refused_or_shorter_by_whole_documents(
    tmp_path_factory: pytest.TempPathFactory, cut: int, which: str
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    documents, masks = drawn(random.Random(cut), 12)
    path = folder / "token_ids.npy"
    token_files(path, documents, "uint16", masks=masks, lines=[()] * 12)
    name = {"tokens": "token_ids.npy", "mask": "labels_mask.npy", "metadata": "token_ids.csv.gz"}[which]
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: cut % len(content)])
    with pytest.raises(CorpusError) as caught:
        open_corpus([str(path)], tokens=TokenRules("uint16"))
    assert ".npy: " in str(caught.value) or ".csv.gz" in str(caught.value)
