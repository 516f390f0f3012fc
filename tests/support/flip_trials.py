"""Flip bits and bytes of a scores folder at random places, and see what its readers do. It runs as a program.

A reader may give what it gives of the whole folder (``harmless``), or report the damage or score the part again
(``detected``). Anything else is ``changed``, a silent wrong answer, or ``failed``, an error that names nothing.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from flips import Reader, injury, outcome_of
from rotting import rows
from score_runs import invoke, write_lines
from tiny_models import save_tiny

from donod_fast.errors import StoreError
from donod_fast.scores.exporting import export_file
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scores.monitoring import folder_status
from donod_fast.scores.token_losses import read_token_losses
from donod_fast.selection.rankers import RankOptions, ranked
from donod_fast.selection.subset import subset_file

_CHANGING = ("rows_per_second", "tokens_per_second", "seconds_left", "idle_seconds", "running")
"""What ``status`` says of the time."""


class Scored:
    """A scores folder with everything that one can hold, and its readers.

    Attributes:
        replaced: files that the last ``resume`` found and wrote again.

    Args:
        place: an empty folder.
    """

    def __init__(self, place: Path) -> None:
        place.mkdir(parents=True)
        self.place, self.out, self._half = place, place / "scores", place / "half"
        data, model = write_lines(place / "lines.jsonl", rows()), save_tiny("llama", place / "model")
        warm = ("--update", "adamw-warm", "--warm-rows", 8, "--token-losses", "--signals", "perplexity")
        fixed = ("--model", model, "--device", "cpu", "--workers", 0, "--part-rows", 16, "-q")
        self.replaced: set[str] = set()
        self._score = ("score", data, *fixed, *warm, "--out")
        done = invoke(*self._score, self.out)
        assert done.code == 0, done.err
        ScoresFolder.open(self.out).note_problem(1, "a worker was lost")

    def files(self) -> dict[str, list[Path]]:
        """The files by kind; a part counts twice, for its data and for its footer."""
        found: dict[str, list[Path]] = {}
        for file in sorted(self.out.iterdir()):
            if file.name.startswith("."):
                continue
            kind = "part data" if file.match("part-*") else "token losses" if file.match("losses-*") else file.name
            found.setdefault(kind, []).append(file)
        return {**found, "part footer": found["part data"]}

    def readers(self) -> dict[str, Reader]:
        """Everything that reads the folder, by name."""
        return {"status": self._status, "select": self._select, "export": self._export, "losses": self._losses}

    def _status(self) -> bytes:
        found = asdict(folder_status(self.out, now=2e9))
        if found["damaged"]:
            raise StoreError(str(found["damaged"]))
        return repr({name: value for name, value in found.items() if name not in _CHANGING}).encode()

    def _select(self) -> bytes:
        folder, out = ScoresFolder.open(self.out), self.place / "subset.jsonl"
        out.unlink(missing_ok=True)
        with ranked(folder, RankOptions(method="topsis", engine="memory")) as ranking:
            subset_file(folder.reopened(), ranking.keep(0.6, None, None, False).rows, out)
        return out.read_bytes()

    def _export(self) -> bytes:
        folder, out = ScoresFolder.open(self.out), self.place / "export.jsonl"
        out.unlink(missing_ok=True)
        export_file(folder, folder.reopened(), out)
        return out.read_bytes()

    def _losses(self) -> bytes:
        folder = ScoresFolder.open(self.out)
        return repr(sorted(read_token_losses(folder, range(folder.rows)).items())).encode()

    def resume(self) -> bytes:
        """``score`` again in a copy that lacks its second part; all scores and losses afterwards."""
        shutil.rmtree(self._half, ignore_errors=True)
        shutil.copytree(self.out, self._half)
        for part in sorted(self._half.glob("part-*.parquet"))[1:2]:
            part.unlink()
        before = {file.name: file.read_bytes() for file in self._half.iterdir()}
        done = invoke(*self._score, self._half)
        if done.code != 0:
            if "Traceback" in done.err or "internal error" in done.err:
                raise RuntimeError(done.err)
            raise StoreError(done.err)
        after = {file.name: file.read_bytes() for file in self._half.iterdir()}
        self.replaced = {name for name, content in before.items() if after.get(name) != content}
        folder, stream = ScoresFolder.open(self._half), io.BytesIO()
        with pa.ipc.new_stream(stream, (table := folder.table().combine_chunks()).schema) as writer:
            writer.write_table(table)
        return stream.getvalue() + repr(sorted(read_token_losses(folder, range(folder.rows)).items())).encode()


def _place_in(file: Path, kind: str, draw: random.Random) -> int:
    size = file.stat().st_size
    if not kind.startswith("part"):
        return draw.randrange(size)
    footer = size - 8 - pq.ParquetFile(file).metadata.serialized_size
    return draw.randrange(footer) if kind == "part data" else draw.randrange(footer, size)


def flips(here: Scored, places: int, seed: str) -> Iterator[tuple[str, str, str, str]]:
    """(kind of file, reader, outcome, detail) of a flipped bit and a flipped byte at so many places."""
    draw = random.Random(seed)
    readers = here.readers()
    wanted = {name: reader() for name, reader in {**readers, "resume": here.resume}.items()}
    kinds = list(here.files())
    for number in range(places):
        kind = kinds[number % len(kinds)]
        file = draw.choice(here.files()[kind])
        at, bit = _place_in(file, kind, draw), 1 << draw.randrange(8)
        for flip in (bit, draw.choice([one for one in range(1, 256) if one != bit])):
            whole = file.read_bytes()
            with injury(file, whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :]):
                read = dict(readers)
                if flip == bit:
                    read["resume"] = here.resume
                for name, reader in read.items():
                    here.replaced = set()
                    outcome = outcome_of(reader, wanted[name])
                    again = name == "resume" and file.name in here.replaced
                    what = {"": "detected" if again else "harmless", "error": "detected"}.get(outcome)
                    what = what or ("changed" if "another output" in outcome else "failed")
                    yield kind, name, what, f"{file.name}, byte {at} ^ {flip}: {outcome}"


def main() -> None:
    """Print one line of JSON: counts, and what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--place", type=Path, required=True, help="a folder that does not exist")
    parser.add_argument("--places", type=int, default=1000)
    parser.add_argument("--part", type=int, default=0, help="number of this part of a longer run")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    counts: Counter[str] = Counter()
    failures = []
    for kind, reader, outcome, detail in flips(
        Scored(options.place), options.places, f"{options.seed} flips {options.part}"
    ):
        counts[f"{kind}|{reader}|{outcome}"] += 1
        if outcome in ("changed", "failed"):
            failures.append(f"{reader}: {detail}")
    print(json.dumps({"what": "flips", "outcomes": counts, "failures": failures}))


if __name__ == "__main__":
    main()
