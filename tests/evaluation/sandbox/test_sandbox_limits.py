"""Every limit ends a program that exceeds it, with a clear verdict, and does not affect a program within it."""

from __future__ import annotations

import secrets
import threading

import pytest
from sandbox_runs import output, processes_with, run

from donod_fast.errors import InputError
from donod_fast.evaluation.sandbox import Limits, Sandbox

MIB = 1 << 20


@pytest.mark.parametrize(
    "text",
    [
        "import time\ntime.sleep(1000)",
        "while True: pass",
        """
        import signal, time
        for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True: time.sleep(1000)
        """,
        "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
        "import sys\nsys.stdin.read()\nimport threading\nthreading.Event().wait()",
    ],
    ids=["sleeps", "computes", "ignores signals", "stops itself", "waits"],
)
def test_wall_time(sandbox: Sandbox, text: str) -> None:
    done = run(sandbox, text, seconds=0.4, cpu_seconds=30)
    assert (done.how, done.code) == ("timeout", None)
    assert done.seconds >= 0.4


def test_processor_time(sandbox: Sandbox) -> None:
    assert run(sandbox, "while True: pass", cpu_seconds=0.2).how == "timeout"  # the kernel counts whole seconds


def test_processor_time_of_a_program_that_will_not_hear_of_it(best_sandbox: Sandbox) -> None:
    text = "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass"
    assert run(best_sandbox, text, cpu_seconds=1).how == "timeout"


def test_memory_of_one_process(sandbox: Sandbox) -> None:
    text = "held = []\nwhile True:\n    held.append(bytearray(1 << 22))"
    done = run(sandbox, text, memory=150 * MIB)
    assert b"MemoryError" in done.stderr
    assert done.peak_memory is not None and 50 * MIB < done.peak_memory <= 160 * MIB


def test_memory_of_many_processes_adds_up(sandbox: Sandbox) -> None:
    text = """
        import os, time
        for _ in range(8):
            if os.fork() == 0:
                held = bytearray(b"x") * (60 << 20)
                time.sleep(1000)
        time.sleep(1000)
        """
    done = run(sandbox, text, memory=200 * MIB)
    assert done.how == "memory"


def test_shared_memory_counts_once(sandbox: Sandbox) -> None:
    text = """
        import os, time
        held = bytearray(b"x") * (60 << 20)
        for _ in range(8):
            if os.fork() == 0:
                time.sleep(0.3)
                os._exit(0)
        while True:
            try:
                os.wait()
            except ChildProcessError:
                break
        print("done")
        """
    assert output(sandbox, text, memory=200 * MIB) == "done"


def test_processes(sandbox: Sandbox) -> None:
    text = """
        import os, time
        made = 0
        try:
            while made < 500:
                if os.fork() == 0:
                    time.sleep(1000)
                made += 1
        except BlockingIOError:
            print(made)
        """
    assert output(sandbox, text, processes=10) == "9"  # beside the program itself


def test_threads_count_as_processes(sandbox: Sandbox) -> None:
    text = """
        import os, threading, time
        made = 0
        try:
            for _ in range(100):
                threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
                made += 1
        except RuntimeError:
            os.write(1, f"{made}\\n".encode())
        os._exit(0)
        """
    assert output(sandbox, text, processes=10) == "9"


def test_a_fork_bomb_stays_small_and_ends(sandbox: Sandbox) -> None:
    marker = secrets.token_hex(16)
    text = """
        import os
        while True:
            try:
                os.fork()
            except OSError:
                pass
        """
    most = 0
    stop = threading.Event()

    def look() -> None:
        nonlocal most
        while not stop.wait(0.02):
            most = max(most, len(processes_with(marker)))

    watcher = threading.Thread(target=look)
    watcher.start()
    done = run(sandbox, text, marker, seconds=1.0)
    stop.set()
    watcher.join()
    assert done.how == "timeout"
    assert 2 < most <= sandbox.limits.processes
    assert processes_with(marker) == []


def test_sandboxes_side_by_side_do_not_share_the_limit_on_processes(sandbox: Sandbox) -> None:
    text = """
        import os, time
        for _ in range(8):
            if os.fork() == 0:
                time.sleep(1000)
        time.sleep(0.5)
        print("done")
        """
    said: list[str] = []
    threads = [threading.Thread(target=lambda: said.append(output(sandbox, text, processes=10))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == ["done"] * 4


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_output(sandbox: Sandbox, stream: str) -> None:
    done = run(sandbox, f"import sys\nwhile True:\n    sys.{stream}.write('x' * 100_000)", output=300_000)
    assert done.how == "output"
    assert getattr(done, stream) == b"x" * 300_000
    assert len(done.stdout) + len(done.stderr) == 300_000


def test_output_up_to_the_limit_is_kept_whole(sandbox: Sandbox) -> None:
    done = run(sandbox, "import sys\nsys.stdout.write('o' * 200_000)\nsys.stderr.write('e' * 100_000)", output=300_000)
    assert (done.how, done.code, done.stdout, done.stderr) == ("exited", 0, b"o" * 200_000, b"e" * 100_000)


def test_size_of_a_file(sandbox: Sandbox) -> None:
    text = """
        import os
        try:
            with open("big", "wb", buffering=0) as file:
                while True:
                    file.write(bytes(1 << 16))
        except OSError as error:
            print(os.strerror(error.errno), os.path.getsize("big"))
        """
    assert output(sandbox, text, file_size=MIB) == f"File too large {MIB}"


def test_size_of_the_scratch_folder(sandbox: Sandbox) -> None:
    text = """
        import os
        held = 0
        try:
            for number in range(100):
                with open(f"file{number}", "wb", buffering=0) as file:
                    for _ in range(8):
                        held += file.write(bytes(1 << 16))
        except OSError as error:
            print(os.strerror(error.errno), held // (1 << 20))
        """
    reason, _, held = output(sandbox, text, scratch=8 * MIB).rpartition(" ")
    assert reason == "No space left on device"
    assert 6 <= int(held) <= 8


def test_number_of_files(sandbox: Sandbox) -> None:
    text = """
        import os, time
        try:
            for number in range(1_000_000):
                os.mkdir(f"{number}")
        except OSError as error:
            print(os.strerror(error.errno))
        """
    done = run(sandbox, text, files=500)
    assert done.how == "files" or done.stdout == b"No space left on device\n"


def test_open_files(sandbox: Sandbox) -> None:
    text = """
        import os
        try:
            held = [os.open("/dev/null", os.O_RDONLY) for _ in range(10_000)]
        except OSError as error:
            print(os.strerror(error.errno))
        """
    assert output(sandbox, text, open_files=40) == "Too many open files"


def test_pipes_of_all_processes_together(sandbox: Sandbox) -> None:
    text = """
        import os, sys, time
        for _ in range(3):
            if os.fork() == 0:
                held = []
                for _ in range(int(sys.argv[1])):
                    reading, writing = os.pipe()
                    os.close(writing)
                    held.append(reading)
                time.sleep(float(sys.argv[2]))
                os._exit(0)
        for _ in range(3):
            os.wait()
        """
    assert run(sandbox, text, "18", "0.2").how == "exited"
    assert run(sandbox, text, "25", "60").how == "files"


def test_limits_cannot_be_raised_from_inside(sandbox: Sandbox) -> None:
    text = """
        import resource
        for name in ("AS", "CPU", "FSIZE", "NOFILE", "NPROC", "CORE", "MEMLOCK", "SIGPENDING", "RTPRIO"):
            kind = getattr(resource, "RLIMIT_" + name)
            soft, hard = resource.getrlimit(kind)
            try:
                resource.setrlimit(kind, (hard + 1000, hard + 1000))
                print("raised", name)
            except (ValueError, OSError):
                pass
        """
    assert output(sandbox, text) == ""


def test_a_crash_is_told_by_its_signal(sandbox: Sandbox) -> None:
    done = run(sandbox, "import ctypes\nctypes.string_at(0)")
    assert (done.how, done.code) == ("signalled", -11)


def test_exit_codes_come_through(sandbox: Sandbox) -> None:
    for code in (7, 128, 137, 255):
        done = run(sandbox, f"import sys\nsys.exit({code})")
        assert (done.how, done.code) == ("exited", code)
    done = run(sandbox, "print('a', flush=True)\n1 / 0")
    assert (done.how, done.code, done.stdout) == ("exited", 1, b"a\n")
    assert b"ZeroDivisionError" in done.stderr


@pytest.mark.parametrize("name", ["seconds", "memory", "processes", "output", "cpu_seconds"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_invalid_limits_are_refused(name: str, value: float) -> None:
    with pytest.raises(InputError, match=name):
        Limits(**{name: value})  # type: ignore[arg-type]
