"""Markdown tables from CSV files."""

from __future__ import annotations

from pathlib import Path

import pytest
from tables import TableError, render_tables, table_of

CSV = "program,size,ms,note\nfast|er,10,1.25,\nslow,10,30.5,late\nfast|er,20,nan,\nslow,20,1234.5,late\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "times.csv").write_text(CSV, encoding="utf-8")
    return tmp_path


def test_a_block_becomes_a_table_of_the_chosen_rows(root: Path) -> None:
    page = """Before

```table
csv: times.csv
where: {size: 10}
columns:
  program: "{program}"
  time, ms: "{ms:,.1f}"
  remark: "{note}"
```

after
"""
    assert (
        render_tables(page, root)
        == """Before

| program | time, ms | remark |
| --- | ---: | --- |
| fast\\|er | 1.2 |  |
| slow | 30.5 | late |

after
"""
    )


def test_a_cell_with_an_empty_or_nan_field_is_empty(root: Path) -> None:
    table = table_of(
        {"csv": "times.csv", "where": {"size": [20]}, "columns": {"a": "{ms:.0f} ms", "b": "{size}"}}, root
    )
    assert table.splitlines()[2:] == ["|  | 20 |", "| 1234 ms | 20 |"]


def test_a_pivot_makes_a_column_of_each_value(root: Path) -> None:
    pivot = {"rows_by": "program", "columns_by": "size", "cell": "{ms:.1f}"}
    table = table_of({"csv": "times.csv", "rename": {"program": {"fast|er": "fast"}}, "pivot": pivot}, root)
    assert table.splitlines()[0] == "| program | 10 | 20 |"
    assert table.splitlines()[2:] == ["| fast | 1.2 |  |", "| slow | 30.5 | 1234.5 |"]


def test_a_mean_makes_one_row_of_those_with_the_same_fields(root: Path) -> None:
    spec = {"csv": "times.csv", "mean": ["program"], "where": {"program": "slow"}}
    lines = table_of(spec | {"columns": {"size": "{size:.0f}", "ms": "{ms:.2f}", "note": "{note}"}}, root).splitlines()
    assert lines[2:] == ["| 15 | 632.50 | late |"]


def test_joined_rows_stand_beside_the_others(root: Path) -> None:
    join = [{"csv": "times.csv", "where": {"size": 20}, "by": ["program"], "as": "large"}]
    spec = {"csv": "times.csv", "where": {"size": 10, "program": "slow"}, "join": join, "columns": {"x": "{large ms}"}}
    assert table_of(spec, root).splitlines()[2:] == ["| 1234.5 |"]


def test_an_ambiguous_join_is_refused(root: Path) -> None:
    join = [{"csv": "times.csv", "by": ["program"], "as": "other"}]
    with pytest.raises(TableError, match="several rows"):
        table_of({"csv": "times.csv", "join": join, "columns": {"x": "{other ms}"}}, root)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"columns": {"x": "{seconds}"}}, "no column named 'seconds'"),
        ({"where": {"size": 7}}, "no row matches"),
        ({"csv": "nothing.csv"}, "nothing.csv"),
        ({"colums": {}}, "unknown keys"),
        ({"pivot": {}}, "either columns or pivot"),
    ],
)
def test_a_table_that_cannot_be_made_names_the_cause(root: Path, change: dict[str, object], cause: str) -> None:
    with pytest.raises(TableError, match=cause):
        table_of({"csv": "times.csv", "columns": {"x": "{ms}"}} | change, root)
