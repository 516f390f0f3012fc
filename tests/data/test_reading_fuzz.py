"""Any file content gives as many records as rows, and only samples or SampleErrors."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from donod_fast.data.column_map import ColumnMap
from donod_fast.data.formats import FORMATS, MAPPED, read_record, record_id, to_sample
from donod_fast.data.read_rules import ReadRules
from donod_fast.data.reading import corpus_from_rows, open_corpus
from donod_fast.data.types import Record, SampleError, Status
from donod_fast.errors import CorpusError, InputError

BUDGET = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))

COLUMNS = (
    *("id", "input_ids", "labels", "attention_mask", "messages", "conversations", "conversation", "prompt"),
    *("completion", "response", "instruction", "input", "output", "history", "system", "tools", "question"),
    *("answer", "query", "problem", "solution", "text", "role", "from", "content", "value", "type", "name"),
    *("chosen", "rejected", "rejected_response", "context", "documents", "functions", "system_prompt", "images"),
    *("train", "masked", "loss", "loss_mask", "train_detail", "image", "audio"),
    *("tool_calls", "function_call", "function", "arguments", "weight", "loss_weight", "\ud800", "\0", ""),
)
ODD_TEXTS = (
    *(
        "",
        " ",
        "\0",
        "\ud800",
        "\udfff\ud800",
        "\u2028",
        "\ufeff",
        "{}",
        "[]",
        "null",
        '{"name": "f"}',
        "user",
    ),
    *("assistant", "human", "gpt", "function_call", "tool", "text", "x" * 100_000, "[" * 5000, "9" * 5000),
)
texts = st.sampled_from(ODD_TEXTS) | st.text(max_size=5) | st.text(st.characters(categories=["Cs", "Cc"]), max_size=3)
numbers = st.sampled_from([0, 1, -1, -100, 2**63, 0.5, float("nan"), float("inf")]) | st.integers(0, 9)
scalars = st.none() | st.booleans() | numbers | texts


def nested(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(children, max_size=3) | st.dictionaries(st.sampled_from(COLUMNS), children, max_size=4)


values = st.recursive(scalars, nested, max_leaves=12)
turns = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["user", "assistant", "tool", "system"]) | scalars,
        "from": st.sampled_from(["human", "gpt", "function_call"]) | scalars,
        "content": texts | values,
        "value": texts | values,
        "tool_calls": values,
        "weight": scalars,
        "train": scalars,
        "loss_mask": values,
    },
)
rows = st.dictionaries(st.sampled_from(COLUMNS), values | st.lists(turns, max_size=4), max_size=6)
lines = st.binary(max_size=40) | rows.map(lambda row: json.dumps(row).encode())


MAPS = (
    *(None, "prompt=instruction,response=output,system=system,history=history", "messages=messages,tools=tools"),
    *("chosen=chosen,rejected=rejected,messages=messages", "prompt=prompt,chosen=chosen,rejected=rejected"),
    *("prompt=query,context=context,response=response,documents=documents",),
)
rules = st.builds(
    ReadRules,
    columns=st.sampled_from(MAPS).map(lambda text: None if text is None else ColumnMap.parse(text)),
    preference=st.sampled_from([None, "chosen", "rejected"]),
    text_only=st.booleans(),
)


@BUDGET
@given(rows, rules)
def test_any_record_is_a_sample_or_has_a_reason_by_any_rules(row: dict[str, Any], rules: ReadRules) -> None:
    record = Record(0, "a.jsonl", "line 1", row, b"{}")
    reading = read_record(record, rules)
    assert reading.excluded >= 0 and len(reading.unused) <= 2 * len(row) + 9
    assert all(name.encode("utf-8") for name in reading.unused)
    if isinstance(reading.sample, SampleError):
        assert reading.sample.detail.startswith("a.jsonl, line 1: ") and reading.sample.detail.encode("utf-8")
    else:
        assert reading.format in (*FORMATS, MAPPED)


def check(record: Record, format: str = "auto") -> None:
    """A record becomes a sample, or a SampleError whose message can be printed and stored."""
    name = record_id(record)
    assert name and name.encode("utf-8")
    try:
        _, found = to_sample(record, format)
        assert record.data is not None and found in FORMATS
    except SampleError as error:
        assert error.detail.startswith(f"{record.file}, {record.place}: ")
        assert error.detail.encode("utf-8") and len(error.detail) < 4000
        assert (record.data is None) == (error.status == Status.NOT_PARSABLE)


def corpus_of(name: str, content: bytes) -> list[Record]:
    """The records of a file with this content; none where the file as a whole is refused."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        os.utime(path, ns=(0, 0))  # an old file: opening a new one waits for the clock's next tick
        try:
            corpus = open_corpus([str(path)])
        except CorpusError as error:
            assert name in str(error)
            return []
        records = list(corpus.records())
        assert len(records) == corpus.rows
        middle = corpus.rows // 2
        later = [(record.row, record.place, record.raw, record.problem) for record in corpus.records(middle)]
        assert later == [(record.row, record.place, record.raw, record.problem) for record in records[middle:]]
        return records


@BUDGET
@given(st.lists(lines, min_size=1, max_size=8), st.sampled_from([b"\n", b"\r\n"]), st.booleans())
def test_json_lines_give_one_record_for_each_line_that_is_not_blank(
    lines: list[bytes], line_end: bytes, bom: bool
) -> None:
    content = b"\xef\xbb\xbf" * bom + line_end.join(lines)
    assume(b"\0" not in content[:4] and content[:2] not in (b"\xff\xfe", b"\xfe\xff"))  # UTF-16 and UTF-32 are refused

    records = corpus_of("a.jsonl", content)

    plain = content.removeprefix(b"\xef\xbb\xbf")
    *ended, last = plain.split(b"\n")
    expected = [line.removesuffix(b"\r") for line in ended] + [last]
    assert [record.raw for record in records] == [line for line in expected if line.strip()]
    for record in records:
        assert (record.data is None) == (record.problem is not None)
        check(record)


@BUDGET
@given(st.sampled_from(["a.json", "a.csv", "a.tsv"]), st.lists(lines, max_size=6))
def test_any_file_is_refused_as_a_whole_or_read_row_by_row(name: str, lines: list[bytes]) -> None:
    for record in corpus_of(name, b"\n".join(lines)):
        check(record)


@BUDGET
@given(st.sampled_from(["a.jsonl.gz", "a.json.zst", "a.parquet", "a.parquet.gz"]), st.binary(max_size=200))
def test_bytes_of_another_format_are_refused_in_one_error(name: str, content: bytes) -> None:
    for record in corpus_of(name, content):
        check(record)


@BUDGET
@given(st.lists(rows | values, min_size=1, max_size=4), st.sampled_from(FORMATS))
def test_rows_of_anything_become_samples_or_sample_errors(rows: list[Any], format: str) -> None:
    try:
        corpus = corpus_from_rows(rows)
    except InputError:
        assert all(isinstance(row, str) for row in rows), "only strings have two meanings"
        return
    for record in corpus.records():
        check(record, format)


@BUDGET
@given(st.lists(turns | values, max_size=5), st.sampled_from(["messages", "conversations", "prompt"]), values)
def test_turns_of_anything_become_samples_or_sample_errors(turns: list[Any], column: str, tools: Any) -> None:
    check(Record(0, "a", "record 0", {column: turns, "completion": turns, "tools": tools}))
    check(Record(0, "a", "record 0", {column: turns, "tools": None}), "sharegpt")


@BUDGET
@given(st.integers(1, 5000), st.sampled_from(["[", '{"a":', '[{"messages":']))
def test_nesting_of_any_depth_costs_one_row_at_most(depth: int, opening: str) -> None:
    closing = "".join({"[": "]", "{": "}"}[c] for c in reversed(opening * depth) if c in "[{")
    line = f'{{"messages": {opening * depth}1{closing}}}'.encode()
    records = corpus_of("a.jsonl", line + b'\n{"text": "after"}\n')
    assert len(records) == 2 and records[1].data == {"text": "after"}
    for record in records:
        check(record)
