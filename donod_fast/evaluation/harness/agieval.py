"""AGIEval's English multiple-choice questions (Zhong et al., arXiv 2304.06364): the raw files of version 1, and shots.

Seven sets are in the table of DONOD's paper (arXiv 2504.14810, Table 6); :mod:`.groups` names the group of each.
"""

from __future__ import annotations

import ast
import csv
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from donod_fast.errors import CorpusError, InputError, suggest
from donod_fast.evaluation.harness.texts import is_text
from donod_fast.evaluation.records import read_records, record_digest
from donod_fast.system.files import read_regular
from donod_fast.system.limits import BENCHMARK_BYTES
from donod_fast.system.wording import shown

SETS = ("lsat-ar", "lsat-lr", "logiqa-en", "lsat-rc", "sat-en", "aqua-rat", "sat-math")
"""The sets, in the order of the paper's table. The file of each is ``NAME.jsonl``."""

SHOTS_FILE = "few_shot_prompts.csv"
LETTERS = "ABCDEFG"
_PRINTED = re.compile(r"\(([A-G])\)")
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Question:
    """One question.

    Attributes:
        set_name: one of :data:`SETS`.
        index: its place in the file, from 0.
        passage: the text it is about; "" for none.
        question: the question.
        options: the options as printed, most with their letter in front: ``(A)…``.
        letters: the letter of each option.
        gold: place of the right option.
        digest: SHA-256 of the record, in hex.
    """

    set_name: str
    index: int
    passage: str
    question: str
    options: tuple[str, ...]
    letters: tuple[str, ...]
    gold: int
    digest: str

    @property
    def prompt(self) -> str:
        """The zero-shot prompt of AGIEval (its "Q: … Answer Choices: … A: Among A through E, the answer is")."""
        return (
            f"{self.passage}Q: {self.question} Answer Choices: {' '.join(self.options)}\n"
            f"A: Among A through {LETTERS[len(self.options) - 1]}, the answer is"
        )


def check_sets(names: Sequence[str]) -> tuple[str, ...]:
    """Names of sets, all of :data:`SETS` for none, in their order there.

    Raises:
        InputError: a name is unknown; the message lists all.
    """
    for name in names:
        if name not in SETS:
            raise InputError(f"unknown set {shown(name, _SHOWN)}; known are {', '.join(SETS)}{suggest(name, SETS)}")
    return tuple(name for name in SETS if name in names) if names else SETS


def read_set(folder: Path, name: str) -> list[Question]:
    """The questions of a set, in the order of its file.

    Raises:
        CorpusError: the file is missing, cannot be read, or a record lacks a field; names file, line and field.
    """
    if not folder.is_dir():
        raise CorpusError(
            f"{folder} is no folder; --problems takes the folder with AGIEval's files ({SETS[0]}.jsonl and so on)"
        )
    path = folder / f"{name}.jsonl"
    if not path.exists():
        there = [other for other in SETS if (folder / f"{other}.jsonl").exists()]
        remedy = f"name the sets that are there: --sets {','.join(there)}" if there else "is it the right folder?"
        raise CorpusError(f"{folder} has no {name}.jsonl; get it from the repository ruixiangcui/AGIEval, or {remedy}")
    return [_question(name, index, line.place, line.data, line.digest) for index, line in enumerate(read_records(path))]


def read_shots(folder: Path, name: str, number: int) -> list[Question]:
    """The first solved questions of a set in ``few_shot_prompts.csv``.

    Raises:
        CorpusError: the file is missing or damaged.
        InputError: it has fewer.
    """
    if number == 0:
        return []
    path = folder / SHOTS_FILE
    found = [
        _question(name, index, f"{path}, {name}, shot {index + 1}", record, record_digest(record))
        for index, record in enumerate(_shot_records(path, name))
    ]
    if len(found) < number:
        raise InputError(
            f"--few-shot {number}: {path} has {len(found)} solved questions of {name}; use at most so many"
        )
    return found[:number]


def _shot_records(path: Path, name: str) -> list[dict[str, Any]]:
    """The records of a set: every second row of the CSV, below its first; the others are explanations."""
    try:
        data = read_regular(path)
    except FileNotFoundError:
        raise CorpusError(f"{path} is missing; --few-shot needs it (repository ruixiangcui/AGIEval)") from None
    except OSError as error:
        raise CorpusError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(data) > BENCHMARK_BYTES:
        raise CorpusError(f"{path} has {len(data):,} bytes; is it the right file?")
    damaged = f"{path} is damaged"
    try:
        rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise CorpusError(f"{damaged} ({error}); get it again") from error
    if not rows or name not in rows[0]:
        raise CorpusError(f"{path} has no column {name}; is it the right file?")
    column = rows[0].index(name)
    records = []
    for number, row in enumerate(rows[1:], start=2):
        text = row[column] if column < len(row) else ""
        if not row or not row[0].startswith("sample") or not text:
            continue
        try:
            with warnings.catch_warnings(action="ignore"):  # of the escapes in formulas
                record = ast.literal_eval(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
            raise CorpusError(f"{damaged}: row {number}, column {name} is no record ({error}); get it again") from error
        if not isinstance(record, dict):
            raise CorpusError(f"{damaged}: row {number}, column {name} holds a {type(record).__name__}; get it again")
        records.append(record)
    return records


def _question(name: str, index: int, place: str, data: Mapping[str, Any], digest: str) -> Question:
    for field in ("question", "options", "label"):
        if field not in data:
            raise CorpusError(f"{place}: {field} is missing; is it a file of AGIEval's multiple-choice questions?")
    passage, question, options, label = (data.get(field) for field in ("passage", "question", "options", "label"))
    if not is_text(question):
        raise CorpusError(f"{place}: question is {shown(question, _SHOWN)}, not a text; correct the file")
    if passage not in (None, "") and not is_text(passage):
        raise CorpusError(f"{place}: passage is {shown(passage, _SHOWN)}, not a text; correct the file")
    if not isinstance(options, list) or not 2 <= len(options) <= len(LETTERS) or not all(map(is_text, options)):
        raise CorpusError(
            f"{place}: options are {shown(options, _SHOWN)}, not 2 to {len(LETTERS)} texts; correct the file"
        )
    letters = _letters(options)
    if not isinstance(label, str) or label not in letters:
        raise CorpusError(f"{place}: label is {shown(label, _SHOWN)}, none of {', '.join(letters)}; correct the file")
    return Question(
        name, index, str(passage or ""), str(question), tuple(options), letters, letters.index(label), digest
    )


def _letters(options: Sequence[str]) -> tuple[str, ...]:
    """The letters of options: as printed if every option prints another one of the first letters, else by place.

    Nineteen rows of LogiQA print their options in the order A, C, B, D, and their labels mean the printed letters: by
    place, the right answers of twelve would count as wrong. In other rows a letter lacks its brackets.
    """
    by_place = tuple(LETTERS[: len(options)])
    printed = [found[1] for one in options if (found := _PRINTED.match(one)) is not None]
    return tuple(printed) if sorted(printed) == list(by_place) else by_place


__all__ = ["LETTERS", "SETS", "SHOTS_FILE", "Question", "check_sets", "read_set", "read_shots"]
