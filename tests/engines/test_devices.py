"""Several processes give the same scores as one despite any failure, and none outlives the run."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from device_specs import POISON, FaultySpec, wait_for
from loss_folders import assert_losses_fit, loss_bytes
from score_runs import ENVIRONMENT, assert_same_bits, leftovers, run_options, short_rows, tiny_scorer, write_lines
from scored_folders import part_path
from tiny_models import save_tiny

from donod_fast.data.reading import open_corpus
from donod_fast.engines.device import process as device_process
from donod_fast.engines.devices import parse_devices, score_on_devices
from donod_fast.engines.local import Outcome, score_corpus
from donod_fast.engines.request import RunOptions
from donod_fast.errors import DonodError, InputError, ModelError
from donod_fast.scores.folder import ScoresFolder, locked
from donod_fast.scoring.scorer import Scorer
from donod_fast.system.profiling import Report

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

ROWS, PART_ROWS = 120, 10
SUPPORT = Path(__file__).parents[1] / "support"
BOTH = ["cpu", "cpu"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("llama", tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def scorer(model: Path) -> Scorer:
    return tiny_scorer(model)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Rows of which one, in the fourth part, is poisoned."""
    rows = short_rows(ROWS)
    rows[33] = {"id": "poisoned", "question": "which", "answer": f"the {POISON} river"}
    return write_lines(tmp_path / "rows.jsonl", rows)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


@pytest.fixture
def quick_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes forked from one that has imported what they need: a second, not ten."""
    monkeypatch.setattr(device_process, "CONTEXT", multiprocessing.get_context("forkserver"))
    multiprocessing.set_forkserver_preload(
        [
            "donod_fast.cli",
            "donod_fast.engines.devices",
            "donod_fast.scoring.scorer",
            "transformers.models.llama.modeling_llama",
        ]
    )


def one_process(data: Path, scorer: Scorer, out: Path) -> Outcome:
    with locked(out):
        return score_corpus(open_corpus([str(data)]), scorer, out, part_rows=PART_ROWS)


def several(data: Path, spec: Any, out: Path, names: list[str] = BOTH, **options: Any) -> Outcome:
    how = run_options(PART_ROWS, options)
    with locked(out):
        return score_on_devices(open_corpus([str(data)]), spec, out, names, how, **options)


def test_two_processes_write_the_bits_that_one_writes(
    model: Path, scorer: Scorer, data: Path, place: Path, tmp_path: Path
) -> None:
    wanted = one_process(data, scorer, tmp_path / "wanted")
    done: list[int] = []
    reports: list[Report] = []
    found = several(
        data,
        FaultySpec(model, "", place, meet=2),  # neither continues before both have a part
        tmp_path / "found",
        progress=lambda rows, tokens: done.append(rows),
        on_report=reports.append,
    )
    assert_same_bits(found.folder.table(), wanted.folder.table())
    assert (found.counts, found.formats, found.resumed_rows) == (wanted.counts, wanted.formats, 0)
    assert sum(done) == ROWS
    assert ScoresFolder.open(tmp_path / "found").manifest["model"]["device"] == BOTH
    assert leftovers(tmp_path / "found") == []
    assert [report.samples > 0 for report in reports] == [True, True]
    assert sum(report.samples for report in reports) == found.counts["scored"]


@pytest.mark.usefixtures("quick_start")
def test_of_two_parts_each_of_two_processes_gets_one(
    model: Path, place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = write_lines(tmp_path / "rows.jsonl", short_rows(2 * PART_ROWS))
    found = several(
        data, FaultySpec(model, "", place, meet=2), tmp_path / "out"
    )  # neither continues before both have one
    assert sum(found.counts.values()) == 2 * PART_ROWS
    assert caplog.records == []  # of a process that waited in vain


@pytest.mark.usefixtures("quick_start")
@pytest.mark.parametrize("fault", ["kill once", "kill writing"])
def test_the_part_of_a_process_that_is_killed_is_scored_by_another(
    fault: str,
    model: Path,
    scorer: Scorer,
    data: Path,
    place: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    wanted = one_process(data, scorer, tmp_path / "wanted")
    done: list[int] = []
    with caplog.at_level(logging.WARNING):
        found = several(
            data,
            FaultySpec(model, fault, place, meet=2),
            tmp_path / "found",
            progress=lambda rows, tokens: done.append(rows),
        )
    assert (place / "killed").exists()
    assert_same_bits(found.folder.table(), wanted.folder.table())
    assert sum(done) == ROWS
    assert leftovers(tmp_path / "found") == []
    assert ["was killed (SIGKILL" in record.getMessage() for record in caplog.records] == [True]


@pytest.mark.usefixtures("quick_start")
def test_a_resumed_run_keeps_the_token_budget_that_it_started_with(
    model: Path, data: Path, place: Path, tmp_path: Path
) -> None:
    begun = one_process(data, tiny_scorer(model, token_budget=48), tmp_path / "out")
    wanted = begun.folder.table()
    for part in range(3, 12):
        part_path(begun.folder, part).unlink()
    resumed = several(data, FaultySpec(model, "", place), tmp_path / "out")
    assert resumed.resumed_rows == 30
    assert_same_bits(resumed.folder.table(), wanted)


@pytest.mark.usefixtures("quick_start")
def test_a_device_that_runs_out_of_memory_halves_its_batches_and_says_so(
    model: Path, data: Path, place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = several(data, FaultySpec(model, "short of memory", place), tmp_path / "out")
    assert found.counts["scored"] > 100 and found.counts["out_of_memory"] == 0
    assert any("cpu: memory ran out; --token-budget" in record.getMessage() for record in caplog.records)


@pytest.mark.usefixtures("quick_start")
@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        ("refuse", ModelError, "cpu: the tiny model: refused"),
        ("kill loading", ModelError, "cpu: the process that loads the model there was killed .SIGKILL"),
        (
            "unlike",
            ModelError,
            "(?s)cpu does not score as the first device did.*update.lr: .* in the folder, .* on cpu",
        ),
    ],
)
def test_a_process_that_cannot_take_part_ends_the_run(
    fault: str, kind: type[DonodError], message: str, model: Path, data: Path, place: Path, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=message):
        several(data, FaultySpec(model, fault, place, meet=3), tmp_path / "out")
    assert list((tmp_path / "out").glob("part-*")) == []
    assert multiprocessing.active_children() == []


@pytest.fixture
def program(model: Path, data: Path, place: Path, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """``device_specs.py``, scoring parts of a row with two processes that get stuck, in a session of its own."""
    run = subprocess.Popen(
        [sys.executable, "-P", SUPPORT / "device_specs.py", model, data, tmp_path / "out", place],
        env={**ENVIRONMENT, "PYTHONPATH": str(SUPPORT)},
        cwd="/",
        stderr=subprocess.PIPE,
        start_new_session=True,
        # Where the suite itself runs in the background, a child would inherit that interrupts are ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    yield run
    with suppress(ProcessLookupError):
        os.killpg(run.pid, signal.SIGKILL)
    run.communicate(timeout=600)


def processes_of(session: int, file: str = "cmdline", holding: str = "") -> list[Path]:
    """The processes of a session whose ``/proc`` file holds a text; those that wait to be reaped left out."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, owner = stat.read_text().rpartition(")")[2].split()[:4]
            if int(owner) == session and state != "Z" and holding in stat.with_name(file).read_text():
                found.append(stat.parent)
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("when", ["interrupted", "killed"])
def test_no_process_outlives_a_run_that_is_interrupted_or_killed(
    when: str, program: subprocess.Popen[bytes], scorer: Scorer, data: Path, place: Path, tmp_path: Path
) -> None:
    if when == "interrupted":  # that the children leave it to their parent is true from their first moment on
        wait_for(lambda: len(processes_of(program.pid, "maps", holding="libtorch")) == 3)
        for process in processes_of(program.pid, holding="spawn_main"):
            os.kill(int(process.name), signal.SIGINT)
    out = tmp_path / "out"

    def parts_written() -> int:
        return len(list(out.glob("part-*.parquet")))

    # Each process gets stuck in its sixth batch; one of them needs a batch to measure the gradient of the first rows.
    both_stuck = 5 + 4
    wait_for(
        lambda: program.poll() is not None or (len(list(place.glob("stuck-*"))) == 2 and parts_written() >= both_stuck)
    )
    assert program.poll() is None
    if when == "killed":
        program.kill()
    else:  # what Ctrl-C does
        os.killpg(program.pid, signal.SIGINT)
    code = program.wait(timeout=600)
    wait_for(lambda: not processes_of(program.pid))
    _, errors = program.communicate(timeout=600)
    assert code == (-signal.SIGKILL if when == "killed" else -signal.SIGINT)
    # One traceback, the program's own: the others have nothing to say
    assert errors.decode().count("Traceback") == (when == "interrupted"), errors.decode()

    parts = parts_written()
    assert both_stuck <= parts < ROWS
    assert when == "killed" or leftovers(out) == []
    with locked(out):
        resumed = score_corpus(open_corpus([str(data)]), scorer, out, part_rows=1)
    assert resumed.resumed_rows == parts
    with locked(tmp_path / "wanted"):
        wanted = score_corpus(open_corpus([str(data)]), scorer, tmp_path / "wanted", part_rows=1)
    assert_same_bits(resumed.folder.table(), wanted.folder.table())
    assert leftovers(out) == []


def test_names_of_devices_are_read_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_devices("cpu, cpu") == ["cpu", "cpu"]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    for text, reason in [
        ("all", "no CUDA support|no CUDA device is visible"),
        ("cuda:0", "no CUDA support|no CUDA device is visible"),
        ("gpu", "not a device"),
        ("", "not a device"),
        ("cpu,", "not a device"),
    ]:
        with pytest.raises(InputError, match=reason):
            parse_devices(text)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert parse_devices("all") == ["cuda:0", "cuda:1", "cuda:2"]
    assert parse_devices("cuda:2,cuda") == ["cuda:2", "cuda:0"]
    with pytest.raises(InputError, match="cuda:0 is named twice"):
        parse_devices("cuda,cuda:0")
    with pytest.raises(InputError, match=r"sees 3 CUDA devices .cuda:0, cuda:1, cuda:2."):
        parse_devices("cuda:3")


def test_a_run_without_devices_or_with_parts_of_no_rows_is_refused(data: Path, tmp_path: Path) -> None:
    spec = FaultySpec(tmp_path, "", tmp_path)
    with pytest.raises(InputError, match="at least one"):
        several(data, spec, tmp_path / "out", [])
    with locked(tmp_path / "out"), pytest.raises(InputError, match="part_rows"):
        score_on_devices(open_corpus([str(data)]), spec, tmp_path / "out", BOTH, RunOptions(part_rows=0))  # type: ignore[arg-type]


@pytest.mark.usefixtures("quick_start")
def test_processes_of_which_one_is_killed_write_the_losses_that_one_writes(
    model: Path, scorer: Scorer, data: Path, place: Path, tmp_path: Path
) -> None:
    with locked(tmp_path / "wanted"):
        score_corpus(open_corpus([str(data)]), scorer, tmp_path / "wanted", part_rows=PART_ROWS, token_losses=True)
    found = several(data, FaultySpec(model, "kill writing losses", place), tmp_path / "found", token_losses=True)
    assert (place / "killed").exists()
    assert assert_losses_fit(found.folder)
    assert loss_bytes(tmp_path / "found") == loss_bytes(tmp_path / "wanted")
    assert leftovers(tmp_path / "found") == []
    for name in ("losses-000002.parquet", "losses-000007.parquet", "part-000005.parquet"):
        (tmp_path / "found" / name).unlink()
    again = several(data, FaultySpec(model, "", place), tmp_path / "found")  # the folder says that it has losses
    assert again.resumed_rows == ROWS - 3 * PART_ROWS
    assert assert_losses_fit(again.folder) == assert_losses_fit(ScoresFolder.open(tmp_path / "wanted"))


@pytest.mark.usefixtures("quick_start")
def test_a_row_that_no_process_survives_has_no_losses(model: Path, data: Path, place: Path, tmp_path: Path) -> None:
    found = several(data, FaultySpec(model, "exit", place), tmp_path / "found", ["cpu"], token_losses=True)
    assert found.counts["worker_lost"] == 1
    assert 33 not in assert_losses_fit(found.folder)
