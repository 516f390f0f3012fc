"""Any corpus content gives one row of scores per line, only our own errors, and the same bytes when written back."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from score_runs import invoke, tiny_scorer
from tiny_models import save_tiny

from donod_fast.data.reading import open_corpus
from donod_fast.data.types import Status
from donod_fast.engines.local import score_corpus
from donod_fast.errors import DonodError
from donod_fast.scores.folder import locked
from donod_fast.scores.rows import SCORE_COLUMNS
from donod_fast.scoring.scorer import Scorer

LONG = 1 << 20

# Lone surrogates and NUL among them: JSON can escape both
texts = st.text(st.characters(), max_size=20) | st.sampled_from(
    [
        "",
        " ",
        "\t\r",
        "\0",
        "\ud800",
        "a\udfffb",
        "\u2028",
        "🏳️‍🌈",
        "ﷺ",
        "<|assistant|>",
        "<|end|>",
        "{{ x }}",
        "{% x %}",
    ]
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 200)
    | st.sampled_from([10**30, -1, 1e308, math.nan, math.inf, 0.5])
    | texts
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3))
roles = st.sampled_from(["user", "assistant", "system", "tool", "human", "gpt", "narrator", "", None, 7])
turns = st.lists(
    st.fixed_dictionaries({"role": roles, "content": texts | values})
    | st.fixed_dictionaries({"from": roles, "value": texts | values})
    | values,
    max_size=4,
)
tokens = st.lists(st.integers(-101, 120), max_size=6)
records = (
    st.fixed_dictionaries({"question": texts, "answer": texts}, optional={"id": values})
    | st.fixed_dictionaries({"question": texts | values, "answer": values})
    | st.fixed_dictionaries({"instruction": texts, "output": texts}, optional={"input": values, "system": values})
    | st.fixed_dictionaries({"messages": turns | values}, optional={"tools": values})
    | st.fixed_dictionaries({"conversations": turns | values})
    | st.fixed_dictionaries({"prompt": texts | turns, "completion": texts | turns})
    | st.fixed_dictionaries({"text": texts | values})
    | st.fixed_dictionaries({"input_ids": tokens | values}, optional={"labels": tokens | values})
    | st.dictionaries(texts, values, max_size=3)
)


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """A line of a file: mostly a record, whole or broken, else whatever."""
    kind = draw(st.integers(0, 9))
    if kind == 9:
        return draw(st.binary(max_size=30)).replace(b"\n", b"")
    if kind == 8:
        return draw(
            st.sampled_from([b"", b" ", b"{", b"[1]", b"null", b"7", b'"x"', b"{}", b"NaN", b"[" * 5000, b"\r"])
        )
    record = draw(records)
    escaped = draw(st.booleans())
    line = json.dumps(record, ensure_ascii=escaped).encode("utf-8", errors="surrogatepass").replace(b"\n", b" ")
    return line[: draw(st.integers(0, len(line)))] if kind == 7 else line


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    return tiny_scorer(save_tiny("llama", tmp_path_factory.mktemp("model")))


def check(scorer: Scorer, content: list[bytes], ends: bytes) -> None:
    """Score the lines, compare with what is known of them, select a half, compare the bytes."""
    with tempfile.TemporaryDirectory() as place:
        data, out, subset = Path(place) / "rows.jsonl", Path(place) / "out", Path(place) / "subset.jsonl"
        data.write_bytes(b"".join(line + ends for line in content))
        # A byte order mark at the very begin is the file's, not the record's
        bare = [line.removeprefix(b"\xef\xbb\xbf") if at == 0 else line for at, line in enumerate(content)]
        wanted = [line for line in bare if line.strip()]
        if not wanted:
            with pytest.raises(DonodError, match="contains no rows"):
                open_corpus([str(data)])
            return
        with locked(out):
            outcome = score_corpus(open_corpus([str(data)]), scorer, out, part_rows=7)
        table = outcome.folder.table().to_pylist()
        assert len(table) == len(wanted) == sum(outcome.counts.values())
        for number, row in enumerate(table):
            assert row["row"] == number and row["id"]
            scored = Status(row["status"]) is Status.SCORED
            assert all(math.isfinite(row[name]) == scored for name in SCORE_COLUMNS), row
            assert bool(row["detail"]) != scored
            if scored:
                assert row["nod"] >= abs(row["don"]) * (1 - 1e-6) and row["scored_tokens"] >= 1
        done = invoke("select", out, "--keep", "0.5", "--out", subset)
        assert "Traceback" not in done.err and "internal error" not in done.err, done.err
        scored_rows = [row["row"] for row in table if row["status"] == "scored"]
        assert done.code == (0 if scored_rows else 2), done.err
        if scored_rows:
            kept = subset.read_bytes().removesuffix(b"\n").split(b"\n")
            assert len(kept) == max(1, math.floor(len(scored_rows) / 2 + 0.5))
            # each kept line is one of the scored ones, in input order and untouched
            at = iter(scored_rows)
            assert all(any(wanted[row] == line for row in at) for line in kept)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(content=st.lists(lines(), max_size=16), ends=st.sampled_from([b"\n", b"\r\n"]))
@example(content=[b"{"], ends=b"\n")
@example(content=[b"\xef\xbb\xbf" + b'{"question": "a", "answer": "b"}'] * 2, ends=b"\n")
def test_every_line_ends_as_a_row_and_comes_back_untouched(scorer: Scorer, content: list[bytes], ends: bytes) -> None:
    check(scorer, content, ends)


def huge(record: Any) -> bytes:
    return json.dumps(record, ensure_ascii=False).encode()


def test_huge_fields_cost_nobody_else_a_row(scorer: Scorer) -> None:
    ordinary = b'{"question": "one and one", "answer": "two"}'
    content = [
        ordinary,
        huge({"question": "x" * LONG, "answer": "y"}),
        huge({"question": "x", "answer": "y" * (LONG // 8)}),
        huge({"question": "x", "answer": "ü" * (LONG // 8), "id": "z" * LONG}),
        huge({"messages": [{"role": "user", "content": "x"}] * 3000}),
        huge({"z" * LONG: 1}),
        huge({"question": "x", "answer": "y", "extra": ["z"] * LONG}),
        b'{"question": "' + b"x" * LONG,
        b"[" * LONG,
        ordinary,
    ]
    check(scorer, content, b"\n")
