"""Prefetched parts: the same samples in the same order for any number of processes, and no leftover process."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from score_runs import ENVIRONMENT, WORDS, assert_same_bits, short_rows, write_lines
from scored_folders import part_path
from tiny_models import save_tiny, tiny_model, tiny_tokenizer

from donod_fast.data import prefetch as prepare
from donod_fast.data.masking import Masker, MaskSettings
from donod_fast.data.prefetch import Part, PartReader, default_workers, prepared, starts_anywhere
from donod_fast.data.reading import Corpus, corpus_from_rows, open_corpus
from donod_fast.data.types import TokenizedSample
from donod_fast.engines.local import score_corpus, score_parts
from donod_fast.errors import CorpusError, WorkerError
from donod_fast.scores.folder import ScoresFolder, locked
from donod_fast.scoring.scorer import Scorer
from donod_fast.system.profiling import PROCESSES, Stages

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and signals of POSIX")

ROWS = short_rows(60, seed=4)
PARTS = [Part(number, 7 * number, min(7 * number + 7, len(ROWS))) for number in range(9)]


@pytest.fixture(scope="module")
def masker() -> Masker:
    return Masker(tiny_tokenizer(), MaskSettings(), vocab_size=101)


def as_lines(folder: Path) -> Corpus:
    return open_corpus([str(write_lines(folder / "rows.jsonl", ROWS))])


def as_compressed_lines(folder: Path) -> Corpus:
    content = write_lines(folder / "plain.jsonl", ROWS).read_bytes()
    (folder / "rows.jsonl.gz").write_bytes(gzip.compress(content))
    return open_corpus([str(folder / "rows.jsonl.gz")])


def as_document(folder: Path) -> Corpus:
    (folder / "rows.json").write_text(json.dumps(ROWS))
    return open_corpus([str(folder / "rows.json")])


def as_saved_dataset(folder: Path) -> Corpus:
    import datasets

    columns = {"question": [row["question"] for row in ROWS], "answer": [str(row["answer"]) for row in ROWS]}
    datasets.Dataset.from_dict(columns).save_to_disk(str(folder / "saved"))
    return open_corpus([str(folder / "saved")])


def as_python_rows(folder: Path) -> Corpus:
    return corpus_from_rows(ROWS)


def as_several_kinds(folder: Path) -> Corpus:
    first = write_lines(folder / "a.jsonl", ROWS[:20])
    (folder / "b.json").write_text(json.dumps(ROWS[20:]))
    return open_corpus([str(first), str(folder / "b.json")])


KINDS = [as_lines, as_compressed_lines, as_saved_dataset, as_python_rows, as_several_kinds]


def truth(corpus: Corpus, masker: Masker) -> list[TokenizedSample]:
    return masker.tokenize_many(list(corpus.records()))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> None:
    """No part is prepared in this process because a worker has not started yet."""
    is_ready = prepare.WorkerProcess.is_ready

    def patient(worker: prepare.WorkerProcess) -> bool:
        while not is_ready(worker) and not worker._gone:
            time.sleep(0.01)
        return is_ready(worker)

    monkeypatch.setattr(prepare.WorkerProcess, "is_ready", patient)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.usefixtures("started")
def test_samples_are_the_same_and_in_order_for_any_number_of_workers(
    kind: Callable[[Path], Corpus], masker: Masker, tmp_path: Path
) -> None:
    corpus = kind(tmp_path)
    wanted = truth(corpus, masker)
    for workers in (0, 2):
        stages = Stages()
        found = list(prepared(corpus, masker, PARTS, workers, stages))
        assert [part for part, _ in found] == PARTS
        assert [sample for _, samples in found for sample in samples] == wanted
        places = {(stage.where, stage.name): stage.calls for stage in stages.report().stages}
        assert places.get((PROCESSES, "tokenize"), 0) == (len(PARTS) if workers else 0)
        assert places.get((PROCESSES, "read"), 0) == (len(PARTS) if workers and kind is as_lines else 0)


def test_until_the_workers_have_started_parts_are_prepared_here(
    masker: Masker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = as_lines(tmp_path)
    monkeypatch.setattr(prepare.WorkerProcess, "is_ready", lambda _: False)
    found = list(prepared(corpus, masker, PARTS, 3))
    assert [part for part, _ in found] == PARTS
    assert [sample for _, samples in found for sample in samples] == truth(corpus, masker)


class Unreadable(Mapping[str, Any]):
    """A row of a caller's own kind, which only its own program knows; a process elsewhere cannot load it."""

    def __init__(self, values: Mapping[str, Any], *, sendable: bool) -> None:
        self._values, self._sendable = values, sendable

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __reduce__(self) -> Any:
        if not self._sendable:
            raise TypeError("no way to send this")
        return (_only_here, (os.getpid(), dict(self._values)))


def _only_here(process: int, values: Mapping[str, Any]) -> Mapping[str, Any]:
    if process != os.getpid():
        raise ImportError("not here")
    return values


@pytest.mark.parametrize("sendable", [True, False])
@pytest.mark.usefixtures("started")
def test_rows_that_cannot_be_sent_are_prepared_here(masker: Masker, sendable: bool) -> None:
    corpus = corpus_from_rows([Unreadable(row, sendable=sendable) for row in ROWS])
    found = list(prepared(corpus, masker, PARTS, 1))
    assert [sample for _, samples in found for sample in samples] == truth(corpus_from_rows(ROWS), masker)


def test_a_tokenizer_that_cannot_be_sent_is_used_here(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.extra = lambda: None
    masker = Masker(tokenizer, MaskSettings(), vocab_size=101)
    corpus = as_lines(tmp_path)
    found = list(prepared(corpus, masker, PARTS, 2))
    assert [sample for _, samples in found for sample in samples] == truth(corpus, masker)
    assert "the tokenizer cannot be pickled" in caplog.text


@pytest.mark.usefixtures("started")
def test_a_worker_that_cannot_start_is_done_without(
    masker: Masker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    corpus = as_lines(tmp_path)
    monkeypatch.setattr("donod_fast.data.prefetch_worker._PROGRAM", "raise SystemExit(3)")
    found = list(prepared(corpus, masker, PARTS, 2))
    assert [sample for _, samples in found for sample in samples] == truth(corpus, masker)
    assert "cannot start (exit code 3)" in caplog.text


@pytest.mark.usefixtures("started")
def test_a_killed_worker_raises_one_error_that_names_its_rows(masker: Masker, tmp_path: Path) -> None:
    def killing() -> Iterator[Part]:
        for part in PARTS:
            if part.number == 3:  # the parts 0 and 1 have been handed out, 2 is waiting or under way
                for child in children(os.getpid()):
                    os.kill(child, signal.SIGKILL)
            yield part

    with pytest.raises(WorkerError, match=r"by signal 9 while it prepared the rows \d+ to \d+ .*to resume"):
        list(prepared(as_lines(tmp_path), masker, killing(), 1))
    assert children(os.getpid()) == []


def test_workers_end_when_the_generator_is_closed_or_dropped(masker: Masker, tmp_path: Path) -> None:
    coming = prepared(as_lines(tmp_path), masker, PARTS, 3)
    next(coming)
    assert len(children(os.getpid())) == 3
    coming.close()
    assert children(os.getpid()) == []


@pytest.mark.usefixtures("started")
def test_an_input_error_in_a_worker_is_raised_unchanged_in_the_parent(masker: Masker, tmp_path: Path) -> None:
    corpus = as_lines(tmp_path)

    def then_changed() -> Iterator[Part]:
        yield from PARTS[:6]
        write_lines(tmp_path / "rows.jsonl", ROWS[:-1])
        yield from PARTS[6:]

    with pytest.raises(CorpusError, match=r"rows\.jsonl.*has changed"):
        list(prepared(corpus, masker, then_changed(), 1))


def test_no_more_parts_are_asked_for_than_are_prepared_ahead(masker: Masker, tmp_path: Path) -> None:
    corpus = as_lines(tmp_path)
    for workers, ahead in ((0, 1), (1, 1), (3, 3)):
        asked: list[int] = []

        def watched(asked: list[int] = asked) -> Iterator[Part]:
            for part in PARTS:
                asked.append(part.number)
                yield part

        with closing(prepared(corpus, masker, watched(), workers)) as coming:
            for part, _ in coming:
                assert len(asked) <= part.number + 1 + ahead
        assert asked == list(range(len(PARTS)))


# --- reading


class Counting:
    """A corpus that counts how many records it gave."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus, self.given = corpus, 0
        self.rows, self.describe, self.check_unchanged = corpus.rows, corpus.describe, corpus.check_unchanged

    def records(self, start: int = 0, stop: int | None = None) -> Iterator[Any]:
        for record in self._corpus.records(start, stop):
            self.given += 1
            yield record


@pytest.mark.parametrize(("kind", "given"), [(as_document, 55), (as_compressed_lines, 55), (as_lines, 20)])
def test_parts_with_gaps_cost_one_reading_at_most(kind: Callable[[Path], Corpus], given: int, tmp_path: Path) -> None:
    corpus = Counting(kind(tmp_path))
    reader = PartReader(corpus)  # type: ignore[arg-type]
    wanted = [Part(0, 0, 5), Part(1, 5, 10), Part(4, 20, 25), Part(10, 50, 55)]
    for part in wanted:
        assert [record.row for record in reader.read(part)] == list(range(part.start, part.stop))
    assert corpus.given == given
    assert [record.row for record in reader.read(wanted[1])] == list(range(5, 10))  # back again, as after a failure


def test_only_inputs_with_a_way_to_any_row_start_anywhere(tmp_path: Path) -> None:
    mixed = as_several_kinds(tmp_path)
    assert starts_anywhere(mixed, 0, 20) and starts_anywhere(mixed, 7, 14)
    assert not starts_anywhere(mixed, 14, 21) and not starts_anywhere(mixed, 20, 60)
    assert not starts_anywhere(as_compressed_lines(tmp_path), 0, 7)
    assert starts_anywhere(as_python_rows(tmp_path), 0, 60)


def test_processes_are_for_accelerators_and_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    assert default_workers("cpu", 10**6) == 0
    assert default_workers("cuda", 100) == 0
    assert default_workers("cuda", 10**6) == 4
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    assert default_workers("cuda", 10**6) == 1


# --- whole runs


def test_a_folder_s_bits_do_not_depend_on_workers(tmp_path: Path) -> None:
    scorer = Scorer(tiny_model("llama"), tiny_tokenizer())
    corpus = as_lines(tmp_path)
    tables = []
    for workers in (0, 2):
        out = tmp_path / str(workers)
        with locked(out):
            tables.append(score_corpus(corpus, scorer, out, part_rows=7, workers=workers).folder.table())
    assert_same_bits(tables[1], tables[0])
    folder = ScoresFolder.open(tmp_path / "2")
    for part in (1, 5, 8):
        part_path(folder, part).unlink()
    formats = score_parts(corpus, scorer, folder, iter([1, 5, 8]), workers=1)
    assert sum(formats.values()) == 7 + 7 + 4
    assert_same_bits(folder.table(), tables[0])


RUN = """
import signal, sys, time
from pathlib import Path
from donod_fast.engines.local import score_corpus
from donod_fast.data.reading import open_corpus
from donod_fast.scoring.scorer import Scorer
from donod_fast.scores.folder import locked

model, data, out = sys.argv[1:]
scorer = Scorer.from_pretrained(model, device="cpu")
real = scorer.sample_scorer.score

def slow(*arguments, **options):
    time.sleep(0.2)
    return real(*arguments, **options)

def interrupted(*_):
    time.sleep(1)  # a worker that the interrupt reaches would have said so by then
    raise KeyboardInterrupt

signal.signal(signal.SIGINT, interrupted)
scorer.sample_scorer.score = slow
with locked(Path(out)):
    score_corpus(open_corpus([data]), scorer, Path(out), part_rows=4, workers=2)
"""


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT])
def test_no_worker_outlives_its_run(tmp_path: Path, by: signal.Signals) -> None:
    model = save_tiny("llama", tmp_path / "model")
    data = write_lines(tmp_path / "rows.jsonl", [{"question": word, "answer": word} for word in WORDS * 40])
    run = subprocess.Popen(
        [sys.executable, "-P", "-c", RUN, model, data, tmp_path / "out"],
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    patience = time.monotonic() + 120
    while len(list((tmp_path / "out").glob("part-*"))) < 3:
        assert run.poll() is None and time.monotonic() < patience
        time.sleep(0.02)
    workers = children(run.pid)
    assert len(workers) == 2
    (os.killpg if by is signal.SIGINT else os.kill)(run.pid, by)  # as a terminal interrupts: all that are there
    assert run.wait(60) != 0
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < patience
        time.sleep(0.02)
    assert run.stderr is not None
    errors = run.stderr.read().decode()
    assert errors.count("Traceback") == (by == signal.SIGINT), errors  # the run's own, none of a worker's
    assert "ignored" not in errors and "BrokenPipe" not in errors, errors


def children(process: int) -> list[int]:
    """Ids of the living child processes that prepare parts; a compiler or a resource tracker may be there, too."""
    if not Path("/proc/self/task").exists():
        pytest.skip("child processes are looked up in /proc")
    found = []
    for file in Path(f"/proc/{process}/task").glob("*/children"):
        found += [int(child) for child in file.read_text().split()]
    return [child for child in found if "prefetch_worker" in command_line(child)]


def command_line(process: int) -> str:
    """Of a living process; empty for one that has ended, reaped or not."""
    try:
        return Path(f"/proc/{process}/cmdline").read_text()
    except OSError:
        return ""


def test_a_part_of_a_changed_file_is_refused_before_it_is_committed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("question,answer\n" + "".join(f"q{row},a{row}\n" for row in range(40)))
    corpus = open_corpus([str(path)])
    reader = PartReader(corpus)
    assert len(reader.read(Part(0, 0, 10))) == 10
    path.write_text(path.read_text().replace("a25", "b25"))
    with pytest.raises(CorpusError, match=f"{path}.*has changed"):
        reader.read(Part(1, 10, 20))
