"""Run small programs in a sandbox, and inspect the machine's processes from outside."""

from __future__ import annotations

import os
import textwrap
import time
from dataclasses import replace
from pathlib import Path

from donod_fast.evaluation.sandbox import Finished, Sandbox


def run(sandbox: Sandbox, text: str, *arguments: str, **limits: float) -> Finished:
    """Run the text of a Python program."""
    command = ["{python}", "{program}/main.py", *arguments]
    return sandbox.run({"main.py": textwrap.dedent(text)}, command, limits=replace(sandbox.limits, **limits))


def output(sandbox: Sandbox, text: str, *arguments: str, **limits: float) -> str:
    """What a program that must end well printed."""
    done = run(sandbox, text, *arguments, **limits)
    assert (done.how, done.code, done.stderr) == ("exited", 0, b"")
    return done.stdout.decode().strip()


def processes_with(marker: str) -> list[int]:
    """The machine's living processes that have ``marker`` in an argument."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z" and marker.encode() in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue
    return found


def wait_for(condition, seconds: float = 20.0) -> bool:
    """Wait until ``condition()`` holds; whether it came to hold."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True
