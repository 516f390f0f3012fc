"""However a program ends, no process that it started is left; observed from outside by a marker in argv."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sandbox_runs import output, processes_with, run, wait_for

from donod_fast.errors import SandboxError
from donod_fast.evaluation.sandbox import Sandbox
from donod_fast.evaluation.sandbox import process as process_module
from donod_fast.evaluation.sandbox.launcher import LAUNCHER

HERE = Path(__file__).resolve()
DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in (0, 1, 2):
            os.close(number)
        while True:
            time.sleep(1000)
    os._exit(0)
os.wait()
"""


def check_daemon_ends(sandbox: Sandbox) -> None:
    marker = secrets.token_hex(16)
    assert output(sandbox, DAEMON + "print('left', flush=True)", marker) == "left"
    assert processes_with(marker) == []


def test_a_daemon_does_not_outlive_its_program(sandbox: Sandbox) -> None:
    check_daemon_ends(sandbox)


def test_a_daemon_does_not_outlive_its_program_without_walls(unsafe_sandbox: Sandbox) -> None:
    check_daemon_ends(unsafe_sandbox)


@pytest.mark.parametrize(
    "text",
    [
        DAEMON + "time.sleep(1000)",
        DAEMON + "import threading\n[threading.Thread(target=time.sleep, args=(1000,)).start() for _ in range(3)]",
        "import os\nfor _ in range(6): os.fork()\nos.setpgid(0, 0)\nwhile True: pass",
        DAEMON + "os.execv(sys.executable, [sys.executable, '-c', 'while True: pass', sys.argv[1]])",
    ],
    ids=["daemon", "threads", "groups", "executed anew"],
)
def test_everything_ends_with_the_with_block(sandbox: Sandbox, text: str) -> None:
    marker = secrets.token_hex(16)
    with sandbox.start({"main.py": text}, ["{python}", "{program}/main.py", marker]) as process:
        assert wait_for(lambda: len(processes_with(marker)) > 1)
    assert processes_with(marker) == []
    assert process.finish().how == "killed"


def test_everything_ends_with_an_exception_of_the_caller(sandbox: Sandbox) -> None:
    marker = secrets.token_hex(16)
    with (
        pytest.raises(KeyboardInterrupt),
        sandbox.start({"main.py": DAEMON}, ["{python}", "{program}/main.py", marker]),
    ):
        raise KeyboardInterrupt
    assert processes_with(marker) == []


def test_a_forgotten_process_ends_when_it_is_collected(sandbox: Sandbox) -> None:
    marker = secrets.token_hex(16)
    process = sandbox.start({"main.py": DAEMON + "time.sleep(1000)"}, ["{python}", "{program}/main.py", marker])
    assert wait_for(lambda: bool(processes_with(marker)))
    del process
    assert wait_for(lambda: not processes_with(marker))


CALLER = """
import sys, threading
from donod_fast.evaluation.sandbox import Isolation, Limits, Sandbox
sandbox = Sandbox(Isolation(sys.argv[1]), Limits(seconds=120))
command = ["{python}", "{program}/main.py", sys.argv[2]]
sandbox.run({"main.py": sys.argv[3]}, command)
"""


FORKED = """
import os, time
first = sandbox.start({}, ["{python}", "-c", "import time; time.sleep(1000)", sys.argv[2]])
if os.fork() == 0:
    print(sandbox.run({}, ["{python}", "-c", "print('from the fork')"]).stdout.decode(), end="", flush=True)
    print(os.getpid(), flush=True)
    time.sleep(60)
    os._exit(0)
"""


def killed_caller_leaves_nothing(sandbox: Sandbox, kill: Callable[[subprocess.Popen[bytes], str], None]) -> None:
    marker = secrets.token_hex(16)
    text = DAEMON + "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\ntime.sleep(1000)"
    caller = subprocess.Popen([sys.executable, "-c", CALLER, sandbox.isolation, marker, text])
    try:
        assert wait_for(lambda: len(processes_with(marker)) >= 3)  # the caller, the program, the daemon
        kill(caller, marker)
    finally:
        caller.kill()
        caller.wait()
    assert wait_for(lambda: not processes_with(marker))


def test_a_killed_caller_leaves_nothing(sandbox: Sandbox) -> None:
    killed_caller_leaves_nothing(sandbox, lambda caller, _: caller.kill())


def test_a_killed_caller_leaves_nothing_without_walls(unsafe_sandbox: Sandbox) -> None:
    killed_caller_leaves_nothing(unsafe_sandbox, lambda caller, _: caller.kill())


def _children(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def test_a_killed_monitor_leaves_nothing(sandbox: Sandbox) -> None:
    def kill_monitor(caller: subprocess.Popen[bytes], marker: str) -> None:
        for monitor in _children(_children(caller.pid)[0]):
            os.kill(monitor, signal.SIGKILL)
        assert wait_for(lambda: processes_with(marker) == [caller.pid] or caller.poll() is not None)

    killed_caller_leaves_nothing(sandbox, kill_monitor)


def test_a_killed_monitor_is_an_error(sandbox: Sandbox) -> None:
    marker = secrets.token_hex(16)
    with sandbox.start({}, ["{python}", "-c", "import time; time.sleep(1000)", marker]) as process:
        assert wait_for(lambda: bool(processes_with(marker)))
        server = LAUNCHER._server
        assert server is not None
        for monitor in _children(server.pid):
            os.kill(monitor, signal.SIGKILL)
        with pytest.raises(SandboxError, match="without a report"):
            process.finish()


def test_a_stopped_monitor_is_killed_and_its_sandbox_with_it(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = secrets.token_hex(16)
    monkeypatch.setattr(process_module, "_GRACE", 0.5)
    with sandbox.start({}, ["{python}", "-c", "import time; time.sleep(1000)", marker]) as process:
        assert wait_for(lambda: bool(processes_with(marker)))
        server = LAUNCHER._server
        assert server is not None
        for monitor in _children(server.pid):
            os.kill(monitor, signal.SIGSTOP)
        with pytest.raises(SandboxError, match="without a report"):
            process.kill()
    assert wait_for(lambda: not processes_with(marker))


def test_a_killed_server_is_replaced_and_running_programs_go_on(sandbox: Sandbox) -> None:
    marker = secrets.token_hex(16)
    with sandbox.start({}, ["{python}", "-c", "import time; time.sleep(0.7); print('done')", marker]) as process:
        assert wait_for(lambda: bool(processes_with(marker)))
        server = LAUNCHER._server
        assert server is not None
        server.kill()
        server.wait()
        assert output(sandbox, "print('next')") == "next"
        assert process.finish().stdout == b"done\n"


def test_a_fork_of_the_caller_starts_a_new_server(sandbox: Sandbox) -> None:
    marker = secrets.token_hex(16)
    text = CALLER.replace("sandbox.run(", FORKED + "sandbox.run(").replace(
        ", sys.argv[2]]", ", sys.argv[2], sys.argv[4]]"
    )
    command = [sys.executable, "-c", text, sandbox.isolation, marker, "import time\ntime.sleep(1000)", marker[::-1]]
    caller = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert caller.stdout is not None
    try:
        assert caller.stdout.readline() == b"from the fork\n"
        lingering = int(caller.stdout.readline())
        assert wait_for(lambda: len(processes_with("/program/main.py")) > 0)
    finally:
        caller.kill()
        caller.wait()
    try:
        assert wait_for(lambda: [p for p in processes_with(marker) if p != lingering] == [])
    finally:
        os.kill(lingering, signal.SIGKILL)


def test_killing_every_process_in_sight_ends_only_the_program(sandbox: Sandbox) -> None:
    text = """
        import os, signal
        os.fork()
        try:
            os.kill(-1, signal.SIGKILL)
        except OSError:
            pass
        os.kill(os.getpid(), signal.SIGKILL)
        """
    before = time.monotonic()
    done = run(sandbox, text)
    assert (done.how, done.code) == ("signalled", -9)
    assert time.monotonic() - before < 15  # and so the limit on time was not what ended it


def test_no_descriptor_and_no_zombie_stays_with_the_caller(sandbox: Sandbox) -> None:
    def state() -> tuple[int, list[int]]:
        return len(list(Path("/proc/self/fd").iterdir())), _children(os.getpid())

    run(sandbox, "pass")
    before = state()
    for text in ("pass", "1 / 0", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"):
        run(sandbox, text)
    with sandbox.start({}, ["{python}", "-c", "while True: pass"]):
        pass
    with pytest.raises(SandboxError):
        sandbox.run({}, ["/no/such/program"])
    assert state() == before
