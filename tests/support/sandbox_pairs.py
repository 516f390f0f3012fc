"""Hostile programs beside a correct one: what one takes, the other and the machine's user must still have.

A hostile program takes as much of one thing as it can get, says so on its channel, and keeps it.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import replace

from attack_parts import PRELUDE

from donod_fast.evaluation.sandbox import ChannelError, Limits, Sandbox

HOSTILE = {
    "asynchronous input and output": (
        "while True:\n  if call(206, 0, 4096, (ctypes.c_ulong * 1)()) < 0: break\n"
        "in_children(12, lambda: [call(206, 0, 4096,"
        " (ctypes.c_ulong * 1)()) for _ in range(100)])"
    ),
    "inotify": "in_children(12, lambda: [call(294, 26, 0) for _ in range(60)])",
    "keys": "for n in range(300): call(248, 217, b'user', b'k%d' % n, bytes(100), 100, -4)",
    "pipes": (
        "def hog():\n  kept = []\n  while True:\n    reading, writing = os.pipe()\n"
        "    quietly(lambda: fcntl.fcntl(writing, 1031, 1 << 20))\n"
        "    os.set_blocking(writing, False)\n    os.write(writing, bytes(1 << 16))\n    os.close(writing)\n"
        "    kept.append(reading)\n"
        "in_children(14, hog)"
    ),
    "pipes, as many as are allowed": (
        "def hog():\n  kept = []\n  for _ in range(15):\n    reading, writing = os.pipe()\n"
        "    os.set_blocking(writing, False)\n    os.write(writing, bytes(1 << 16))\n    os.close(writing)\n"
        "    kept.append(reading)\n  time.sleep(100)\n"
        "in_children(4, hog)"
    ),
    "processes": "in_children(40, lambda: time.sleep(100))",
    "processes that come and go": (
        "def hog():\n  while True:\n    if os.fork() == 0: os._exit(0)\n    os.wait()\nin_children(12, hog)"
    ),
    "processors": "def hog():\n  while True: pass\nin_children(12, hog)",
    "locks on shared files": (
        "def lock(path):\n  one = os.open(path, os.O_RDONLY)\n"
        "  quietly(lambda: fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB))\n"
        "  quietly(lambda: fcntl.lockf(one, fcntl.LOCK_SH | fcntl.LOCK_NB))\n"
        "  quietly(lambda: fcntl.fcntl(one, 1024, fcntl.F_RDLCK))\n"
        "for path in (os.__file__, socket.__file__, sys.executable): lock(path)"
    ),
    "timers": "in_children(12, lambda: [call(222, 107, 1, 0, (ctypes.c_int * 1)()) for _ in range(20000)])",
    "signals": (
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN])\n"
        "for _ in range(150000): libc.kill(os.getpid(), int(signal.SIGRTMIN))"
    ),
    "descriptors in flight": (
        "kept = []\nwhile True:\n  left, right = socket.socketpair()\n  socket.send_fds(left, [b'x'], [0] * 60)\n"
        "  left.close()\n  kept.append(right)"
    ),
    "descriptors": "in_children(14, lambda: [os.open('/dev/null', 0) for _ in range(100)])",
    "watches": (
        "import select\ndef hog():\n  one = [select.epoll() for _ in range(25)]\n"
        "  kept = [os.eventfd(0) for _ in range(20)]\n"
        "  for poll in one:\n    for each in kept: poll.register(each, 1)\nin_children(14, hog)"
    ),
    "terminals": "in_children(12, lambda: [os.openpty() for _ in range(60)])",
    "ports and names": (
        "kept = []\nfor n in range(50):\n"
        "  one = socket.socket(); one.bind(('127.0.0.1', 40000 + n)); one.listen(); kept.append(one)"
    ),
    "files": "n = 0\nwhile True:\n  n += 1\n  os.mkdir(str(n)); open(f'{n}/x', 'w').write('x' * 5000)",
    "memory": "def hog():\n  kept = []\n  while True: kept.append(bytearray(b'x') * (8 << 20))\nin_children(12, hog)",
    "namespaces": "for _ in range(100): call(272, 97, 0x10000000); call(56, 220, 0x7E020011, 0, 0, 0, 0)",
    "message queues": "in_children(4, lambda: [call(240, 180, b'q%d' % n, 0o102, 0o600, 0) for n in range(50)])",
    "kills everything": "os.kill(-1, 9)",
}

TOGETHER = {"pipes, as many as are allowed": 8}
"""How many hostile programs run at a time, where the usual number is too small."""

_READY = "\nos.write(int(os.environ['DONOD_CHANNEL']), struct.pack('>I', 5) + b'ready')\ntime.sleep(100)\n"

CORRECT = """
import os, select, signal, socket, subprocess, sys, tempfile, threading
from multiprocessing import Pool
reading, writing = os.pipe()
os.write(writing, bytes(60_000))
print(sum(len(os.read(reading, 1000)) for _ in range(60)))
children = []
for _ in range(8):
    child = os.fork()
    if child == 0:
        os._exit(3)
    children.append(child)
print(sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
kept = [open(f"file{number}", "w") for number in range(40)]
for number in range(500):
    os.mkdir(f"folder{number}")
print(len(os.listdir(".")), len({file.fileno() for file in kept}))
for file in kept:
    file.close()
threads = [threading.Thread(target=lambda: None) for _ in range(8)]
for thread in threads:
    thread.start()
left, right = socket.socketpair()
left.send(bytes(100_000))
poll = select.epoll()
poll.register(right, select.EPOLLIN)
print(len(poll.poll(1)), len(right.recv(1000)), len(bytearray(100 << 20)))
with tempfile.NamedTemporaryFile() as file:
    file.write(bytes(1 << 20))
with Pool(2) as pool:
    print(pool.map(abs, [-1, -2, -3]))
print(subprocess.run([sys.executable, "-S", "-c", "print('child')"], capture_output=True, text=True).stdout.strip())
"""
EXPECTED = "60000\n24\n540 40\n1 1000 104857600\n[1, 2, 3]\nchild\n"


def beside(sandbox: Sandbox, text: str, hostile: int) -> list[str]:
    """What was wrong with a correct program, and with what the user has, while hostile programs ran and thereafter."""
    wrong: list[str] = []
    long = replace(sandbox.limits, seconds=60.0, cpu_seconds=60.0)
    with ExitStack() as stack:
        others = [
            stack.enter_context(
                sandbox.start(
                    {"main.py": f"{PRELUDE}\ntry:\n{_indented(text)}\nexcept BaseException: pass\n{_READY}"},
                    ["{python}", "{program}/main.py"],
                    limits=long,
                )
            )
            for _ in range(hostile)
        ]
        for other in others:
            with suppress(ChannelError):
                other.receive(time.monotonic() + 5, 5)
        wrong += [f"meanwhile: {what}" for what in _wrong(sandbox, long)]
    wrong += [f"afterwards: {what}" for what in _wrong(sandbox, long)]
    return wrong


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _wrong(sandbox: Sandbox, limits: Limits) -> list[str]:
    found = []
    done = sandbox.run({"main.py": CORRECT}, ["{python}", "{program}/main.py"], limits=limits)
    if (done.how, done.code, done.stdout.decode()) != ("exited", 0, EXPECTED):
        found.append(f"{done.how} {done.code} {done.stdout!r} {done.stderr[-300:]!r}")
    for name, action in _NEEDS.items():
        try:
            if not action():
                found.append(f"the user's {name}")
        except OSError as error:
            found.append(f"the user's {name}: {error}")
    return found


def _call(x86: int, arm: int, *given: object) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    result = libc.syscall(ctypes.c_long(arm if os.uname().machine == "aarch64" else x86), *given)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return True


def _lock() -> bool:
    for path in (os.__file__, socket.__file__):
        with open(path, "rb") as file:  # noqa: PTH123
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return True


def _pipe() -> bool:
    ends = os.pipe()
    try:
        return fcntl.fcntl(ends[0], 1032) == 1 << 16
    finally:
        for end in ends:
            os.close(end)


def _inotify() -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(0)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "inotify")
    os.close(descriptor)
    return True


def _asynchronous() -> bool:
    context = ctypes.c_ulong()
    _call(206, 0, ctypes.c_long(1024), ctypes.byref(context))
    return _call(207, 1, context)


def _terminal() -> bool:
    for end in os.openpty():
        os.close(end)
    return True


def _in_flight() -> bool:
    left, right = socket.socketpair()
    with left, right:
        socket.send_fds(left, [b"x"], [0])
        for descriptor in socket.recv_fds(right, 1, 1)[1]:
            os.close(descriptor)
    return True


def _file() -> bool:
    with tempfile.TemporaryFile() as file:
        return file.write(b"x") == 1


_NEEDS = {
    "locks": _lock,
    "pipes": _pipe,
    "inotify": _inotify,
    "asynchronous input and output": _asynchronous,
    "descriptors in flight": _in_flight,
    "terminals": _terminal,
    "files": _file,
}
