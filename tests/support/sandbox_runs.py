"""Run small programs in a sandbox, and inspect the machine's processes from outside."""

from __future__ import annotations

import os
import subprocess
import sys
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


def wait_for(condition, seconds: float = 300.0) -> bool:
    """Wait until ``condition()`` holds; whether it came to hold. A busy machine must not reach the limit."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


AS_ORDINARY_USER = """
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 none /mnt
mkdir -p /mnt/base /mnt/repository
mount --bind "$BASE" /mnt/base
mount --bind "$REPOSITORY" /mnt/repository
case "$BASE" in /usr|/usr/*) ;; *)
    top="/$(echo "$BASE" | cut -d/ -f2)"
    mount -t tmpfs -o mode=755 none "$top"
    mkdir -p "$BASE"
    mount --bind /mnt/base "$BASE"
esac
cd /mnt/repository
exec setpriv --reuid 12345 --regid 12345 --clear-groups --bounding-set -all "$PYTHON" -B "$@"
"""
REPOSITORY = Path(__file__).resolve().parents[2]


def run_as_ordinary_user(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script of ``tests/support`` as an ordinary user, as root, who makes the interpreter readable first."""
    given = {
        "BASE": sys.base_prefix,
        "REPOSITORY": str(REPOSITORY),
        "PYTHON": str(Path(sys._base_executable).resolve()),  # type: ignore[attr-defined]
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    }
    command = ["unshare", "--mount", "sh", "-c", AS_ORDINARY_USER, "sh", f"tests/support/{script}", *arguments]
    return subprocess.run(command, env=given, capture_output=True, text=True, timeout=1800)
