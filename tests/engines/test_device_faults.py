"""Processes that crash, hang or are killed while scoring are replaced, and only a faulty row is left out."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from device_specs import POISON, FaultySpec, prepare_hanging, wait_for
from score_runs import assert_same_bits, leftovers, run_options, short_rows, tiny_scorer, write_lines
from tiny_models import save_tiny

from donod_fast.data.prefetch import Step
from donod_fast.data.reading import open_corpus
from donod_fast.engines.device import pool as device_pool
from donod_fast.engines.device import process as device_process
from donod_fast.engines.device.child import At, Failed
from donod_fast.engines.devices import DevicePool, score_on_devices
from donod_fast.engines.isolation import MOST_TRIES, Suspect
from donod_fast.engines.local import Outcome, score_corpus
from donod_fast.engines.request import RunOptions
from donod_fast.errors import CorpusError, InputError, ModelError, WorkerError
from donod_fast.scores.folder import ScoresFolder, locked

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

ROWS, PART_ROWS = 60, 10
POISONED = 33
ONE, BOTH = ["cpu"], ["cpu", "cpu"]
STALL = 1.0


@pytest.fixture(autouse=True)
def quick_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes forked from one that has imported what they need: a second, not ten."""
    monkeypatch.setattr(device_process, "CONTEXT", multiprocessing.get_context("forkserver"))
    monkeypatch.setattr(device_pool, "_POLL_SECONDS", 0.1)
    multiprocessing.set_forkserver_preload(
        [
            "donod_fast.cli",
            "donod_fast.engines.devices",
            "donod_fast.scoring.scorer",
            "transformers.models.llama.modeling_llama",
        ]
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("llama", tmp_path_factory.mktemp("model"))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


def poisoned(path: Path, rows: Iterable[int] = (POISONED,), count: int = ROWS) -> Path:
    """A file of which these rows are poisoned."""
    content = short_rows(count)
    for row in rows:
        content[row] = {"id": f"poisoned {row}", "question": "which", "answer": f"the {POISON} river"}
    return write_lines(path, content)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return poisoned(tmp_path_factory.mktemp("data") / "rows.jsonl")


@pytest.fixture(scope="module")
def wanted(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Their scores, undisturbed and in one process."""
    out = tmp_path_factory.mktemp("wanted")
    with locked(out):
        corpus = open_corpus([str(data)])
        return score_corpus(corpus, tiny_scorer(model), out, part_rows=PART_ROWS).folder.table()


def scored(data: Path, spec: Any, out: Path, names: list[str] = ONE, **options: Any) -> Outcome:
    how = run_options(PART_ROWS, options)
    with locked(out):
        outcome = score_on_devices(open_corpus([str(data)]), spec, out, names, how, **options)
    assert leftovers(out) == []
    assert multiprocessing.active_children() == []
    return outcome


@pytest.fixture
def hangs_alone_count(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a process that hangs is silent, however long a busy machine keeps the others waiting."""
    silent_for = device_process.DeviceProcess.silent_for

    def silent(process: device_process.DeviceProcess) -> float:
        return silent_for(process) if (place / f"hangs-{process.id}").exists() else 0.0

    monkeypatch.setattr(device_process.DeviceProcess, "silent_for", silent)


def assert_same_but(folder: ScoresFolder, wanted: Any, lost: Iterable[int], detail: str) -> None:
    """All rows but the lost ones have the scores of an undisturbed run, up to the batches of their part."""
    found, lost = folder.table().to_pylist(), set(lost)
    for row, (one, other) in enumerate(zip(found, wanted.to_pylist(), strict=True)):
        if row in lost:
            assert (one["row"], one["id"], one["status"]) == (row, other["id"], "worker_lost")
            assert detail in one["detail"] and f"line {row + 1}: " in one["detail"], one["detail"]
        elif {*range(row // PART_ROWS * PART_ROWS, (row // PART_ROWS + 1) * PART_ROWS)} & lost:
            assert one["status"] == other["status"]
            assert one["nod"] == pytest.approx(other["nod"], rel=1e-5, nan_ok=True)
        else:
            assert str(one) == str(other)


# --- rows at fault


@pytest.mark.sampled(every=2)
@pytest.mark.usefixtures("hangs_alone_count")
@pytest.mark.parametrize(
    ("fault", "detail"),
    [
        ("segv", "the process was killed (SIGSEGV) both times"),
        ("segv tokenizing", "the process was killed (SIGSEGV) both times"),
        ("hang", f"the process did not answer for {STALL:g} s both times"),
    ],
)
def test_a_row_that_kills_every_process_is_left_out_and_others_are_scored(
    fault: str, detail: str, model: Path, data: Path, place: Path, tmp_path: Path, wanted: Any
) -> None:
    done: list[int] = []
    stall = STALL if fault == "hang" else 600.0
    found = scored(
        data,
        FaultySpec(model, fault, place),
        tmp_path / "out",
        progress=lambda rows, tokens: done.append(rows),
        stall_timeout=stall,
    )
    assert_same_but(found.folder, wanted, {POISONED}, detail)
    assert found.counts["worker_lost"] == 1 and sum(found.counts.values()) == sum(done) == ROWS
    problems = found.folder.problems()
    assert {problem.part for problem in problems} >= {3}
    assert any(problem.text.startswith(f"row {POISONED} is left out: the process") for problem in problems)


def test_rows_at_fault_that_lie_together_are_left_out_on_a_single_device(
    model: Path, place: Path, tmp_path: Path
) -> None:
    # As many in a row as there are processes that a device may lose, and in two parts that follow each other
    lost = {0, 1, 2, 10}
    data = poisoned(tmp_path / "rows.jsonl", lost, 2 * PART_ROWS)
    found = scored(data, FaultySpec(model, "exit", place), tmp_path / "out")
    statuses = found.folder.table().column("status").to_pylist()
    assert {row for row, status in enumerate(statuses) if status == "worker_lost"} == lost


def test_two_devices_leave_the_same_row_out(model: Path, data: Path, place: Path, tmp_path: Path, wanted: Any) -> None:
    found = scored(data, FaultySpec(model, "raise", place, meet=2), tmp_path / "out", BOTH)
    detail = "failed (RuntimeError: out of luck) both times that it scored this row alone, and 3 times"
    assert_same_but(found.folder, wanted, {POISONED}, detail)


# --- processes that were merely unlucky


@pytest.mark.usefixtures("hangs_alone_count")
@pytest.mark.parametrize("fault", ["kill once", "hang once", "segv thrice"])
def test_what_does_not_happen_again_changes_no_bit(
    fault: str, model: Path, data: Path, place: Path, tmp_path: Path, wanted: Any
) -> None:
    stall = STALL if fault == "hang once" else 600.0
    found = scored(data, FaultySpec(model, fault, place), tmp_path / "out", stall_timeout=stall)
    assert (place / ("c" if "thrice" in fault else "killed")).exists()
    assert_same_bits(found.folder.table(), wanted)
    assert any("at rows 30 to 39" in problem.text for problem in found.folder.problems())


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.nightly) for seed in range(1, 8))])
def test_processes_killed_at_random_change_no_bit(
    seed: int, model: Path, data: Path, place: Path, tmp_path: Path, wanted: Any
) -> None:
    draw, kills = random.Random(seed), [0]

    def killing(rows: int, tokens: int) -> None:
        victims = multiprocessing.active_children()
        if rows > 0 and kills[0] < 3 and victims and draw.random() < 0.4:
            kills[0] += 1
            os.kill(draw.choice(victims).pid or 0, signal.SIGKILL)

    found = scored(data, FaultySpec(model, "", place), tmp_path / "out", BOTH, progress=killing)
    assert kills[0] >= 2
    assert_same_bits(found.folder.table(), wanted)


@pytest.mark.nightly
def test_a_row_that_ends_every_preparation_process_is_left_out(
    model: Path, data: Path, place: Path, tmp_path: Path, wanted: Any
) -> None:
    found = scored(data, FaultySpec(model, "segv tokenizing", place), tmp_path / "out", workers=1)
    assert_same_but(found.folder, wanted, {POISONED}, "the process was killed (SIGSEGV) both times")
    assert any("a preparation process was killed by signal 11" in problem.text for problem in found.folder.problems())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_a_hanging_preparation_process_ends_with_its_device_process(model: Path, data: Path) -> None:
    child = device_process.CONTEXT.Process(target=prepare_hanging, args=(model, data))
    child.start()
    children = Path(f"/proc/{child.pid}/task/{child.pid}/children")
    wait_for(lambda: (data.parent / "hangs").exists())
    (preparing,) = [Path("/proc") / process for process in children.read_text().split()]
    child.kill()
    child.join()
    wait_for(lambda: not preparing.exists() or "Z" in (preparing / "stat").read_text().split()[2])


# --- devices that are lost


def test_a_device_without_working_processes_is_dropped_and_others_continue(
    model: Path, data: Path, place: Path, tmp_path: Path, wanted: Any
) -> None:
    out = tmp_path / "alone"
    with pytest.raises(
        WorkerError,
        match=r"cpu: the process the tiny model: refused while it loaded the model, the last of 3 in a row, "
        "and no device is left; what is committed stays",
    ):
        scored(data, FaultySpec(model, "exit, refuse", place), out)
    assert multiprocessing.active_children() == [] and leftovers(out) == []
    resumed = scored(data, FaultySpec(model, "", place), out)
    assert resumed.resumed_rows > 0
    assert_same_bits(resumed.folder.table(), wanted)


def test_where_nothing_works_any_more_no_row_is_blamed(model: Path, data: Path, place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(WorkerError, match=r"failed \(RuntimeError: out of luck\) at row \d+, .* no device is left"):
        scored(data, FaultySpec(model, "raise always", place), out, BOTH)
    folder = ScoresFolder.open(out)
    assert folder.counts()["worker_lost"] == 0
    assert not any("left out" in problem.text for problem in folder.problems())


def test_a_part_that_fails_only_as_a_whole_ends_the_run_after_the_others(
    model: Path, data: Path, place: Path, tmp_path: Path, wanted: Any
) -> None:
    out = tmp_path / "out"
    with pytest.raises(WorkerError, match=r"(?s)rows 30 to 39 cannot be scored.*out of luck.* 1 part is left"):
        scored(data, FaultySpec(model, "raise together", place), out)
    assert ScoresFolder.open(out).missing_parts() == [3]
    assert_same_bits(scored(data, FaultySpec(model, "", place), out).folder.table(), wanted)


def test_a_process_that_hangs_while_it_loads_the_model_ends_the_run(
    model: Path, data: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_pool, "LOADING_SECONDS", 0.5)
    with pytest.raises(ModelError, match=r"the process that loads the model there did not answer for 0.5 s"):
        scored(data, FaultySpec(model, "hang loading", place), tmp_path / "out", stall_timeout=0.1)
    assert multiprocessing.active_children() == []


def test_a_process_killed_while_loading_is_replaced_if_another_has_loaded(
    model: Path, data: Path, place: Path, tmp_path: Path, wanted: Any
) -> None:
    found = scored(data, FaultySpec(model, "kill second", place, meet=2), tmp_path / "out", BOTH)
    assert_same_bits(found.folder.table(), wanted)
    assert len(list(place.glob("loading-*"))) == 3


# --- inputs that are lost


@pytest.mark.parametrize("names", [ONE, BOTH])
def test_a_file_that_vanishes_costs_its_own_parts_only(
    names: list[str], model: Path, place: Path, tmp_path: Path, wanted: Any
) -> None:
    lines = poisoned(tmp_path / "rows.jsonl").read_text().splitlines(keepends=True)
    files = [tmp_path / f"{name}.jsonl" for name in "abc"]
    for at, file in enumerate(files):
        file.write_text("".join(lines[20 * at : 20 * (at + 1)]))
    corpus = open_corpus([str(file) for file in files])
    out = tmp_path / "out"
    files[1].rename(tmp_path / "elsewhere")
    spec: Any = FaultySpec(model, "", place)
    with (
        locked(out),
        DevicePool(corpus, spec, out, names, RunOptions(part_rows=PART_ROWS)) as pool,
    ):
        folder = pool.open()
        with pytest.raises(CorpusError, match=r"b\.jsonl.*; 2 parts are left unscored"):
            pool.score(folder.missing_parts())
        assert folder.missing_parts() == [2, 3]
        assert len(list(place.glob("loading-*"))) == len(names)  # no process was lost over it
        (tmp_path / "elsewhere").rename(files[1])
        pool.score(folder.missing_parts())
    found = folder.table()
    assert found.drop_columns(["detail", "id"]).num_rows == ROWS
    assert_same_bits(found.select(["row", "don", "nod"]), wanted.select(["row", "don", "nod"]))


# --- the pool


def test_pool_processes_persist_between_calls_and_killed_ones_are_replaced(
    model: Path, data: Path, place: Path, tmp_path: Path, wanted: Any
) -> None:
    out = tmp_path / "out"
    corpus = open_corpus([str(data)])
    problems: list[tuple[int | None, str]] = []

    def heard(part: int | None, text: str) -> None:
        problems.append((part, text))

    spec: Any = FaultySpec(model, "", place)
    with (
        locked(out),
        DevicePool(corpus, spec, out, ONE, RunOptions(part_rows=PART_ROWS)) as pool,
    ):
        folder = pool.open()
        assert folder.missing_parts() == list(range(6))
        formats = pool.score([4, 1], None, heard)
        assert sum(formats.values()) == 2 * PART_ROWS
        assert folder.missing_parts() == [0, 2, 3, 5]
        assert pool.score([]) == {}
        pool.score([0], None, heard)
        assert len(list(place.glob("loading-*"))) == 1
        (child,) = multiprocessing.active_children()
        os.kill(child.pid or 0, signal.SIGKILL)
        pool.score([2, 3, 5], None, heard)
        assert len(list(place.glob("loading-*"))) == 2
    assert problems == []  # no part was to blame
    assert multiprocessing.active_children() == []
    assert_same_bits(folder.table(), wanted)


def test_a_pool_that_could_not_open_its_folder_says_so_at_each_call(model: Path, place: Path, tmp_path: Path) -> None:
    data = tmp_path / "gone.jsonl"
    write_lines(data, short_rows(2 * PART_ROWS))
    spec: Any = FaultySpec(model, "", place)
    options = RunOptions(part_rows=PART_ROWS)
    with locked(tmp_path / "out"):
        with DevicePool(open_corpus([str(data)]), spec, tmp_path / "out", ONE, options) as pool:
            pool.open()
        corpus = ScoresFolder.open(tmp_path / "out").corpus()
        data.unlink()
        with DevicePool(corpus, spec, tmp_path / "out", ONE, options) as pool:
            for part in (0, 1):
                with pytest.raises(CorpusError, match=r"gone\.jsonl"):
                    pool.score([part])
    assert multiprocessing.active_children() == []


def test_a_time_without_an_answer_of_no_seconds_is_refused(model: Path, data: Path, tmp_path: Path) -> None:
    for seconds in (0.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="stall_timeout must be more than 0 seconds"):
            scored(data, FaultySpec(model, "", tmp_path), tmp_path / "out", stall_timeout=seconds)


def test_only_what_a_process_was_at_is_blamed() -> None:
    child = object.__new__(device_process.DeviceProcess)
    child.parts, child._steps = [4, 5, 6, 7], {}
    assert child.blamed(None) == [4, 5, 6, 7]  # nobody knows
    for part, step in ((4, Step.SCORED), (5, Step.PREPARED), (6, Step.PREPARING)):
        child.steps_to(At(part, step))
    assert child.blamed(None) == [6, 4]  # 4 is being written, 5 and 7 wait
    child.steps_to(At(5, Step.SCORING))
    assert child.blamed(None) == [5, 6, 4]
    raised = Failed(None, "failed (RuntimeError: out of luck)")
    assert child.blamed(raised) == [5]
    child.steps_to(At(6, Step.UNPREPARED))
    assert child.blamed(raised) == [5, 6]
    child.steps_to(At(5, Step.SCORED))
    assert child.blamed(raised) == [6]


# --- the search for the rows at fault, without processes


def searched(bad: set[int], rows: int, unlucky: Iterator[bool] = iter(())) -> tuple[Suspect, int]:
    """Search a part of these rows until it is scored or given up; how many processes it took.

    ``unlucky`` says of every touch of a row whether the process is killed for no reason of the row's.
    """
    suspect, processes = Suspect(7, 100, 100 + rows), 0
    while suspect.hopeless is None:
        processes += 1
        assert processes < 1000
        probe = suspect.probe()
        if not probe:
            touched = [row for row in range(100, 100 + rows) if row not in suspect.excluded]
            if not any(row in bad or next(unlucky, False) for row in touched):
                return suspect, processes
            suspect.lost_scoring("was killed")
            continue
        for row in probe:
            if row in bad or next(unlucky, False):
                suspect.lost_probing(row, "was killed")
                break
            suspect.passed(row, row % 5 != 1)
    return suspect, processes


@pytest.mark.parametrize("bad", [set(), {100}, {115}, {107, 108}, {100, 101, 102, 103, 111}, set(range(100, 115))])
def test_exactly_the_rows_at_fault_are_found_with_two_processes_each(bad: set[int]) -> None:
    suspect, processes = searched(bad, 16)
    assert (set(suspect.excluded), suspect.hopeless) == (bad, None)
    # Three that show that something is wrong, two a row, the one that comes to the end of the probe, the last
    assert processes <= (MOST_TRIES + 2 * len(bad) + 2 if bad else 1)


@pytest.mark.parametrize("touch", range(16))
def test_no_row_is_blamed_for_a_process_that_is_killed_while_it_probes(touch: int) -> None:
    while_scored = [True] * MOST_TRIES  # at its first row each
    suspect, _ = searched(set(), 16, iter([*while_scored, *[False] * touch, True]))
    assert (suspect.excluded, suspect.hopeless) == ({}, None)


def test_a_device_on_which_nothing_works_any_more_blames_no_row() -> None:
    suspect = Suspect(0, 0, 8)
    for _ in range(MOST_TRIES):
        suspect.lost_scoring("was killed")
    for row in range(3):
        suspect.passed(row, row != 0)  # row 0 has no score on any device
    suspect.lost_probing(3, "was killed")
    for _ in range(MOST_TRIES):
        assert suspect.probe() == (1, 4, 5, 6, 7)
        suspect.lost_probing(1, "was killed")
    assert suspect.excluded == {}


def test_a_part_whose_rows_cannot_even_be_listed_is_given_up() -> None:
    suspect = Suspect(0, 0, 4)
    for _ in range(MOST_TRIES):
        assert suspect.probe() == ()
        suspect.lost_scoring("was killed")
    assert suspect.probe() == (0, 1, 2, 3)
    suspect.lost_probing(None, "was killed")
    assert suspect.hopeless is None
    suspect.lost_probing(None, "was killed")
    assert suspect.hopeless == "was killed before a row was reached"
