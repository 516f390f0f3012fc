"""Fuzzed records and files through the package, in forks with limits on memory and time. It runs as a program.

A record must give one row with a status, in its place. A file must give rows, or one error of the package that names
it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from fuzzed_files import KINDS, injure
from fuzzed_records import fuzzed_line
from tiny_chat import MARKED, STRICT, THINKING, UNMARKED, WITH_TOOLS, tokenizer_with

from donod_fast.data.masking import Masker, MaskSettings
from donod_fast.data.reading import open_corpus
from donod_fast.data.types import Status
from donod_fast.demo.corpus import MODEL_FOLDER
from donod_fast.errors import DonodError
from donod_fast.scoring.scorer import Scorer

BATCH = 250
"""Records of a file, and files of a fork."""

SCORED_BATCHES = 8
"""Of so many files of records, one is scored too."""

SECONDS = 120
"""A case that takes longer counts as hung. It is this long because the machine may be busy."""

MEMORY = 2 << 30
"""Bytes of address space that a fork may take beyond what it has."""


class Failure(Exception):
    """What a case shows to be wrong."""


def maskers(scorer: Scorer) -> list[Masker]:
    """Maskers of several templates and rules; the first one is that of the scorer, a trained model's."""
    tokenizers = [tokenizer_with(own) for own in (UNMARKED, MARKED, THINKING, STRICT, WITH_TOOLS)]
    ways: list[dict[str, Any]] = [{}, {"train_on": "last"}, {"text_only": True}, {"preference": "chosen"}, {}]
    lengths = (48, 512, 2048, 512, 300)  # a text of 10 MB has as many tokens as it likes where there is no limit
    made = [
        Masker(own, MaskSettings(**way, max_length=length), vocab_size=len(own))
        for own, way, length in zip(tokenizers, ways, lengths, strict=True)
    ]
    return [scorer.masker, *made]


def check_records(lines: Sequence[bytes], place: Path, masker: Masker, scorer: Scorer | None) -> Counter[str]:
    """Read a file of these lines, mask its rows and perhaps score them; returns the rows by status. Raises Failure."""
    file = place / "fuzzed.jsonl"
    file.write_bytes(b"\n".join(lines) + b"\n")
    os.utime(file, ns=(0, 0))  # opening a file that is new waits for the clock's next tick
    corpus = open_corpus([str(file)])
    records = list(corpus.records())
    if [record.raw for record in records] != list(lines) or corpus.rows != len(lines):
        raise Failure(f"{len(lines)} lines gave {len(records)} records, or others")
    samples = masker.tokenize_many(records)
    if [sample.row for sample in samples] != list(range(len(lines))):
        raise Failure(f"{len(lines)} records gave {len(samples)} rows, or in another order")
    for sample in samples:
        if sample.status == Status.SCORED:
            if len(sample.scored) != len(sample.input_ids) or not any(sample.scored):
                raise Failure(f"row {sample.row}: its mask does not fit")
        elif not sample.detail:
            raise Failure(f"row {sample.row}: {sample.status} without a reason")
        sample.detail.encode("utf-8")
        sample.id.encode("utf-8")
    if scorer is not None:
        rows = scorer.sample_scorer.score(samples)
        if [row.row for row in rows] != list(range(len(lines))):
            raise Failure(f"{len(lines)} rows gave {len(rows)} scores, or in another order")
        return Counter(str(row.status) for row in rows)
    return Counter(str(sample.status) for sample in samples)


def check_file(path: Path) -> str:
    """Read a file of any bytes: ``"read"`` or ``"refused"``. Raises Failure, or what should never be raised."""
    for file in [path, *path.rglob("*")] if path.is_dir() else [path]:
        os.utime(file, ns=(0, 0))
    try:
        corpus = open_corpus([str(path)])
        records = list(corpus.records())
        if [record.row for record in records] != list(range(corpus.rows)):
            raise Failure(f"{corpus.rows} rows were counted, and {len(records)} read")
        middle = corpus.rows // 2
        later = [(one.row, one.place, one.raw, one.problem, repr(one.data)) for one in corpus.records(middle)]
        if later != [(one.row, one.place, one.raw, one.problem, repr(one.data)) for one in records[middle:]]:
            raise Failure(f"from row {middle} on it is read in another way")
        if any((one.data is None) != (one.problem is not None) for one in records):
            raise Failure("a row without a value has no reason, or one with a value has one")
    except DonodError as error:
        if path.name not in str(error):
            raise Failure(f"the error does not name the file: {error}") from error
        return "refused"
    return "read"


def readable_kinds(place: Path) -> tuple[list[str], dict[str, str]]:
    """Write a file of each kind into a new folder; those that are read, and what became of the others.

    A fork does it: what it imports may not survive another fork, and this process makes many.
    """
    place.mkdir()
    found = forked(place.with_name("kinds"), lambda _: _tried_kinds(place))
    good = [name for outcome, name in found if outcome == "read"]
    return good, {name: outcome for outcome, name in found if outcome != "read"}


def _tried_kinds(place: Path) -> Iterator[tuple[str, str]]:
    for name, write in KINDS.items():
        path = place / name
        signal.alarm(SECONDS)
        try:
            write(path)
            outcome = check_file(path)
        except ImportError as error:
            outcome = f"not written: {error}"
        signal.alarm(0)
        if outcome != "read":
            _removed(path)
        yield outcome, name


def _removed(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def record_batch(
    seed: int, batch: int, place: Path, all_maskers: list[Masker], scorer: Scorer
) -> Iterator[tuple[str, str]]:
    """(outcome, detail) of each record of a batch; one failure stands for the whole batch."""
    draw = random.Random(f"{seed} records {batch}")
    lines = [fuzzed_line(draw) for _ in range(BATCH)]
    masker = all_maskers[batch % len(all_maskers)]
    scores = scorer if masker is scorer.masker and batch // len(all_maskers) % 2 == 0 else None
    signal.alarm(SECONDS)
    statuses = check_records(lines, place, masker, scores)
    signal.alarm(0)
    for status, number in statuses.items():
        for _ in range(number):
            yield status, ""


def file_batch(seed: int, batch: int, place: Path, whole: Path, kinds: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(outcome, kind and detail) of each file of a batch."""
    draw = random.Random(f"{seed} files {batch}")
    for at in range(BATCH):
        name = kinds[(batch * BATCH + at) % len(kinds)]
        path = place / name
        _removed(path)
        copied = shutil.copytree if (whole / name).is_dir() else shutil.copy
        copied(whole / name, path)
        injure(path, draw)
        signal.alarm(SECONDS)
        try:
            yield check_file(path), name
        except MemoryError:
            yield "failed", f"{name}, file {at}: it took more than {MEMORY >> 20} MiB"
        except Failure as failure:
            yield "failed", f"{name}, file {at}: {failure}"
        except Exception as error:
            where = traceback.format_exc(limit=-3).replace("\n", " ")
            yield "failed", f"{name}, file {at}: {type(error).__name__}: {error}: {where}"
        signal.alarm(0)


def forked(place: Path, job: Callable[[Path], Iterator[tuple[str, str]]]) -> list[tuple[str, str]]:
    """Run a batch in a fork with limits; what ended the fork, if that failed."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    result = place.with_suffix(".result")
    result.write_bytes(b"")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
            with result.open("w", encoding="utf-8", errors="backslashreplace", buffering=1) as file:
                for one in job(place):
                    file.write(json.dumps(one) + "\n")
            code = 0
        except BaseException as error:
            with result.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(
                    json.dumps(("failed", f"{type(error).__name__}: {error}: {traceback.format_exc(limit=-4)}")) + "\n"
                )
            code = 0
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    found = [(str(outcome), str(detail)) for outcome, detail in map(json.loads, result.read_text("utf-8").splitlines())]
    if code == -signal.SIGALRM:
        found.append(("failed", f"it hung for {SECONDS} s after {len(found)} cases"))
    elif code:
        found.append(("failed", f"its process ended with {code} after {len(found)} cases"))
    return found


def main() -> None:
    """Print one line of JSON for each batch: what, number, outcomes, failures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--place", type=Path, required=True, help="an empty folder")
    parser.add_argument("--records", type=int, default=0, help="number of records")
    parser.add_argument("--files", type=int, default=0, help="number of files")
    parser.add_argument("--first", type=int, default=0, help="number of the first batch")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.place.mkdir(parents=True, exist_ok=True)
    if options.records:
        scorer = Scorer.from_pretrained(MODEL_FOLDER, device="cpu")
        ways = maskers(scorer)
        for batch in range(options.first, options.first + -(-options.records // BATCH)):
            found = forked(
                options.place / "records",
                lambda place, batch=batch: record_batch(options.seed, batch, place, ways, scorer),  # type: ignore[misc]
            )
            _report("records", batch, found)
    if options.files:
        whole = options.place / "whole"
        kinds, others = readable_kinds(whole)
        for name, why in others.items():
            print(json.dumps({"what": "kind left out", "kind": name, "why": why}), flush=True)
        for batch in range(options.first, options.first + -(-options.files // BATCH)):
            found = forked(
                options.place / "files",
                lambda place, batch=batch: file_batch(options.seed, batch, place, whole, kinds),  # type: ignore[misc]
            )
            _report("files", batch, found)


def _report(what: str, batch: int, found: Sequence[tuple[str, str]]) -> None:
    outcomes = Counter(
        f"{outcome} {detail}" if what == "files" and outcome != "failed" else outcome for outcome, detail in found
    )
    failures = [detail for outcome, detail in found if outcome == "failed"]
    print(json.dumps({"what": what, "batch": batch, "outcomes": outcomes, "failures": failures}), flush=True)


if __name__ == "__main__":
    main()
