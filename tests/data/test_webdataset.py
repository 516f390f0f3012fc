"""WebDataset shards: what is a sample, what is a column, and what is refused by name."""

from __future__ import annotations

import gzip
import random
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stored_records import drawn_record, old
from table_files import archive, sample, shard

from donod_fast.data.reading import open_corpus, reopen_corpus
from donod_fast.data.shards import plan_shards
from donod_fast.data.types import Record
from donod_fast.errors import CorpusError
from donod_fast.selection.subset import subset_file

pytest.importorskip("webdataset")

TEXT = {"text": "The red house."}
BUDGET = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def read(path: str | Path) -> list[Record]:
    return list(open_corpus([str(path)]).records())


def by_library(path: Path) -> list[dict[str, bytes]]:
    """The samples as ``webdataset`` gives them."""
    import webdataset

    found = webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False)
    return [{name: value for name, value in one.items() if name[:2] != "__" or name == "__key__"} for one in found]


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_a_shard_gives_the_records_of_json_lines(tmp_path: Path, suffix: str) -> None:
    draw = random.Random(1)
    records: list[dict[str, Any]] = [drawn_record(draw) for _ in range(70)] + [
        {"text": f"Text {at}"} for at in range(70)
    ]
    draw.shuffle(records)
    path = tmp_path / f"a{suffix}"
    shard(path, records)
    corpus = open_corpus([str(path)])
    assert [record.data for record in corpus.records()] == records
    again = reopen_corpus(corpus.describe(), [list(corpus.sources[0].checkpoints)])
    for start in (0, 1, 63, 64, 65, 139):
        assert [record.data for record in again.records(start, start + 40)] == records[start : start + 40]
    runs = plan_shards(corpus, 50).tasks(range(3), 1)
    assert len(runs) == (3 if suffix == ".tar" else 1)


def test_samples_are_those_of_the_library(tmp_path: Path) -> None:
    members = [
        *(("a/x.json", b'{"n": 1}'), ("a/x.TXT", b"one"), ("a/y.json", b'{"n": 2}'), ("dir.d/x.txt", b"three")),
        *(("x.seg.json", b"[4]"), ("x.txt", b"four"), ("no_extension", b"-"), (".hidden.txt", b"-")),
        *(("__meta.x__", b"-"), ("x.2.txt", b"in x"), ("z.cls", b"7")),
    ]
    path = tmp_path / "a.tar"
    archive(path, members)
    theirs = by_library(path)
    assert [record.place for record in read(path)] == [f"sample {one['__key__']!r}" for one in theirs]
    assert [record.data for record in read(path)] == [
        {"n": 1, "text": "one"},
        {"n": 2},
        {"text": "three"},
        {"seg": [4], "text": "four", "2": "in x"},
        {"cls": {"member": "z.cls", "bytes": 1}},
    ]


def test_members_in_no_sample_are_counted_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = archive(tmp_path / "a.tar", [("README", b"-"), sample("a", TEXT), ("__meta__", b"-")])
    assert [record.data for record in read(path)] == [TEXT]
    assert "2 members are in no sample" in caplog.text and "'README'" in caplog.text


def test_media_are_columns_that_say_where_they_are(tmp_path: Path) -> None:
    from donod_fast.data.formats import read_record
    from donod_fast.data.read_rules import ReadRules
    from donod_fast.data.types import SampleError

    members = [("a.jpg", b"1234"), ("a.1.png", b"1"), sample("a", TEXT), ("a.flac", b""), ("a.npy", b"12")]
    (record,) = read(archive(tmp_path / "a.tar", members))
    assert record.data == {
        **TEXT,
        "image": [{"member": "a.jpg", "bytes": 4}, {"member": "a.1.png", "bytes": 1}],
        "audio": {"member": "a.flac", "bytes": 0},
        "npy": {"member": "a.npy", "bytes": 2},
    }
    refused = read_record(record, ReadRules()).sample
    assert isinstance(refused, SampleError) and "image holds images" in refused.detail
    reading = read_record(record, ReadRules(text_only=True))
    assert not isinstance(reading.sample, SampleError)
    assert {"image", "audio", "npy"} <= set(reading.unused)


def link(kind: bytes, target: str = "x") -> tarfile.TarInfo:
    info = tarfile.TarInfo()
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([("a.json", link(tarfile.SYMTYPE))], "is a link"),
        ([("b.json", b"{}"), ("a.json", link(tarfile.LNKTYPE, "b.json"))], "is a hard link"),
        ([("a.json", link(tarfile.FIFOTYPE))], "is a pipe"),
        ([("../a.json", b"{}")], "leads out of the archive"),
        ([("/a.json", b"{}")], "leads out of the archive"),
        ([("a.json", b"{}"), ("a.JSON", b"{}")], "two members have the extension 'json'"),
        ([("a.json", b'{"text": 1}'), ("a.txt", b"x")], "two members give the column 'text'"),
        ([("a.json", b"{")], "json: not valid JSON"),
        ([("a.txt", b"\xff")], "text: "),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_sample_that_cannot_be_read_is_a_row_with_the_reason(
    tmp_path: Path, members: list[tuple[str, Any]], words: str
) -> None:
    path = archive(tmp_path / "a.tar", [*members, sample("z", TEXT)])
    *_, broken, whole = read(path)
    assert broken.data is None and words in str(broken.problem)
    assert whole.data == TEXT


def test_large_texts_are_not_read(tmp_path: Path) -> None:
    from donod_fast.system.limits import ReadLimits

    members = [("a.txt", b"x" * 600), ("a.b.txt", b"x" * 600), sample("z", TEXT)]
    for name in ("a.tar", "a.tar.gz"):
        path = tmp_path / name
        archive(tmp_path / "a.tar", members)
        if name.endswith(".gz"):
            path.write_bytes(gzip.compress((tmp_path / "a.tar").read_bytes()))
        big, whole = open_corpus([str(old(path))], limits=ReadLimits(1000)).records()
        assert "1,200 bytes" in str(big.problem) and whole.data == TEXT


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_long_names_and_odd_characters_are_read(tmp_path: Path, form: int) -> None:
    key = "d" * 90 + "/" + "k" * 90 if form == tarfile.USTAR_FORMAT else "d" * 300 + "/" + "kø" * 300
    path = archive(tmp_path / "a.tar", [sample(key, TEXT), sample("z", {"text": "b"})], form)
    first, second = read(path)
    assert first.place == f"sample {key!r}" and first.data == TEXT and second.data == {"text": "b"}


def test_sparse_members_are_named(tmp_path: Path) -> None:
    import shutil
    import subprocess

    tar = shutil.which("tar")
    if tar is None:
        pytest.skip("there is no tar program")
    with (tmp_path / "a.txt").open("wb") as file:
        for at in range(40):  # more parts than one header holds
            file.seek(at * 1_000_000)
            file.write(b"x" * 4096)
    (tmp_path / "b.txt").write_bytes(b"whole")
    for form in ("gnu", "posix"):
        path = tmp_path / f"{form}.tar"
        options = [f"--format={form}", "-S", "-cf", str(path), "-C", str(tmp_path)]
        subprocess.run([tar, *options, "a.txt", "b.txt"], check=True)
        sparse, whole = read(old(path))
        assert "is a sparse file" in str(sparse.problem) and whole.data == {"text": "whole"}


def test_a_split_sample_is_refused_and_a_repeated_key_is_read(tmp_path: Path) -> None:
    split = [sample("a", TEXT), sample("b", TEXT), ("a.emb", b"1")]
    with pytest.raises(CorpusError, match=r"samples 0 and 2 .* apart from each other; .*--sort=name"):
        open_corpus([archive(tmp_path / "a.tar", split)])
    twice = [sample("a", TEXT), sample("b", TEXT), sample("a", {"text": "again"})]
    assert [record.data for record in read(archive(tmp_path / "b.tar", twice))] == [TEXT, TEXT, {"text": "again"}]


@BUDGET
@given(st.data())
def test_a_cut_archive_is_refused_or_whole(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("cut")
    draw = random.Random(data.draw(st.integers(0, 5)))
    records = [{"text": "x" * draw.randrange(1500)} for _ in range(4)]
    shard(folder / "a.tar", records, draw)
    content = (folder / "a.tar").read_bytes()
    cut = data.draw(st.integers(0, len(content) - 1))
    (folder / "a.tar").write_bytes(content[:cut])
    old(folder / "a.tar")
    try:
        found = read(folder / "a.tar")
    except CorpusError as error:
        assert "a.tar: the archive is cut off at byte" in str(error)
        assert content[cut:].strip(b"\0") or len(content) - cut > 20 * 512 - 1024
    else:
        assert [record.data["text"] for record in found if record.data] == [one["text"] for one in records]


@BUDGET
@given(st.integers(0, 10**6), st.binary(min_size=1, max_size=4))
def test_damaged_headers_give_one_error_or_as_many_records(
    tmp_path_factory: pytest.TempPathFactory, at: int, junk: bytes
) -> None:
    folder = tmp_path_factory.mktemp("junk")
    shard(folder / "a.tar", [{"text": "x" * 300}] * 3)
    content = bytearray((folder / "a.tar").read_bytes())
    at %= len(content) - 8
    content[at : at + len(junk)] = junk
    (folder / "a.tar").write_bytes(content)
    old(folder / "a.tar")
    try:
        corpus = open_corpus([str(folder / "a.tar")])
        assert len(list(corpus.records())) == corpus.rows
    except CorpusError as error:
        assert "a.tar: " in str(error)


def test_archives_joined_by_cat_are_refused(tmp_path: Path) -> None:
    one = Path(archive(tmp_path / "a.tar", [sample("a", TEXT)])).read_bytes()
    (tmp_path / "b.tar").write_bytes(one + one)
    with pytest.raises(CorpusError, match="content after the end mark"):
        open_corpus([str(tmp_path / "b.tar")])


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"{}" * 600)
    with pytest.raises(CorpusError, match="damaged at byte 0: no header"):
        open_corpus([str(tmp_path / "a.tar")])


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
@pytest.mark.parametrize("order", ["input", "best"])
def test_a_subset_has_the_members_byte_for_byte(tmp_path: Path, suffix: str, order: Any) -> None:
    draw = random.Random(4)
    names = []
    for number in range(2):
        records = [{"text": f"{number} {at}", "n": at} for at in range(70)]
        shard(tmp_path / f"{number}{suffix}", records, draw)
        names.append(str(tmp_path / f"{number}{suffix}"))
    corpus = open_corpus(names)
    rows = draw.sample(range(140), 9)
    out = tmp_path / "out.tar"
    subset_file(corpus, rows, out, order=order)
    wanted = sorted(rows) if order == "input" else rows
    with tarfile.open(out) as tar:
        assert tar.getnames() == [name for row in wanted for name in names_of(names, row)]
    assert blocks(out) == b"".join(blocks(Path(names[row // 70]), row % 70) for row in wanted)


def names_of(names: list[str], row: int) -> list[str]:
    key = f"part/{row % 70:06d}."
    with tarfile.open(names[row // 70]) as tar:
        return [name for name in tar.getnames() if name.startswith(key)]


def blocks(path: Path, sample: int | None = None) -> bytes:
    """The bytes of all members, or of one sample's, by the offsets that the standard library finds."""
    content = path.read_bytes()
    content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    with tarfile.open(path) as tar:
        members = [one for one in tar if sample is None or one.name.startswith(f"part/{sample:06d}.")]
    return b"".join(content[one.offset : one.offset_data + -(-one.size // 512) * 512] for one in members)
