"""A small world of scored corpora for attacks on stored files: folders, inputs, and every consumer of them."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from flips import Reader
from score_runs import short_rows
from scored_folders import scored

from donod_fast.data.reading import open_corpus
from donod_fast.engines.local import score_corpus
from donod_fast.errors import StoreError
from donod_fast.scores.exporting import export_file
from donod_fast.scores.folder import ScoresFolder, locked
from donod_fast.scores.merging import merge
from donod_fast.scores.monitoring import folder_status
from donod_fast.scores.opening import known_files
from donod_fast.scoring.scorer import Scorer
from donod_fast.selection.comparison import compare_folder
from donod_fast.selection.rankers import RankOptions, ranked
from donod_fast.selection.subset import subset_file

ROWS = 40
PART_ROWS = 16


def rows(seed: int = 4) -> list[dict[str, Any]]:
    """Short rows, some of which cannot be scored, with an own id or none, and a nested column."""
    found: list[dict[str, Any]] = []
    for at, row in enumerate(short_rows(ROWS, seed=seed)):
        row = {**row, "notes": [{"by": f"r{at % 3}", "stars": at}], "weight": at / 7}
        if at % 2:
            row.pop("id", None)
        found.append(row)
    return found


def write_inputs(place: Path, seed: int = 4) -> dict[str, Path]:
    """The rows of a seed in each kind of file."""
    made = rows(seed)
    lines = place / "lines.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    document = place / "document.json"
    document.write_text(json.dumps(made, indent=1), encoding="utf-8")
    table = pa.Table.from_pylist([{**row, "kept": json.dumps({"row": at})} for at, row in enumerate(made)])
    plain, checked = place / "plain.parquet", place / "checked.parquet"
    pq.write_table(table, plain, compression="none", row_group_size=24)
    pq.write_table(table, checked, compression="snappy", row_group_size=24, write_page_checksum=True)
    sheet = place / "sheet.csv"
    columns = ["id", "question", "answer", "other"]
    body = "".join(",".join(str(row.get(name, "")) for name in columns) + "\r\n" for row in made)
    sheet.write_bytes(",".join(columns).encode() + b"\r\n" + body.encode())
    return {file.name: file for file in (lines, document, plain, checked, sheet)}


class World:
    """A corpus, its scores folder, and the consumers of both.

    Args:
        place: an empty folder.
        scorer: a small scorer.
        name: which of the inputs.
        seed: of the rows; worlds of different seeds have different rows, and all else alike.
    """

    def __init__(self, place: Path, scorer: Scorer, name: str, seed: int = 4) -> None:
        self.input = write_inputs(place, seed)[name]
        self.place, self.scorer, self.out = place, scorer, place / "scores"
        scored(scorer, self.out, [self.input], part_rows=PART_ROWS)
        ScoresFolder.open(self.out).note_problem(1, "a worker was lost")
        self.kept = {file.name: file.read_bytes() for file in self.files()}
        self.half = place / "half"

    def files(self) -> list[Path]:
        """The files of the scores folder."""
        return sorted(file for file in self.out.iterdir() if not file.name.startswith("."))

    def restore(self) -> None:
        """Undo what a consumer did to the folder."""
        for name, content in self.kept.items():
            if not (self.out / name).exists():
                (self.out / name).write_bytes(content)

    def readers(self) -> Mapping[str, tuple[Reader, int]]:
        """The consumers, each with a weight."""
        suffix = ".parquet" if self.input.suffix == ".parquet" else self.input.suffix
        return {
            "select": (self._select(suffix), 6),
            "select as JSON Lines": (self._select(".jsonl"), 3),
            "select at another rate": (self._select(".jsonl", lr=3e-2), 3),
            "export": (self._export(".jsonl"), 3),
            "export as a table": (self._export(".parquet"), 2),
            "rank": (self.rank, 2),
            "select by file, larger than memory": (self.select_by_file, 1),
            "merge": (self.merge, 1),
            "compare": (self.compare, 3),
            "status": (self.status, 3),
            "resume": (self.resume, 1),
        }

    def _select(self, suffix: str, lr: float | None = None) -> Callable[[], bytes]:
        def select() -> bytes:
            folder, out = ScoresFolder.open(self.out), self.place / f"subset{suffix}"
            out.unlink(missing_ok=True)
            corpus = folder.reopened()
            try:
                with ranked(folder, RankOptions(method="topsis", engine="memory", lr=lr)) as ranking:
                    subset_file(corpus, ranking.keep(0.6, None, None, False).rows, out)
                return out.read_bytes()
            finally:
                assert out.exists() or not list(self.place.glob(f".subset{suffix}*")), "something partial is left"

        return select

    def _export(self, suffix: str) -> Callable[[], bytes]:
        def export() -> bytes:
            folder, out = ScoresFolder.open(self.out), self.place / f"export{suffix}"
            out.unlink(missing_ok=True)
            export_file(folder, folder.reopened(), out)
            return out.read_bytes()

        return export

    def rank(self) -> bytes:
        """``rank``: the best and the worst rows with their texts."""
        folder = ScoresFolder.open(self.out)
        with ranked(folder, RankOptions(method="topsis", engine="memory")) as ranking:
            return repr(ranking.explain(folder.reopened(), 4, 60, "utf-8")).encode()

    def select_by_file(self) -> bytes:
        """``select --by file`` with the ranking on disk."""
        folder, out = ScoresFolder.open(self.out), self.place / "by_file.jsonl"
        out.unlink(missing_ok=True)
        corpus = folder.reopened()
        with ranked(folder, RankOptions(method="don", engine="duckdb", by="file", temp_dir=self.place)) as ranking:
            subset_file(corpus, ranking.keep(0.5, None, None, False).rows, out)
        return out.read_bytes()

    def merge(self) -> bytes:
        """``merge`` of the folder with itself."""
        shutil.rmtree(self.half, ignore_errors=True)
        with locked(self.half):
            merged = merge([self.out, self.out], self.half)
        return repr([merged.read_part(part, hashes=True) for part in range(merged.parts)]).encode()

    def compare(self) -> bytes:
        """``compare``."""
        return repr(compare_folder(ScoresFolder.open(self.out)).as_dict()).encode()

    def status(self) -> bytes:
        """``status``; a part that it names as damaged counts as an error."""
        found = asdict(folder_status(self.out, now=2e9))
        if found["damaged"]:
            raise StoreError(str(found["damaged"]))
        for changing in ("rows_per_second", "tokens_per_second", "seconds_left", "idle_seconds", "running"):
            found.pop(changing)
        return repr(found).encode()

    def resume(self) -> bytes:
        """``score`` again in a copy of the folder that lacks its second part."""
        shutil.rmtree(self.half, ignore_errors=True)
        shutil.copytree(self.out, self.half)
        for part in sorted(self.half.glob("part-*.parquet"))[1:2]:
            part.unlink()
        corpus = open_corpus([str(self.input)], known=known_files(self.half))
        with locked(self.half):
            folder = score_corpus(corpus, self.scorer, self.half, part_rows=PART_ROWS).folder
        stream = io.BytesIO()
        with pa.ipc.new_stream(stream, (table := folder.table().combine_chunks()).schema) as writer:
            writer.write_table(table)
        return stream.getvalue()


def kinds_of(worlds: Sequence[World]) -> list[str]:
    """Names of the inputs of some worlds."""
    return [world.input.name for world in worlds]
