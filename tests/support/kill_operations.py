"""Commands that are killed, each an :class:`Operation`: how its folder is set up, the command, and what it writes.

A new command is one entry of :data:`OPERATIONS`.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import typer
import typer.main
from eval_cases import human_eval_record, write_records
from report_blocks import read_page
from score_runs import short_rows, write_lines
from tiny_models import save_tiny
from training_cases import question_rows

from donod_fast.cli.app import app

ROWS, PART_ROWS = 10, 4

Run = Callable[..., None]
"""Runs ``donod-fast ARGUMENTS`` to its end; raises AssertionError if it fails."""


class Inputs:
    """What all operations share and none changes: corpora, a model, and scores of both.

    Args:
        place: an empty folder.
        run: runs a command of ``donod-fast``.
        address: of a Ray cluster, if there is one.
    """

    def __init__(self, place: Path, run: Run, address: str | None = None) -> None:
        place.mkdir(parents=True)
        self.address = address
        rows = short_rows(ROWS, seed=3)
        self.model = save_tiny("llama", place / "model")
        self.lines = write_lines(place / "rows.jsonl", rows)
        self.other = write_lines(place / "other.jsonl", short_rows(6, seed=5))
        self.sheet = place / "sheet.csv"
        self.sheet.write_text("question,answer\r\n" + "".join(f"what is {at},{at} red\r\n" for at in range(ROWS)))
        self.table = place / "rows.parquet"
        pq.write_table(
            pa.Table.from_pylist([{"question": f"say {at}", "answer": f"{at} blue"} for at in range(ROWS)]), self.table
        )
        self.training = write_lines(place / "train.jsonl", question_rows(8))
        self.problems = write_records(place / "problems.jsonl", [human_eval_record(at) for at in range(3)])
        self.programs = place / "programs.jsonl"
        write_lines(
            self.programs,
            [{"task_id": f"Fam/{at}", "completion": f"    return x + {at + at % 2}\n"} for at in range(3)],
        )
        self.scores = {}
        for name, data in (("lines", self.lines), ("other", self.other), ("sheet", self.sheet), ("table", self.table)):
            self.scores[name] = place / f"scores-{name}"
            run(*self.score(data, self.scores[name]))

    def score(self, data: Path, out: Path, *options: object) -> list[object]:
        """The command that scores a file."""
        fixed = ["--model", self.model, "--part-rows", PART_ROWS, "--device", "cpu", "--workers", 0, "-q"]
        if "--devices" in options:
            del fixed[4:6]
        return ["score", data, *fixed, *options, "--out", out]


Command = Callable[[Inputs, Path], list[object]]
"""The arguments of ``donod-fast``, given the folder of the trial."""

Prepare = Callable[[Inputs, Path, Run], None]
"""Fills the folder of the trial, as it is before the command."""


@dataclass(frozen=True)
class Operation:
    """A command that changes files.

    Attributes:
        name: what the table of counts calls it.
        command: see :data:`Command`. All that it writes is below the folder of the trial.
        prepare: see :data:`Prepare`.
        again: options with which the message of a refusal asks to run the command again.
        changing: names of files (patterns) that may differ between two undisturbed runs: they hold times.
        weight: its share of the kills, compared with the others.
        needs_cluster: whether it runs on a Ray cluster.
        option: an option that a release must have for it.
    """

    name: str
    command: Command
    prepare: Prepare = lambda inputs, place, run: None
    again: tuple[str, ...] = ("--overwrite",)
    changing: tuple[str, ...] = ()
    weight: float = 1.0
    needs_cluster: bool = False
    option: str = ""


def contents(place: Path) -> dict[str, bytes]:
    """Everything that a folder holds, by relative path, in a form that is equal for equal results.

    Tables become their rows; times and lengths of time are left out. Locks are left out, and hidden files are not.
    """
    return {name: canonical(file) for name, file in _files(place)}


def _files(place: Path) -> Iterator[tuple[str, Path]]:
    for folder, folders, files in os.walk(place):
        folders.sort()
        for name in sorted(files):
            if not name.endswith(".lock"):
                file = Path(folder, name)
                yield file.relative_to(place).as_posix(), file
        for name in folders:
            if not any(Path(folder, name).iterdir()):
                yield f"{Path(folder, name).relative_to(place).as_posix()}/", Path(folder, name)


_CHANGING = {"made", "created", "compacted", "_fingerprint", "seconds", "resumed_steps", "judged", "time", "generation"}
_OF_THE_WHOLE = {"sha256", "files"}
"""Checksums of what is compared here itself."""


def canonical(file: Path) -> bytes:
    """The content of one file in such a form. Raises what its reader raises if it is not whole."""
    if file.is_dir():
        return b"folder"
    content = file.read_bytes()
    if file.suffix == ".parquet":
        table = pq.read_table(io.BytesIO(content))
        stream = io.BytesIO()
        with pa.ipc.new_stream(stream, table.schema.remove_metadata()) as writer:
            writer.write_table(table.combine_chunks().replace_schema_metadata(None))
        return stream.getvalue()
    if file.suffix == ".json":
        return _lasting(content)
    if file.suffix == ".jsonl":
        assert not content or content.endswith(b"\n"), "the last line is not whole"
        return b"\n".join(map(_lasting, content.splitlines()))
    return _page(content.decode()) if file.suffix == ".html" else content


def _page(text: str) -> bytes:
    """The blocks of a report without the date, and the text around them."""
    blocks, tags = read_page(text)
    plain = {
        name: _without_times(one) if isinstance(one, dict | list) else one.tolist() for name, one in blocks.items()
    }
    return repr((plain, tags)).encode()


def _lasting(text: bytes) -> bytes:
    value = json.loads(text)
    if isinstance(value, dict):
        value = {key: one for key, one in value.items() if key not in _OF_THE_WHOLE}
    return json.dumps(_without_times(value)).encode()


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(one) for key, one in value.items() if key not in _CHANGING}
    return [_without_times(one) for one in value] if isinstance(value, list) else value


def _finished(inputs: Inputs, place: Path, run: Run) -> None:
    shutil.copytree(inputs.scores["lines"], place / "scores")


def _replaced(name: str, *arguments: object) -> Prepare:
    """Something older stands where the command writes."""

    def prepare(inputs: Inputs, place: Path, run: Run) -> None:
        run(*arguments[:1], inputs.scores["other"], *arguments[1:], "--out", place / name)

    return prepare


def _changed(inputs: Inputs, place: Path, run: Run) -> None:
    """Two files were scored; one of them has changed since."""
    for name, count in (("a.jsonl", 6), ("b.jsonl", 5)):
        write_lines(place / name, short_rows(count, seed=count))
    run(*inputs.score(place / "a.jsonl", place / "scores", place / "b.jsonl"))
    write_lines(place / "b.jsonl", short_rows(7, seed=8))


def _registered(inputs: Inputs, place: Path, run: Run) -> None:
    (place / "dataset_info.json").write_text(json.dumps({"kept": {"file_name": "kept.json"}}))


def _select(source: str, out: str, *options: object) -> Command:
    def command(inputs: Inputs, place: Path) -> list[object]:
        given = [place / one[1:] if isinstance(one, str) and one.startswith("@") else one for one in options]
        return ["select", inputs.scores[source], "--keep", 0.5, "-q", *given, "--out", place / out]

    return command


def _export(source: str, *options: object) -> Command:
    def command(inputs: Inputs, place: Path) -> list[object]:
        given = [place / one[1:] if isinstance(one, str) and one.startswith("@") else one for one in options]
        return ["export", inputs.scores[source], "-q", *given]

    return command


def _merge(*options: object) -> Command:
    def command(inputs: Inputs, place: Path) -> list[object]:
        return ["merge", inputs.scores["lines"], inputs.scores["other"], *options, "--out", place / "merged"]

    return command


def _score(*options: object) -> Command:
    return lambda inputs, place: inputs.score(inputs.lines, place / "scores", *options)


def _train(inputs: Inputs, place: Path) -> list[object]:
    quick = ("train.micro_batch=2", "train.max_steps=3", "train.learning_rate=1e-3", "train.save_steps=1")
    given: list[Any] = [part for one in quick for part in ("--set", one)]
    return ["train", "--model", inputs.model, "--data", inputs.training, *given, "-q", "--out", place / "tuned"]


def _evaluate(inputs: Inputs, place: Path) -> list[object]:
    given = ["--problems", inputs.problems, "--samples", inputs.programs, "--workers", 1]
    return ["eval", "humaneval", *given, "-q", "--out", place / "result"]


def commands() -> dict[str, set[str]]:
    """The options of each command of this release."""
    group: Any = typer.main.get_command(app)
    context = typer.Context(group)
    found = {name: group.get_command(context, name) for name in group.list_commands(context)}
    return {name: {text for one in command.params for text in one.opts} for name, command in found.items()}


_ALL: tuple[Operation, ...] = (
    Operation("score", _score(), weight=3),
    Operation("score --token-losses", _score("--token-losses"), weight=2),
    Operation("score --token-losses, added", _score("--token-losses"), _finished),
    Operation("score --signals, added", _score("--signals", "perplexity,length"), _finished, weight=2),
    Operation("score --update adamw-warm", _score("--update", "adamw-warm", "--warm-rows", 4)),
    Operation("score --overwrite", _score("--lr", 1e-3, "--overwrite"), _finished),
    Operation(
        "score --rescore-changed",
        lambda inputs, place: inputs.score(place / "a.jsonl", place / "scores", place / "b.jsonl", "--rescore-changed"),
        _changed,
        weight=2,
    ),
    Operation("score --devices", _score("--devices", "cpu,cpu"), weight=2, changing=("scores/problems.json",)),
    Operation("select → JSON Lines", _select("lines", "subset.jsonl")),
    Operation("select → gzip", _select("lines", "subset.jsonl.gz")),
    Operation("select → zstd", _select("lines", "subset.jsonl.zst")),
    Operation("select → JSON", _select("lines", "subset.json")),
    Operation("select → CSV", _select("sheet", "subset.csv")),
    Operation("select → Parquet", _select("table", "subset.parquet")),
    Operation("select --engine duckdb", _select("lines", "subset.jsonl", "--engine", "duckdb", "--method", "don")),
    Operation("select --sets", _select("lines", "subset.jsonl", "--dedupe", "exact", "--sets", "@sets.jsonl")),
    Operation("select --tokenized", _select("lines", "subset.jsonl", "--tokenized", "@tokens")),
    Operation(
        "select --dataset-info", _select("lines", "subset.json", "--dataset-info", "@dataset_info.json"), _registered
    ),
    Operation(
        "select --overwrite",
        _select("lines", "subset.jsonl", "--overwrite"),
        _replaced("subset.jsonl", "select", "--keep", 0.5, "-q"),
    ),
    Operation("export → JSON Lines", _export("lines", "--out", "@all.jsonl")),
    Operation("export → Parquet", _export("lines", "--out", "@all.parquet")),
    Operation("export → CSV", _export("sheet", "--out", "@all.csv")),
    Operation("export → dataset", _export("table", "--out", "@saved"), weight=2),
    Operation(
        "export → dataset, --overwrite",
        _export("table", "--out", "@saved", "--overwrite"),
        _replaced("saved", "export", "-q"),
        weight=2,
    ),
    Operation("export --tokenized", _export("lines", "--tokenized", "@tokens"), weight=2),
    Operation("merge", _merge()),
    Operation(
        "merge --overwrite",
        _merge("--overwrite"),
        lambda inputs, place, run: shutil.copytree(inputs.scores["table"], place / "merged"),
    ),
    Operation(
        "compact",
        lambda inputs, place: ["compact", place / "scores", "--part-rows", 100],
        _finished,
        again=(),
        weight=2,
    ),
    Operation(
        "score --shard",
        _score("--shard", "0/2"),
        option="--shard",
        changing=("scores/problems.json", "scores/task-*.json"),
    ),
    Operation("report", lambda inputs, place: ["report", inputs.scores["lines"], "-q", "--out", place / "report.html"]),
    Operation("train", _train, weight=2, again=()),
    Operation("eval", _evaluate, weight=2),
    Operation(
        "score --engine ray",
        lambda inputs, place: inputs.score(
            *(inputs.lines, place / "scores", "--engine", "ray", "--address", inputs.address, "--ray-workers", 2)
        ),
        changing=("scores/problems.json",),
        weight=0.5,
        needs_cluster=True,
    ),
)

_COMMANDS = commands()

OPERATIONS = tuple(
    one
    for one in _ALL
    if (name := one.name.split()[0]) in _COMMANDS and (not one.option or one.option in _COMMANDS[name])
)
"""The operations of this release."""


__all__ = ["OPERATIONS", "Inputs", "Operation", "canonical", "commands", "contents"]
