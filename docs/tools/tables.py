"""Markdown tables from the CSV files of ``bench/results``, so that no measured number is typed by hand.

A page holds a fenced block of the language ``table`` with YAML inside:

    csv: bench/results/head.csv
    where: {vocab: 32000}           # rows to keep: a value or a list of values for each column
    columns:                        # title of a column: a format string over the row's fields
      program: "{row}"
      time, ms: "{median_ms:,.0f}"

``mean: [field, …]`` makes one row of all rows with the same values of these fields, with the means of their numbers.
``join`` is a list of ``{csv, where, by, as}``: the fields of the joined row whose ``by`` fields are the same get the
prefix ``as`` and a space; without such a row they are empty. ``rename`` maps a field's values to other names. ``pivot:
{rows_by, columns_by, cell, title}`` takes the place of ``columns`` and makes one column for each value of a field.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

Row = dict[str, Any]

_BLOCK = re.compile(r"^```table\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
_FIELD = re.compile(r"\{([^{}:!]+)")
_KEYS = {"csv", "where", "mean", "columns", "rename", "pivot", "join"}


class TableError(Exception):
    """A table block that cannot be rendered. The message names the block's CSV file and the cause."""


def render_tables(text: str, root: Path) -> str:
    """``text`` with every table block replaced by a Markdown table; CSV paths are relative to ``root``."""
    return _BLOCK.sub(lambda match: table_of(yaml.safe_load(match[1]), root), text)


def table_of(spec: Mapping[str, Any], root: Path) -> str:
    """The Markdown table that a block describes. Raises `TableError`."""
    name = str(spec.get("csv"))
    if unknown := sorted(set(spec) - _KEYS):
        raise TableError(f"{name}: unknown keys {unknown}; known are {sorted(_KEYS)}")
    if ("columns" in spec) == ("pivot" in spec):
        raise TableError(f"{name}: give either columns or pivot")
    try:
        rows = _read(root / name)
        chosen = [row for row in rows if _matches(row, spec.get("where", {}))]
        if not chosen:
            raise TableError(f"{name}: no row matches {spec.get('where')}")
        if "mean" in spec:
            chosen = _means(chosen, spec["mean"])
        for other in spec.get("join", []):
            _join(chosen, other, root)
        for row in chosen:
            for field, names in spec.get("rename", {}).items():
                row[field] = names.get(row[field], row[field])
        if "pivot" in spec:
            return _pivot(chosen, **spec["pivot"])
        columns = spec["columns"]
        return _markdown(list(columns), [[_cell(form, row) for form in columns.values()] for row in chosen])
    except OSError as error:
        raise TableError(f"{name}: {error}") from error
    except KeyError as error:
        raise TableError(f"{name}: no column named {error}") from error


def _read(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        return [{key: _value(value) for key, value in row.items()} for row in csv.DictReader(file)]


def _value(text: str) -> int | float | str:
    if text == "nan":
        return ""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _matches(row: Row, where: Mapping[str, Any]) -> bool:
    return all(row[field] in (value if isinstance(value, list) else [value]) for field, value in where.items())


def _means(rows: Sequence[Row], by: Sequence[str]) -> list[Row]:
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[field] for field in by), []).append(row)
    return [
        {field: _mean(value, [row[field] for row in some]) for field, value in some[0].items()}
        for some in groups.values()
    ]


def _mean(first: Any, values: Sequence[Any]) -> Any:
    """The mean of numbers; of anything else the first value."""
    numbers = [value for value in values if isinstance(value, int | float)]
    return sum(numbers) / len(numbers) if len(numbers) == len(values) else first


def _join(rows: Sequence[Row], spec: Mapping[str, Any], root: Path) -> None:
    others = [row for row in _read(root / spec["csv"]) if _matches(row, spec.get("where", {}))]
    if not others:
        raise TableError(f"{spec['csv']}: no row to join matches {spec.get('where')}")
    found = {tuple(row[field] for field in spec["by"]): row for row in others}
    if len(found) < len(others):
        raise TableError(f"{spec['csv']}: several rows to join have the same {spec['by']}")
    for row in rows:
        other = found.get(tuple(row[field] for field in spec["by"]), dict.fromkeys(others[0], ""))
        row.update({f"{spec['as']} {field}": value for field, value in other.items()})


def _cell(form: str, row: Row) -> str:
    """A formatted cell; empty where one of its fields is empty in the CSV file."""
    if any(row[field] == "" for field in _FIELD.findall(form)):
        return ""
    return form.format_map(row).replace("|", "\\|")


def _pivot(rows: Sequence[Row], rows_by: str, columns_by: str, cell: str, title: str = "") -> str:
    heads = list(dict.fromkeys(str(row[columns_by]) for row in rows))
    lines: dict[str, dict[str, str]] = {}
    for row in rows:
        lines.setdefault(str(row[rows_by]), {})[str(row[columns_by])] = _cell(cell, row)
    body = [[name, *(cells.get(head, "") for head in heads)] for name, cells in lines.items()]
    return _markdown([title or rows_by, *heads], body)


def _markdown(heads: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    number = re.compile(r"[-+−]?[\d.,]+( ?[%×])?")
    right = [
        all(number.match(row[i]) or not row[i] for row in body) and any(row[i] for row in body)
        for i in range(len(heads))
    ]
    rule = ["---:" if flag else "---" for flag in right]
    return "\n".join("| " + " | ".join(line) + " |" for line in [heads, rule, *body])
