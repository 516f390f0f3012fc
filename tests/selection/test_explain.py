"""The best and the worst rows, with text that any terminal can show."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from donod_fast.data.reading import corpus_from_rows, open_corpus
from donod_fast.data.types import Record
from donod_fast.errors import CorpusError, InputError
from donod_fast.selection.explain import best_and_worst, record_text, render, shorten
from donod_fast.selection.ranking import ScoreColumns, rank


def columns_of(don: list[float]) -> ScoreColumns:
    score = torch.tensor(don, dtype=torch.float64)
    return ScoreColumns(torch.arange(len(don)), score, score.abs() + 1, score * 2)


def test_best_and_worst_carry_rank_scores_and_text() -> None:
    columns = columns_of([0.0, 5.0, math.nan, 3.0, 4.0, -1.0])
    # the table of scores may be in any order
    shuffled = torch.tensor([3, 0, 5, 1, 4, 2])
    columns = ScoreColumns(*(column[shuffled] for column in (columns.row, columns.don, columns.nod, columns.loss)))
    corpus = corpus_from_rows([{"text": f"record number {row}"} for row in range(6)])
    explained = best_and_worst(rank(columns, "don"), columns, corpus, count=2)
    assert [(one.rank, one.row, one.text) for one in explained] == [
        (1, 1, "record number 1"),
        (2, 4, "record number 4"),
        (4, 0, "record number 0"),
        (5, 5, "record number 5"),
    ]
    assert [(one.value, one.don, one.nod, one.loss) for one in explained][3] == (-1.0, -1.0, 2.0, -2.0)


def test_few_rows_are_shown_once_and_none_is_no_error() -> None:
    columns = columns_of([1.0, 2.0, 3.0])
    corpus = corpus_from_rows([{"text": "x"}] * 3)
    assert [one.row for one in best_and_worst(rank(columns, "don"), columns, corpus)] == [2, 1, 0]
    nothing = columns_of([math.nan])
    assert best_and_worst(rank(nothing), nothing, corpus) == []
    assert render([]).split() == ["rank", "row", "value", "DON", "NOD", "loss", "text"]


def test_the_table_is_aligned_and_marks_the_ranks_left_out() -> None:
    columns = columns_of([1e-5, 123.0, 7.0, -2.5])
    corpus = corpus_from_rows([{"text": "one\ntwo"}] * 4)
    lines = render(best_and_worst(rank(columns, "don"), columns, corpus, count=1)).splitlines()
    assert lines == [
        "rank  row  value   DON  NOD  loss  text",
        "   1    1    123   123  124   246  one\\ntwo",
        " ...",
        "   4    3   -2.5  -2.5  3.5    -5  one\\ntwo",
    ]


def test_a_corpus_that_lost_its_rows_is_refused() -> None:
    columns = columns_of([1.0, 2.0])
    with pytest.raises(CorpusError, match="row 1 is not in the corpus"):
        best_and_worst(rank(columns), columns, corpus_from_rows([{"text": "x"}]))


def test_bad_counts_widths_and_encodings_are_refused() -> None:
    columns, corpus = columns_of([1.0]), corpus_from_rows([{"text": "x"}])
    for bad in ({"count": 0}, {"width": 5}, {"encoding": "klingon"}):
        with pytest.raises(InputError):
            best_and_worst(rank(columns), columns, corpus, **bad)


def test_a_text_is_the_strings_of_the_record_with_roles() -> None:
    def text(data: dict[str, object]) -> str:
        return record_text(Record(0, "f", "line 1", data))

    assert text({"instruction": " add ", "input": "", "output": "3", "id": 7}) == "add / 3"
    assert text({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}) == (
        "user: Hi / assistant: Ho"
    )
    assert text({"conversations": [{"from": "human", "value": "Hi"}]}) == "human: Hi"
    assert text({"input_ids": [1, 2]}) == '{"input_ids": [1, 2]}'


def test_an_unreadable_record_says_so(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(b"{broken\n")
    record = next(open_corpus([str(tmp_path / "in.jsonl")]).records())
    assert record_text(record).startswith("(line 1: ")


def test_a_long_text_keeps_its_begin_and_its_end() -> None:
    short = shorten("begin " + "middle " * 100_000 + "end", 40)
    assert short.startswith("begin middle") and short.endswith("middle end") and " ... " in short
    assert len(short) <= 40
    assert shorten("x" * 40, 40) == "x" * 40
    assert shorten("x" * 41, 40) == "x" * 24 + " ... " + "x" * 11


def test_control_characters_cannot_reach_the_terminal() -> None:
    assert shorten("a\x1b[31m\r\n\t\u202eb\u2028\x9b", 100, "utf-8") == ("a\\x1b[31m\\r\\n\\t\\u202eb\\u2028\\x9b")
    assert shorten("\ud800", 100, "utf-8") == "\\ud800"


def test_what_the_encoding_lacks_is_escaped() -> None:
    assert shorten("é☃", 100) == "\\xe9\\u2603"
    assert shorten("é☃", 100, "latin-1") == "é\\u2603"
    assert shorten("é☃", 100, "utf-8") == "é☃"


def test_wide_characters_count_twice() -> None:
    assert shorten("漢" * 10, 20, "utf-8") == "漢" * 10
    assert shorten("漢" * 11, 20, "utf-8") == "漢" * 5 + " ... " + "漢" * 2


@settings(deadline=None, max_examples=200)
@given(st.text(st.characters(), max_size=300), st.integers(10, 50), st.sampled_from(["ascii", "utf-8", "cp1252"]))
def test_any_text_fits_its_width_and_its_encoding_on_one_line(text: str, width: int, encoding: str) -> None:
    short = shorten(text, width, encoding)
    short.encode(encoding)
    assert "".join(short.splitlines()) == short and "\x1b" not in short
    if encoding == "ascii":
        assert len(short) <= width
