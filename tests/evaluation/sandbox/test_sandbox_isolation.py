"""Choice of the isolation: probed once, refused if none works, unsafe only on request."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sandbox_runs import output, processes_with, run, run_as_ordinary_user, wait_for

from donod_fast.errors import SandboxError
from donod_fast.evaluation.sandbox import Finished, Isolation, Limits, Sandbox, find_isolation, isolation

MIB = 1 << 20


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process."""
    monkeypatch.setattr(isolation, "_failures", {})


def test_what_is_found_was_proved_and_is_remembered(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "_CANDIDATES", (sandbox.isolation,))
    ran = []
    real = Sandbox.run
    monkeypatch.setattr(
        Sandbox, "run", lambda self, *given, **more: ran.append(self.isolation) or real(self, *given, **more)
    )
    assert [find_isolation(), find_isolation(unsafe=True)] == [sandbox.isolation] * 2
    assert ran == [sandbox.isolation]


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_namespaces_work_where_the_machine_gives_them() -> None:
    """So that the tests of the walls are not all skipped by an error of ours."""
    kinds = ["--mount", "--net", "--pid", "--ipc", "--uts", "--fork"] + (
        [] if os.geteuid() == 0 else ["--map-root-user"]
    )
    tried = subprocess.run(["unshare", *kinds, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"no namespaces here: {tried.stderr.strip()}")
    assert isolation.probe(Isolation.NAMESPACES) == ""


@pytest.mark.skipif(not shutil.which("bwrap"), reason="bwrap is not installed")
def test_bubblewrap_works_where_it_is_installed_and_may() -> None:
    tried = subprocess.run(["bwrap", "--unshare-all", "--bind", "/", "/", "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"bubblewrap does not work here: {tried.stderr.strip()}")
    assert isolation.probe(Isolation.BUBBLEWRAP) == ""


def test_bubblewrap_comes_first_and_namespaces_without_it(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "_run_probe", lambda kind: "")
    monkeypatch.setattr(isolation.shutil, "which", lambda name: "/usr/bin/bwrap")
    assert find_isolation() == Isolation.BUBBLEWRAP
    isolation._failures.clear()
    monkeypatch.setattr(isolation.shutil, "which", lambda name: None)
    assert find_isolation() == Isolation.NAMESPACES


def test_without_isolation_it_refuses_with_reasons_and_remedies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "probe", lambda kind: f"no {kind} today")
    with pytest.raises(SandboxError) as caught:
        find_isolation()
    for part in ("no bubblewrap today", "no namespaces today", "install bubblewrap", "--unsafe-exec"):
        assert part in str(caught.value)
    assert caught.value.exit_code == 7
    assert find_isolation(unsafe=True) == Isolation.NONE == "none"


@pytest.mark.parametrize(
    ("done", "reason"),
    [
        (Finished("exited", 0, b"the network can be reached\n", b"", 0.1, None), "the network can be reached"),
        (Finished("exited", 1, b"", b"Traceback: no\n", 0.1, None), "Traceback: no"),
        (Finished("timeout", None, b"isolated\n", b"", 60.0, None), "isolated"),
        (Finished("exited", 0, b"", b"", 0.1, None), "the probe ended: exited 0"),
    ],
)
def test_a_probe_that_gets_out_rules_a_kind_out(done: Finished, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sandbox, "run", lambda *_, **__: done)
    monkeypatch.setattr(isolation.shutil, "which", lambda name: "/usr/bin/bwrap")
    monkeypatch.setattr(isolation.sys, "platform", "linux")
    assert isolation.probe(Isolation.BUBBLEWRAP) == isolation.probe(Isolation.NAMESPACES) == reason


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_the_probe_detects_missing_isolation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe itself, run without walls (and without attempts to write where it could), finds every hole."""
    harmless = isolation.PROBE.replace('for folder in ("/", "/program", "/usr", "/etc",', "for folder in (")
    harmless = harmless.replace("os.path.dirname(sys.executable)):", f"{str(tmp_path)!r},):")
    assert harmless != isolation.PROBE
    monkeypatch.setattr(isolation, "PROBE", harmless)
    said = isolation._run_probe(Isolation.NONE)
    holes = [
        "a file outside",
        "the network",
        str(tmp_path),
        "not filtered",
        "the machine's process numbers",
        "be locked",
    ]
    holes += ["memory that nothing counts", "a listening socket", "pipes can be enlarged", "first to be killed"]
    assert [hole for hole in holes if hole not in said] == []


def test_another_system_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation.sys, "platform", "darwin")
    with pytest.raises(SandboxError, match="needs Linux"):
        find_isolation()
    monkeypatch.setattr(isolation.os, "name", "nt")
    with pytest.raises(SandboxError, match="POSIX"):
        find_isolation(unsafe=True)


def test_a_broken_bubblewrap_is_ruled_out_by_what_it_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform != "linux":
        pytest.skip("needs Linux")
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: No permissions to create a new namespace' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert "No permissions to create a new namespace" in isolation.probe(Isolation.BUBBLEWRAP)


def test_unsafe_still_has_limits(unsafe_sandbox: Sandbox) -> None:
    assert run(unsafe_sandbox, "while True: pass", seconds=0.5).how == "timeout"
    assert run(unsafe_sandbox, "while True: print('x' * 9999)", output=100_000).how == "output"
    assert b"MemoryError" in run(unsafe_sandbox, "bytearray(1 << 30)", memory=300 * MIB).stderr
    assert (
        output(unsafe_sandbox, "import os\nprint(os.environ['HOME'] == os.getcwd(), 'TOKEN' in os.environ)")
        == "True False"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_unsafe_counts_processes_and_memory_from_outside(unsafe_sandbox: Sandbox) -> None:
    marker = secrets.token_hex(16)
    text = "import os, time\nfor _ in range(60):\n    if os.fork() == 0: time.sleep(1000)\ntime.sleep(1000)"
    assert run(unsafe_sandbox, text, marker, processes=10).how == "processes"
    text = "import os, time\nfor _ in range(4): os.fork()\nheld = bytearray(b'x') * (40 << 20)\ntime.sleep(1000)"
    assert run(unsafe_sandbox, text, marker, memory=200 * MIB).how == "memory"
    assert processes_with(marker) == []


def test_unsafe_leaves_no_folder(unsafe_sandbox: Sandbox) -> None:
    folder = output(unsafe_sandbox, "import os\nopen('left', 'w').close()\nprint(os.path.dirname(os.getcwd()))")
    assert folder.rpartition("/")[2].startswith("donod-program-")
    assert wait_for(lambda: not Path(folder).exists())


def test_limits_of_the_call_win_over_the_sandboxs(sandbox: Sandbox) -> None:
    assert (
        sandbox.run({}, ["{python}", "-c", "import time; time.sleep(9)"], limits=Limits(seconds=0.3)).how == "timeout"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_an_ordinary_user_has_the_same_walls(sandbox: Sandbox) -> None:
    """Run by root, who sees to it that the interpreter can be read and gives up being root."""
    if not sandbox.as_root:
        pytest.skip("these tests already run as an ordinary user")
    done = run_as_ordinary_user("ordinary_user.py", str(sandbox.isolation))
    if "No permissions" in done.stdout or "not permitted" in done.stdout:
        pytest.skip(f"ordinary users have no namespaces here: {done.stdout.strip()}")
    assert (done.stdout.splitlines(), done.stderr) == (
        ["user 12345", "probe ", "exited 0 9", "timeout", "memory", "killed True", "left []"],
        "",
    )
