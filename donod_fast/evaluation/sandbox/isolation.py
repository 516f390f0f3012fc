"""Find the isolation that this machine supports: a probe program runs inside and tries to break out."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import sys
import tempfile
import threading
from pathlib import Path

from donod_fast.errors import DonodError, SandboxError
from donod_fast.evaluation.sandbox.limits import Isolation, Limits
from donod_fast.evaluation.sandbox.probe import PROBE
from donod_fast.evaluation.sandbox.sandbox import Sandbox

_CANDIDATES = (Isolation.BUBBLEWRAP, Isolation.NAMESPACES)
_REMEDY = (
    "install bubblewrap (apt-get install bubblewrap), allow user namespaces (sysctl user.max_user_namespaces; Ubuntu: "
    "kernel.apparmor_restrict_unprivileged_userns; Docker: --privileged or a suitable seccomp profile), or accept "
    "that programs written by a model can do whatever you can: --unsafe-exec"
)
_lock = threading.Lock()
_failures: dict[Isolation, str] = {}  # reasons by tried candidate; empty if it works


def find_isolation(unsafe: bool = False) -> Isolation:
    """Find the best isolation that works here; a probe that tries to break out verifies it once per process.

    Args:
        unsafe: return :attr:`Isolation.NONE` if nothing works, instead of raising. Isolation that works is preferred.

    Raises:
        SandboxError: no sandbox is available; the message gives the reason for each kind, and remedies.
    """
    if os.name != "posix":
        raise SandboxError("programs cannot be run here: isolation needs Linux, and running without it a POSIX system")
    with _lock:
        for isolation in _CANDIDATES:
            if isolation not in _failures:
                _failures[isolation] = probe(isolation)
            if not _failures[isolation]:
                return isolation
    if unsafe:
        return Isolation.NONE
    reasons = "; ".join(f"{isolation}: {reason}" for isolation, reason in _failures.items())
    raise SandboxError(f"no sandbox is available for programs written by a model ({reasons}); {_REMEDY}")


def probe(isolation: Isolation) -> str:
    """Try one kind of isolation; returns the reason why it does not work, or an empty string if it works."""
    if isolation == Isolation.NONE:
        return "it does not isolate"
    if sys.platform != "linux":
        return "it needs Linux"
    if isolation == Isolation.BUBBLEWRAP and not shutil.which("bwrap"):
        return "bwrap is not installed"
    try:
        return _run_probe(isolation)
    except (DonodError, OSError) as error:
        return str(error)


def _run_probe(isolation: Isolation) -> str:
    with tempfile.TemporaryDirectory(prefix="donod-probe-") as folder, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        secret = Path(folder) / secrets.token_hex(8)
        secret.write_text("outside", encoding="utf-8")
        Path(folder).chmod(0o755)
        secret.chmod(0o644)
        command = ["{python}", "{program}/probe.py", str(secret), str(listener.getsockname()[1])]
        done = Sandbox(isolation, Limits(seconds=60)).run({"probe.py": PROBE}, command)
    said = done.stdout.decode("utf-8", "replace").strip()
    if done.how == "exited" and done.code == 0 and said == "isolated":
        return ""
    return said or done.stderr.decode("utf-8", "replace").strip()[-500:] or f"the probe ended: {done.how} {done.code}"
