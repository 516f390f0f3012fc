"""A process that imports everything once and forks the command line into odd surroundings. It runs as a program.

It reads cases, a line of JSON each, and writes what became of each: exit code, output, errors, and what was left
behind. Every case works in an own copy of a small stage (a model, rows, a scores folder, an evaluation). A forked
command ends as a fresh one would: with all that runs at exit, a last flush of the streams, and exit code 120 where that
fails.
"""

from __future__ import annotations

import atexit
import ctypes
import datetime as datetime_module
import gc
import io
import json
import os
import resource
import shutil
import signal
import sys
import termios
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

PATIENCE_SECONDS = 120
"""A command that is not over by then counts as hanging, and is killed."""

SIGNALS = ("hangup", "terminate", "interrupt", "interrupt_twice", "terminate_twice")
SURROUNDINGS: dict[str, Callable[[], None]] = {}
_NEW_MOUNTS = 0x00020000
_READ_ONLY, _REMOUNT, _BIND, _RECURSIVE, _PRIVATE = 1, 32, 4096, 16384, 1 << 18


def surrounding(change: Callable[[], None]) -> Callable[[], None]:
    """Register a function that changes what is around a command, right before it starts."""
    SURROUNDINGS[change.__name__] = change
    return change


def _mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = [None if text is None else text.encode() for text in (source, target, kind)]
    if libc.mount(*arguments, flags, options.encode()) != 0:
        raise OSError(ctypes.get_errno(), f"mount {target}")


def _own_mounts() -> None:
    if ctypes.CDLL(None).unshare(_NEW_MOUNTS) != 0:
        raise PermissionError("no mount namespace")
    _mount("none", "/", None, _PRIVATE | _RECURSIVE)


def _stream(descriptor: int, path: str) -> None:
    opened = os.open(path, os.O_WRONLY)
    os.dup2(opened, descriptor)
    os.close(opened)


@surrounding
def nothing_odd() -> None:
    pass


@surrounding
def full_stdout() -> None:
    _stream(1, "/dev/full")


@surrounding
def full_stderr() -> None:
    _stream(2, "/dev/full")


@surrounding
def full_streams() -> None:
    full_stdout()
    full_stderr()


@surrounding
def closed_stdin() -> None:
    os.close(0)


@surrounding
def closed_stdout() -> None:
    os.close(1)


@surrounding
def closed_stderr() -> None:
    os.close(2)


@surrounding
def closed_streams() -> None:
    for descriptor in (0, 1, 2):
        os.close(descriptor)


@surrounding
def stdout_without_reader() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, 1)
    os.close(writer)


@surrounding
def streams_without_reader() -> None:
    stdout_without_reader()
    os.dup2(1, 2)


@surrounding
def full_disk() -> None:
    _own_mounts()
    Path("out").mkdir()
    _mount("none", "out", "tmpfs", 0, "size=8k")


@surrounding
def full_temporary_disk() -> None:
    _own_mounts()
    _mount("none", os.environ["TMPDIR"], "tmpfs", 0, "size=4k")


@surrounding
def small_files_only() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))


@surrounding
def read_only_output() -> None:
    _own_mounts()
    Path("out").mkdir()
    _mount("none", "out", "tmpfs", _READ_ONLY, "size=8k")


@surrounding
def read_only_everything() -> None:
    _own_mounts()
    _mount("none", "/", None, _REMOUNT | _BIND | _READ_ONLY)
    for place in {str(Path.cwd()), os.environ["TMPDIR"]}:
        _mount(place, place, None, _BIND)
        _mount("none", place, None, _REMOUNT | _BIND | _READ_ONLY)


@surrounding
def no_proc() -> None:
    _own_mounts()
    _mount("none", "/proc", "tmpfs", 0, "size=4k")


@surrounding
def removed_folder() -> None:
    Path("gone").mkdir()
    os.chdir("gone")
    Path("../gone").rmdir()


@surrounding
def few_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))


@surrounding
def very_few_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))


def _memory(more: int) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + more, used + more))


@surrounding
def little_memory() -> None:
    _memory(256 << 20)


@surrounding
def some_memory() -> None:
    """Enough for every command, and not for a file without an end."""
    _memory(4 << 30)


@surrounding
def very_little_memory() -> None:
    _memory(16 << 20)


@surrounding
def no_memory() -> None:
    _memory(1 << 20)


@surrounding
def no_home() -> None:
    os.environ.pop("HOME", None)


@surrounding
def missing_home() -> None:
    os.environ["HOME"] = "/dev/null/home"


@surrounding
def missing_temporary_folder() -> None:
    os.environ["TMPDIR"] = "/dev/null/temporary"


@surrounding
def no_temporary_folder() -> None:
    _own_mounts()
    os.environ["TMPDIR"] = "/dev/null/temporary"
    for place in ("/tmp", "/var/tmp", str(Path.cwd())):  # the stage is under one of them
        if place == "/tmp" and str(Path.cwd()).startswith("/tmp/"):
            continue
        _mount("none", place, None, _BIND | _REMOUNT | _READ_ONLY) if os.path.ismount(place) else None
    os.environ["TEMP"] = os.environ["TMP"] = "/dev/null/temporary"


@surrounding
def private_umask() -> None:
    os.umask(0o077)


@surrounding
def open_umask() -> None:
    os.umask(0)


@surrounding
def closed_umask() -> None:
    os.umask(0o777)


def _clock(now: Callable[[], float]) -> None:
    time.time = now  # type: ignore[assignment]
    time.time_ns = lambda: int(now() * 1e9)  # type: ignore[assignment]

    class Clock(datetime_module.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return cls.fromtimestamp(now(), tz)

    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("donod_fast") and hasattr(module, "datetime"):
            found = module.datetime
            if found is datetime_module.datetime:
                module.datetime = Clock  # type: ignore[attr-defined]


@surrounding
def clock_at_1970() -> None:
    _clock(lambda: 0.0)


@surrounding
def clock_before_1970() -> None:
    _clock(lambda: -86400.0 * 400)


@surrounding
def clock_at_2100() -> None:
    _clock(lambda: 4102444800.0)


@surrounding
def clock_that_runs_backwards() -> None:
    start, steps = time.time(), [0]

    def now() -> float:
        steps[0] += 1
        return start - 3600.0 * steps[0]

    _clock(now)


@surrounding
def files_of_1970() -> None:
    for file in Path().rglob("*"):
        os.utime(file, (0, 0))


@surrounding
def files_before_1970() -> None:
    for file in Path().rglob("*"):
        os.utime(file, (-(10**9), -(10**9)))


@surrounding
def files_of_2100() -> None:
    for file in Path().rglob("*"):
        os.utime(file, (4102444800, 4102444800))


def _at_first_part(change: Callable[[], None]) -> None:
    """Have ``change`` done as soon as the first part has its name."""
    replace, done = Path.replace, [False]

    def watched(path: Path, target: Any) -> Any:
        result = replace(path, target)
        if "part-" in Path(target).name and not done[0]:
            done[0] = True
            change()
        return result

    Path.replace = watched  # type: ignore[method-assign,assignment]


@surrounding
def plan_deleted_in_mid_run() -> None:
    _at_first_part(lambda: Path("out/plan.parquet").unlink(missing_ok=True))


@surrounding
def manifest_deleted_in_mid_run() -> None:
    _at_first_part(lambda: Path("out/manifest.json").unlink(missing_ok=True))


@surrounding
def output_deleted_in_mid_run() -> None:
    _at_first_part(lambda: shutil.rmtree("out", ignore_errors=True))


@surrounding
def output_replaced_in_mid_run() -> None:
    def change() -> None:
        shutil.rmtree("out", ignore_errors=True)
        Path("out").write_bytes(b"a file\n")

    _at_first_part(change)


@surrounding
def input_deleted_in_mid_run() -> None:
    _at_first_part(lambda: Path("rows.jsonl").unlink(missing_ok=True))


@surrounding
def folder_removed_in_mid_run() -> None:
    _at_first_part(lambda: shutil.rmtree(str(Path.cwd()), ignore_errors=True))


@surrounding
def hangup() -> None:
    _signalled(signal.SIGHUP)


@surrounding
def terminate() -> None:
    _signalled(signal.SIGTERM)


@surrounding
def interrupt() -> None:
    _signalled(signal.SIGINT)


@surrounding
def interrupt_twice() -> None:
    _signalled(signal.SIGINT, signal.SIGINT)


@surrounding
def terminate_twice() -> None:
    _signalled(signal.SIGTERM, signal.SIGTERM)


DELAY_SECONDS = [0.0]
_KEPT: list[Any] = []


def _signalled(*numbers: signal.Signals) -> None:
    """Have this process get signals after a delay, however far it is then."""
    process = os.getpid()

    def send() -> None:
        time.sleep(DELAY_SECONDS[0])
        for number in numbers:
            os.kill(process, number)
            time.sleep(0.002)

    # A process of its own: a thread would compete with the command for the interpreter.
    if os.fork() == 0:
        try:
            if os.fork() == 0:
                os.setsid()  # it is no process of the command's
                send()
        finally:
            os._exit(0)
    os.wait()


def _as_at_start(encoding: str, terminal: bool) -> None:
    """Give this process the standard streams that an interpreter makes when it starts."""
    _KEPT.extend((sys.stdin, sys.stdout, sys.stderr))  # collected, they would close descriptors that are others' by now
    for name, descriptor, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            setattr(sys, name, None)
            setattr(sys, f"__{name}__", None)
            continue
        raw = io.FileIO(descriptor, mode, closefd=False)
        buffered: Any = io.BufferedReader(raw) if mode == "r" else io.BufferedWriter(raw)
        errors = "backslashreplace" if name == "stderr" else "strict"
        stream = io.TextIOWrapper(buffered, encoding, errors, line_buffering=name == "stderr" or terminal)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def start(case: dict[str, Any], place: Path) -> None:
    """In the forked process: make the surroundings, and become the command."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for name, descriptor in (("input", 0), ("output", 1), ("errors", 2)):
        path = os.ttyname(case["shown"]) if descriptor and "shown" in case else place.parent / name
        opened = os.open(path, os.O_RDONLY if descriptor == 0 else os.O_WRONLY)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.closerange(3, 64)
    os.chdir(place)
    for name in ("TMPDIR", "TEMP", "TMP"):
        os.environ.pop(name, None)
    os.environ["TMPDIR"] = str(place.parent / "temporary")
    import tempfile

    tempfile.tempdir = None
    DELAY_SECONDS[0] = case.get("delay", 0.0)
    os.environ.update(case.get("environment", {}))
    SURROUNDINGS[case.get("surrounding", "nothing_odd")]()
    _as_at_start(case.get("encoding", "utf-8"), "shown" in case)
    sys.argv = ["donod-fast", *(os.fsdecode(bytes.fromhex(word[4:])) if word.startswith("hex:") else word
                                for word in case["arguments"])]  # fmt: skip


def left_behind(place: Path) -> list[str]:
    """Whatever is in the temporary folder, and files beside the output that only a running process has."""
    found = [f"temporary/{file.name}" for file in sorted((place.parent / "temporary").iterdir())]
    if place.is_dir():
        found += [str(file.relative_to(place)) for file in sorted(place.rglob("*.tmp"))]
        found += [str(file.relative_to(place)) for file in sorted(place.rglob(".donod-fast-*"))]
    return found


def group_left(leader: int) -> list[int]:
    """Processes of the command's session that still run a moment after it ended."""
    deadline = time.monotonic() + 10
    while True:
        alive = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[3] == str(leader) and fields[0] != "Z":
                alive.append(int(entry.name))
        if not alive or time.monotonic() > deadline:
            return alive
        time.sleep(0.02)


def run(case: dict[str, Any], stage: Path, scratch: Path) -> dict[str, Any] | None:
    """Fork a case and wait for its end; None in the forked process."""
    root = scratch / case.get("root", f"case-{os.getpid()}")
    place = root / "stage"
    if not case.get("kept"):
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        (root / "temporary").mkdir()
        shutil.copytree(stage, place, symlinks=True)
        for name, given in case.get("files", {}).items():
            target = os.fsdecode(os.fsencode(place) + b"/" + bytes.fromhex(name))
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            Path(target).write_bytes(bytes.fromhex(given))
        for name, kind in case.get("specials", {}).items():
            _special(place / name, kind)
    for name in ("output", "errors"):
        (root / name).write_bytes(b"")
    (root / "input").write_bytes(bytes.fromhex(case.get("input", "")))
    screen: list[bytes] = []
    if case.get("terminal"):
        master, case["shown"] = os.openpty()
        mode = termios.tcgetattr(case["shown"])
        mode[1] &= ~termios.OPOST  # the terminal shows what it gets
        termios.tcsetattr(case["shown"], termios.TCSANOW, mode)
    worker = os.fork()
    if worker == 0:
        start(case, place)
        return None
    if "shown" in case:
        os.close(case["shown"])
        reading = threading.Thread(target=_read_screen, args=(master, screen))
        reading.start()
    ended = threading.Event()

    def give_up() -> None:
        if not ended.wait(case.get("patience", PATIENCE_SECONDS)):
            os.kill(worker, signal.SIGKILL)
            hung.append(True)

    hung: list[bool] = []
    watch = threading.Thread(target=give_up)
    watch.start()
    if "kill" in case:
        time.sleep(case["kill"])
        os.kill(worker, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
    ended.set()
    watch.join()
    if "shown" in case:
        reading.join()
    alive = group_left(worker)
    for number in alive:
        os.kill(number, signal.SIGKILL)
    return {
        "code": code,
        "hung": bool(hung),
        "out": ((root / "output").read_bytes() + b"".join(screen)).hex(),
        "err": (root / "errors").read_bytes().hex(),
        "left": left_behind(place),
        "alive": len(alive),
        "place": str(place),
    }


def _read_screen(master: int, screen: list[bytes]) -> None:
    with suppress(OSError):  # the other end is closed
        while content := os.read(master, 1 << 16):
            screen.append(content)
    os.close(master)


def _special(path: Path, kind: str) -> None:
    path.unlink(missing_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        import socket

        here = str(Path.cwd())
        os.chdir(path.parent)  # the path of a socket is short
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
        os.chdir(here)
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path.name)
    else:
        path.symlink_to(kind)


def _prepare() -> None:
    """Import all that commands import, so that a forked one starts at once."""
    from importlib import import_module

    import torch

    torch.set_num_threads(1)
    from donod_fast.cli.app import Commands

    for command in Commands.table.values():
        import_module(command.place.partition(":")[0])
    for name in (
        "donod_fast.engines.choosing",
        "donod_fast.engines.local",
        "donod_fast.selection.rankers",
        "donod_fast.selection.explain",
        "donod_fast.scores.exporting",
        "donod_fast.scores.merging",
        "donod_fast.data.reading",
        "donod_fast.models.loading",
        "donod_fast.evaluation.browser",
        "donod_fast.evaluation.run",
        "donod_fast.cli.shown_rows",
        "donod_fast.reports.row_page",
        "transformers.models.llama.modeling_llama",
        "transformers.models.auto.tokenization_auto",
        "transformers.tokenization_utils_tokenizers",
        "tqdm",
        "rich.console",
        "rich.table",
        "rich.syntax",
    ):
        import_module(name)


def main() -> None:
    """Read cases until the input ends."""
    stage, scratch = map(Path, sys.argv[1:3])
    _prepare()
    gc.freeze()
    answers = os.fdopen(os.dup(1), "w")
    for line in iter(sys.stdin.readline, ""):
        outcome = run(json.loads(line), stage, scratch)
        if outcome is None:
            break
        print(json.dumps(outcome), file=answers, flush=True)
    else:
        return
    leave(*_ended())


def _ended() -> tuple[int, BaseException | None]:
    from donod_fast.cli import main as command

    try:
        command()
    except SystemExit as leaving:
        return (leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)), None
    except BaseException as error:
        return 1, error
    return 0, None


def leave(code: int, error: BaseException | None) -> None:
    """Do what an interpreter does at its end; taking it down with all of torch would take a second."""
    if error is not None:
        sys.excepthook(type(error), error, error.__traceback__)
        if isinstance(error, KeyboardInterrupt):
            code = -2
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except Exception:
            code = 120
            with suppress(Exception):
                os.write(2, b"Exception ignored in: the last flush\n")
    os._exit(code & 255)


if __name__ == "__main__":
    main()
