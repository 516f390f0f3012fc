"""Files of sets of similar rows: a line of JSON for each. ``select --sets`` writes them, ``report --sets`` reads them.

A line has the kind of its set, the threshold, the kept row, the dropped rows, their similarity to it, and the corpus
that the rows are of: the beginning of the fingerprint of the inputs in the manifest.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from donod_fast.data.record_files import new_file
from donod_fast.errors import InputError
from donod_fast.selection.similar_sets import SimilarSets
from donod_fast.system.checked_json import DamagedError, parsed
from donod_fast.system.escaping import one_line
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    from donod_fast.scores.folder import ScoresFolder

_CORPUS_DIGITS = 16
_REMEDY = "write it again with `donod-fast select --sets`"
_Row = Annotated[int, Field(ge=0)]
# Cosines of 32 bits may lie a little beyond 1
_Similarity = Annotated[float, Field(ge=-1.001, le=1.001, allow_inf_nan=False)]


class _Line(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    kind: Literal["exact", "minhash", "embedding", "kcenter", "kmeans", "facility"]
    kept: _Row
    dropped: Annotated[list[_Row], Field(min_length=1)]
    similarity: list[_Similarity]
    threshold: Annotated[float, Field(gt=0, le=1)] | None = None
    corpus: str | None = None


@dataclass
class _Found:
    """Sets of one kind and threshold, as far as they have been read."""

    kept: list[int] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)
    similarity: list[float] = field(default_factory=list)
    lines: dict[int, int] = field(default_factory=dict)
    """The line of each row."""


def corpus_of(folder: ScoresFolder) -> str:
    """What the lines of a file call the corpus of a folder."""
    return str(folder.manifest["input"]["fingerprint"])[:_CORPUS_DIGITS]


def write_sets(folder: ScoresFolder, sets: Sequence[SimilarSets], out: Path, *, overwrite: bool = False) -> int:
    """Write a line for each set of rows of a folder. Returns the number of sets.

    Raises:
        InputError: the file is there, and may not be replaced.
        StoreError: it cannot be written.
    """
    written = 0
    corpus = corpus_of(folder)
    with new_file(out, overwrite=overwrite) as stream:
        for kind in sets:
            for one in kind:
                found = {
                    "kind": kind.kind,
                    "threshold": kind.threshold,
                    "kept": one.kept,
                    "dropped": one.dropped,
                    "similarity": [round(value, 6) for value in one.similarity],
                    "corpus": corpus,
                }
                stream.write(json.dumps(found).encode() + b"\n")
                written += 1
    return written


def read_sets(folder: ScoresFolder, path: Path) -> list[SimilarSets]:
    """Read such a file: the sets of each kind and threshold, by their first line. Empty lines count for nothing.

    Raises:
        InputError: the file cannot be read; a line is no set, has a row that is in another set of its kind, or is about
            rows that the folder does not have. The message names file and line.
    """
    found: dict[tuple[str, float | None], _Found] = {}
    try:
        with path.open("rb") as file:
            for number, content in enumerate(file, start=1):
                if content.strip():
                    place = f"{one_line(str(path))}, line {number}"
                    line = _parsed(content.removeprefix(b"\xef\xbb\xbf") if number == 1 else content, place)
                    _check_folder(line, folder, place)
                    _add(found.setdefault((line.kind, line.threshold), _Found()), line, number, place)
    except OSError as error:
        raise InputError(f"{one_line(str(path))}: the sets cannot be read: {error.strerror}") from error
    return [
        SimilarSets(
            kind,
            threshold,
            np.asarray(one.kept, np.int64),
            np.asarray(one.dropped, np.int64),
            np.asarray(one.similarity, np.float64),
        )
        for (kind, threshold), one in found.items()
    ]


def _parsed(content: bytes, place: str) -> _Line:
    try:
        line = _Line.model_validate(parsed(content))
    except DamagedError as error:
        raise InputError(f"{place}: no JSON: {one_line(str(error))}; {_REMEDY}") from error
    except ValidationError as error:
        raise InputError(f"{place}: no set of similar rows: {_problem(error)}; {_REMEDY}") from error
    if len(line.similarity) != len(line.dropped):
        raise InputError(
            f"{place}: {plural(len(line.dropped), 'dropped row')}, but {len(line.similarity):,} values of similarity; "
            f"{_REMEDY}"
        )
    return line


def _problem(error: ValidationError) -> str:
    """The first problem, in words."""
    first: Any = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    said = first["msg"][:1].lower() + first["msg"][1:]
    if not where or first["type"] == "missing":  # then the input is the whole line
        return f"{where}: {said}".removeprefix(": ")
    return f"{where}: {said}, got {one_line(repr(first['input']))[:60]}"


def _check_folder(line: _Line, folder: ScoresFolder, place: str) -> None:
    """Refuse the set of another folder."""
    name = one_line(folder.name)
    if line.corpus is not None and line.corpus != corpus_of(folder):
        raise InputError(
            f"{place}: the set is of another corpus ({one_line(line.corpus)[:40]}) than that of {name} "
            f"({corpus_of(folder)}): row numbers mean other records there. Give the file that "
            f"`donod-fast select {name}` wrote"
        )
    last = max(line.kept, *line.dropped)
    if last >= folder.rows:
        raise InputError(
            f"{place}: row {last}, and {name} has rows 0 to {folder.rows - 1}: the file is of another folder. Give the "
            f"one that `donod-fast select {name}` wrote"
        )


def _add(found: _Found, line: _Line, number: int, place: str) -> None:
    """Add a set whose rows are in no other set of its kind, and there once."""
    for row in (line.kept, *line.dropped):
        if row in found.lines:
            before = found.lines[row]
            where = "twice" if before == number else f"in the set of line {before} too"
            raise InputError(f"{place}: row {row} is {where}, but a row is in one set of a kind; {_REMEDY}")
        found.lines[row] = number
    found.kept += [line.kept] * len(line.dropped)
    found.dropped += line.dropped
    found.similarity += line.similarity


__all__ = ["corpus_of", "read_sets", "write_sets"]
