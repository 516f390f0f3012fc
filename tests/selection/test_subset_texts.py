"""A subset of JSON, CSV and TSV files holds the records' own text."""

from __future__ import annotations

import csv
import io
import json
import random
from pathlib import Path

import pytest
from stored_records import old

from donod_fast.data.reading import open_corpus
from donod_fast.data.targets import refuse_target
from donod_fast.errors import CorpusError, InputError, StoreError
from donod_fast.selection.subset import subset_file, write_subset

# What a parser would change: NaN, digits, escapes, spaces, a key twice, numbers past 64 bits, odd exponents.
TEXTS = [
    r'{"id":1,"question":"Two?","score":NaN,"big":12345678901234567890123,"f":1.0,"e":1e5,"esc":"caf\u00e9 \/ 😀"}',
    r'{"id": 2, "f": -0.0, "e": 1E+2, "x": 0.10000000000000000555, "s": "a ] , [ \" \\"}',
    r'{"x":1e400,"f":100000000000000000000.0,"e":5e-324,"o":{}, "o":{"z":1,"a":null}}',
    "{}",
    r'{"s": "  two  \\n  spaces  \u2028", "l" : [ [ ] , { } ]}',
]


def spread(text: str, draw: random.Random) -> str:
    """The JSON text with line breaks and spaces around some of its tokens."""
    out, inside, escaped = [], False, False
    for character in text:
        if not inside and character in "{}[]:," and draw.random() < 0.4:
            character = draw.choice(["\n  ", "\r\n", " \n\t"]) + character + draw.choice(["", "\n", "\r"])
        elif character == '"' and not escaped:
            inside = not inside
        escaped = inside and character == "\\" and not escaped
        out.append(character)
    return "".join(out)


@pytest.mark.parametrize("seed", range(25))
def test_json_arrays_keep_the_text_of_each_element(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    texts = [draw.choice(TEXTS) for _ in range(draw.randint(1, 6))]
    array = spread("[", draw) + ",".join(spread(text, draw) for text in texts) + "\n]\n"
    if draw.random() < 0.5:
        array = spread('{"version": [1, {"a": 2}], "data": 3, "rows":', draw) + array + ', "rest": "]}"}'
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf" * (seed % 2) + array.encode())
    corpus = open_corpus([str(old(tmp_path / "a.json"))])
    plain = [text.replace(" ", "") for text in texts]
    records = list(corpus.records())
    assert [(record.raw or b"").decode().replace(" ", "").replace("\t", "") for record in records] == plain
    assert [repr(record.data) for record in records] == [repr(json.loads(text)) for text in texts]
    rows = draw.sample(range(len(texts)), draw.randint(1, len(texts)))
    write_subset(corpus, rows, tmp_path / "o.jsonl", order="best")
    lines = (tmp_path / "o.jsonl").read_bytes().removesuffix(b"\n").split(b"\n")
    assert lines == [records[row].raw for row in rows]
    write_subset(corpus, rows, tmp_path / "o.json")
    again = open_corpus([str(old(tmp_path / "o.json"))])
    assert [record.raw for record in again.records()] == [records[row].raw for row in sorted(rows)]


def test_the_text_of_an_element_on_one_line_is_not_changed_at_all(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" + ",\n ".join(TEXTS) + "]")
    write_subset(open_corpus([str(old(tmp_path / "a.json"))]), range(5), tmp_path / "o.jsonl")
    assert (tmp_path / "o.jsonl").read_text() == "".join(text + "\n" for text in TEXTS)


def test_of_a_wrapping_key_that_repeats_the_last_one_counts(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"rows":[{"x":1},{}],\n"rows":[{"x":2}]}')
    (record,) = open_corpus([str(old(tmp_path / "a.json"))]).records()
    assert (record.data, record.raw) == ({"x": 2}, b'{"x":2}')


def test_an_array_of_lines_holds_their_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n".join(TEXTS))
    write_subset(open_corpus([str(old(tmp_path / "a.jsonl"))]), [2, 0], tmp_path / "o.json", order="best")
    assert (tmp_path / "o.json").read_text() == f"[\n{TEXTS[2]},\n{TEXTS[0]}\n]\n"


def test_numbers_that_no_arrow_type_holds_do_not_stop_a_select(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" + ",".join(TEXTS[:3]) + "]")
    corpus = open_corpus([str(old(tmp_path / "a.json"))])
    assert subset_file(corpus, [0, 1, 2], tmp_path / "o.parquet").json_columns == ("big", "o")
    found = [record.data for record in open_corpus([str(old(tmp_path / "o.parquet"))]).records()]
    assert repr(found[0]) == repr({**json.loads(TEXTS[0]), "e": 1e5})
    assert found[2] is not None and found[2]["x"] == float("inf") and found[2]["o"] == {"z": 1, "a": None}


FIELDS = ["", "a", "two words", 'a "quoted" one', "line\nbreak", "cr\r\nlf", "é,;\t", " spaces "]


def drawn_table(draw: random.Random, kind: str, line_end: str, columns: int = 3) -> tuple[bytes, list[bytes]]:
    """A header and rows of CSV or TSV, each with its bytes, quoted in one of several ways."""

    def row(fields: list[str]) -> bytes:
        text = io.StringIO(newline="")
        quoting = draw.choice([csv.QUOTE_ALL, csv.QUOTE_MINIMAL])
        csv.writer(text, delimiter={"csv": ",", "tsv": "\t"}[kind], quoting=quoting, lineterminator=line_end).writerow(
            fields
        )
        return text.getvalue().encode()

    rows = [row([draw.choice(FIELDS) for _ in range(columns)]) for _ in range(draw.randint(2, 8))]
    return row(["question", "answer", "note"][:columns]), rows


@pytest.mark.parametrize("kind", ["csv", "tsv"])
@pytest.mark.parametrize("seed", range(10))
def test_tables_of_text_keep_header_and_rows_byte_by_byte(tmp_path: Path, seed: int, kind: str) -> None:
    draw = random.Random(seed)
    line_end = draw.choice(["\n", "\r\n"])
    header, rows = drawn_table(draw, kind, line_end)
    header = b"\xef\xbb\xbf" * (seed % 2) + header
    blank = line_end.encode() * draw.randint(0, 1)  # not a row
    content = header + blank + blank.join(rows)
    if draw.random() < 0.5:
        content = content.removesuffix(line_end.encode())
    (tmp_path / f"a.{kind}").write_bytes(content)
    corpus = open_corpus([str(old(tmp_path / f"a.{kind}"))])
    assert corpus.rows == len(rows)
    chosen = draw.sample(range(len(rows)), draw.randint(1, len(rows)))
    for order, numbers in (("input", sorted(chosen)), ("best", chosen)):
        out = tmp_path / f"{order}.{kind}"
        write_subset(corpus, chosen, out, order=order)  # type: ignore[arg-type]
        assert out.read_bytes() == header + b"".join(rows[row] for row in numbers)
    write_subset(corpus, chosen, tmp_path / "o.jsonl")  # as JSON, not as the bytes of the row
    records = list(corpus.records())
    lines = (tmp_path / "o.jsonl").read_bytes().split(b"\n")[:-1]
    assert [json.loads(line) for line in lines] == [records[row].data for row in sorted(chosen)]


def test_what_a_file_cannot_hold_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("question,answer\na,b\n")
    (tmp_path / "b.csv").write_text("answer,question\na,b\n")
    (tmp_path / "c.jsonl").write_text('{"question":"a"}\n')
    for names, out, said in (
        (["c.jsonl"], "o.csv", "only rows of .csv files go into a .csv file unchanged; end the name in .jsonl, "),
        (["a.csv", "c.jsonl"], "o.csv", "only rows of .csv files"),
        (["a.csv"], "o.tsv", "only rows of .tsv files"),
        (["a.csv", "b.csv"], "o.csv", "different headers"),
        (["a.csv"], "o.txt", "must end in .jsonl, .jsonl.gz, .jsonl.zst, .json, .parquet or .csv"),
        (["c.jsonl"], "o.txt", "must end in .jsonl, .jsonl.gz, .jsonl.zst, .json or .parquet"),
    ):
        corpus = open_corpus([str(old(tmp_path / name)) for name in names])
        with pytest.raises(InputError) as caught:
            refuse_target(tmp_path / out, False, corpus.sources)
        assert said in str(caught.value)
    (tmp_path / "there.jsonl").touch()
    with pytest.raises(StoreError, match="exists already"):
        refuse_target(tmp_path / "there.jsonl", False, corpus.sources)


def test_files_with_the_same_header_go_into_one(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfquestion,answer\r\na,b")
    (tmp_path / "b.csv").write_bytes(b"question,answer\n'c',\"d\"\n")
    corpus = open_corpus([str(old(tmp_path / name)) for name in ("a.csv", "b.csv")])
    write_subset(corpus, [0, 1], tmp_path / "o.csv")
    assert (tmp_path / "o.csv").read_bytes() == b"\xef\xbb\xbfquestion,answer\r\na,b\r\n'c',\"d\"\n"


def test_a_row_of_csv_that_cannot_be_read_is_refused_by_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("question,answer\na\n")
    with pytest.raises(CorpusError, match="line 2: cannot be read: 1 fields"):
        write_subset(open_corpus([str(old(tmp_path / "a.csv"))]), [0], tmp_path / "o.csv")
