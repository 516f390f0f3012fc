"""Text that is not UTF-8 with line feeds gets a message that names the encoding and the remedy."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from pathlib import Path

import pytest
from stored_records import old

from donod_fast.data.reading import open_corpus
from donod_fast.errors import CorpusError

LINES = '{"question":"a","answer":"é"}\n{"question":"b","answer":"c"}\n'
FILES = {"a.jsonl": LINES, "a.json": f"[{LINES.strip().replace(chr(10), ',')}]", "a.csv": "question,answer\na,é\nb,c\n"}
ENCODINGS = {
    "utf-16": "UTF-16",
    "utf-16-le": "UTF-16LE",
    "utf-16-be": "UTF-16BE",
    "utf-32": "UTF-32",
    "utf-32-le": "UTF-32LE",
    "utf-32-be": "UTF-32BE",
}
MARK = b"\xef\xbb\xbf"


def problems(path: Path) -> list[str | None]:
    return [record.problem for record in open_corpus([str(old(path))]).records()]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("codec", ENCODINGS)
def test_wide_text_is_refused_with_the_command_that_converts_it(tmp_path: Path, name: str, codec: str) -> None:
    path = tmp_path / name
    path.write_bytes(FILES[name].encode(codec))
    with pytest.raises(CorpusError) as caught:
        problems(path)
    command = f"iconv -f {ENCODINGS[codec]} -t UTF-8 {path}"
    assert str(caught.value).startswith(f"{path}: the text is encoded in {ENCODINGS[codec]}, ")
    assert f"{command} > NEW_FILE" in str(caught.value)
    if shutil.which("iconv"):
        converted = subprocess.run(command.split(), capture_output=True, check=True).stdout
        assert converted.decode() == FILES[name]


def test_of_a_compressed_file_the_command_decompresses_it(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(LINES.encode("utf-16")))
    with pytest.raises(CorpusError, match=r"convert it: gzip -dc .*gz . iconv -f UTF-16 -t UTF-8 > NEW_FILE"):
        problems(path)


def test_big_endian_text_with_a_mark_is_recognised(tmp_path: Path) -> None:
    for mark, codec, encoding in (
        (b"\xfe\xff", "utf-16-be", "UTF-16,"),
        (b"\x00\x00\xfe\xff", "utf-32-be", "UTF-32,"),
    ):
        (tmp_path / "a.jsonl").write_bytes(mark + LINES.encode(codec))
        with pytest.raises(CorpusError, match=f"encoded in {encoding}"):
            problems(tmp_path / "a.jsonl")


def test_latin_text_is_named_with_the_command_that_converts_it(tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.csv"):
        (tmp_path / name).write_bytes(FILES[name].encode("latin-1"))
        first, second = problems(tmp_path / name)
        assert first is not None and first.startswith("not UTF-8: byte 0xe9 ") and "iconv -f LATIN1 -t UTF-8" in first
        assert second is None
    (tmp_path / "a.json").write_bytes(FILES["a.json"].encode("latin-1"))
    with pytest.raises(CorpusError, match=r"not UTF-8: byte 0xe9 .*iconv -f LATIN1 -t UTF-8"):
        problems(tmp_path / "a.json")


def test_lines_that_end_in_cr_alone_are_named(tmp_path: Path) -> None:
    said = r"carriage return \(CR\) without a line feed; convert the file: tr '\\r' '\\n'"
    (tmp_path / "a.jsonl").write_bytes(LINES.replace("\n", "\r").encode())
    (found,) = problems(tmp_path / "a.jsonl")
    assert found is not None and "(CR) without a line feed" in found
    for name, content in (("b.json", LINES), ("a.csv", FILES["a.csv"]), ("b.csv", '"q","a"\n"b","c"\n')):
        (tmp_path / name).write_bytes(content.replace("\n", "\r").encode())
        with pytest.raises(CorpusError, match=said):
            problems(tmp_path / name)
    (tmp_path / "c.csv").write_bytes(b"question,answer\na,b\rc,d\ne,f\n")
    first, second = problems(tmp_path / "c.csv")
    assert first is not None and "(CR)" in first and second is None
    (tmp_path / "c.json").write_bytes(FILES["a.json"].replace(",", ",\r").encode())  # white space in a document
    assert problems(tmp_path / "c.json") == [None, None]


def test_a_byte_order_mark_in_each_line_is_named(tmp_path: Path) -> None:
    for name, count in (("a.jsonl", 1), ("a.csv", 2)):
        lines = FILES[name].encode().splitlines(keepends=True)
        (tmp_path / name).write_bytes(b"".join(MARK + line for line in lines))
        found = problems(tmp_path / name)
        named = [problem for problem in found if problem is not None and "BOM" in problem and "sed -i" in problem]
        assert len(named) == count == sum(problem is not None for problem in found)
        if shutil.which("sed"):
            command = named[0].partition("remove it: ")[2].replace("FILE", str(tmp_path / name))
            subprocess.run(command, shell=True, check=True)
            assert (tmp_path / name).read_bytes() == MARK + FILES[name].encode()


def test_a_byte_order_mark_within_a_text_is_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('question,answer\n"a\n\ufeffb",\ufeffc\n')
    (record,) = open_corpus([str(old(tmp_path / "a.csv"))]).records()
    assert record.data == {"question": "a\n\ufeffb", "answer": "\ufeffc"}
