"""The duplex channel: whole frames in both directions, and protection against programs that misuse it."""

from __future__ import annotations

import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from donod_fast.evaluation.sandbox import Ended, Limits, Process, Sandbox, Timeout, TooLarge

CHANNEL = """
import os, socket, struct, sys
channel = socket.socket(fileno=int(os.environ["DONOD_CHANNEL"]))

def take(count):
    data = b""
    while len(data) < count:
        part = channel.recv(count - len(data))
        if not part:
            sys.exit(3)
        data += part
    return data

def receive():
    return take(struct.unpack(">I", take(4))[0])

def send(data):
    channel.sendall(struct.pack(">I", len(data)) + data)
"""


def start(sandbox: Sandbox, text: str, **limits: float) -> Process:
    files = {"main.py": CHANNEL + textwrap.dedent(text)}
    given = Limits(**{"seconds": 20, **limits})  # type: ignore[arg-type]
    return sandbox.start(files, ["{python}", "{program}/main.py"], limits=given)


def soon(seconds: float = 15.0) -> float:
    return time.monotonic() + seconds


def test_frames_of_every_size_go_and_come_back(sandbox: Sandbox) -> None:
    with start(sandbox, "while True: send(receive()[::-1])") as process:
        for size in (0, 1, 3, 4, 5, 70_000, 3_000_000):
            data = bytes(range(256)) * (size // 256) + bytes(size % 256)
            sender = threading.Thread(target=process.send, args=(data,))
            sender.start()
            assert process.receive(soon(), 1 << 22) == data[::-1]
            sender.join()


def test_the_rest_of_a_frame_is_sent_after_a_time_out(sandbox: Sandbox) -> None:
    # The program reads nothing before its own frame is read.
    with start(sandbox, "send(bytes(3_000_000))\nsend(receive()[::-1])") as process:
        data = bytes(range(256)) * 12_000
        with pytest.raises(Timeout):
            process.send(data, time.monotonic())
        with pytest.raises(Timeout):
            process.send(b"another", soon())
        assert len(process.receive(soon(), 1 << 22)) == 3_000_000
        process.send_rest(soon())
        assert process.receive(soon(), 1 << 22) == data[::-1]


def test_finish_lets_the_program_see_the_end(sandbox: Sandbox) -> None:
    with start(sandbox, "print(receive().decode(), flush=True)\nreceive()") as process:
        process.send(b"hello")
        done = process.finish()
        assert (done.how, done.code, done.stdout) == ("exited", 3, b"hello\n")
        assert process.finish() is done is process.kill()


def test_leaving_the_context_kills_the_program(sandbox: Sandbox) -> None:
    with start(sandbox, "send(b'ready')\nimport time\ntime.sleep(1000)") as process:
        assert process.receive(soon(), 10) == b"ready"
    assert process.finish().how == "killed"


def test_silence_is_a_timeout_and_a_later_answer_is_still_read(sandbox: Sandbox) -> None:
    text = """
        import time
        data = struct.pack(">I", 6) + b"answer"
        channel.sendall(data[:3])
        receive()
        channel.sendall(data[3:])
        receive()
        """
    with start(sandbox, text) as process:
        with pytest.raises(Timeout):
            process.receive(soon(0.3), 100)
        process.send(b"go on")
        assert process.receive(soon(), 100) == b"answer"


@pytest.mark.parametrize(
    "text",
    [
        "os._exit(0)",
        "channel.close()\nimport time\ntime.sleep(1000)",
        "channel.sendall(b'\\0\\0\\0\\x09part')\nos._exit(0)",
    ],
    ids=["exits", "closes", "half a frame"],
)
def test_a_program_that_goes_away_has_ended(sandbox: Sandbox, text: str) -> None:
    with start(sandbox, text) as process, pytest.raises(Ended):
        process.receive(soon(), 100)


def test_an_announced_length_is_not_believed(sandbox: Sandbox) -> None:
    with start(sandbox, "channel.sendall(b'\\xff' * 100)\nreceive()") as process:
        for _ in range(2):
            with pytest.raises(TooLarge, match="4294967295"):
                process.receive(soon(), 1 << 20)


def test_garbage_without_end_fills_nothing(sandbox: Sandbox) -> None:
    text = "while True: channel.sendall(b'\\0\\0\\0\\x05garbage garbage garbage')"
    with start(sandbox, text) as process:
        assert process.receive(soon(), 100) == b"garba"
        with pytest.raises(TooLarge):
            for _ in range(5):
                process.receive(soon(), 100)


def test_a_program_that_never_reads_cannot_hold_the_sender(sandbox: Sandbox) -> None:
    with start(sandbox, "while True: pass", seconds=0.5) as process:
        with pytest.raises(Ended):
            process.send(bytes(1 << 24))
        assert process.finish().how == "timeout"


def test_many_threads_use_one_sandbox(sandbox: Sandbox) -> None:
    def ask(number: int) -> bytes:
        with start(sandbox, "send(receive() * 2)\nreceive()") as process:
            process.send(str(number).encode())
            return process.receive(soon(), 100)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(12))) == [str(number).encode() * 2 for number in range(12)]


def test_the_channel_works_after_the_starting_thread_has_ended(sandbox: Sandbox) -> None:
    started: list[Process] = []
    thread = threading.Thread(target=lambda: started.append(start(sandbox, "send(receive())\nreceive()")))
    thread.start()
    thread.join()
    with started[0] as process:
        time.sleep(0.2)
        process.send(b"still here")
        assert process.receive(soon(), 100) == b"still here"
