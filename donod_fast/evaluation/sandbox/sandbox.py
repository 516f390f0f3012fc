"""Factory of sandboxed processes."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from donod_fast.errors import InputError, SandboxError
from donod_fast.evaluation.sandbox.launch.confine import CHANNEL
from donod_fast.evaluation.sandbox.layout import (
    PACKAGES,
    PROGRAM,
    SCRATCH,
    base_interpreter,
    find_layout,
    packages_folder,
)
from donod_fast.evaluation.sandbox.limits import Finished, Isolation, Limits
from donod_fast.evaluation.sandbox.process import Process

# Not -I: it would ignore PYTHONHASHSEED. -S: programs need no installed packages, and start-up takes a third.
_PYTHON_OPTIONS = ("-s", "-P", "-S", "-B")
_RIGHTS_OF_ROOT = 1 << 21 | 1 << 8 | 1 << 7 | 1 << 6  # CAP_SYS_ADMIN, CAP_SETPCAP, CAP_SETUID, CAP_SETGID
_OLDEST_KERNEL_THAT_COUNTS = (5, 14)  # processes for each user namespace


class Sandbox:
    """Starts programs in isolation. Reusable, and usable from many threads at once.

    Args:
        isolation: the result of :func:`find_isolation`.
        limits: default limits of each program.
        packages: also show the installed packages of this environment, read-only (a program must put them on its
            ``sys.path``).
    """

    def __init__(self, isolation: Isolation, limits: Limits | None = None, *, packages: bool = False) -> None:
        self.isolation = Isolation(isolation)
        self.limits = limits or Limits()
        self.packages = packages
        self.as_root = _has_rights_of_root()

    def run(
        self, code_files: Mapping[str, str | bytes], argv: Sequence[str], *, limits: Limits | None = None
    ) -> Finished:
        """Run a program to its end. Arguments and errors as for :meth:`start`."""
        with self.start(code_files, argv, limits=limits) as process:
            return process.finish()

    def start(
        self, code_files: Mapping[str, str | bytes], argv: Sequence[str], *, limits: Limits | None = None
    ) -> Process:
        """Start a program; leave the returned process's ``with`` block to kill all that it started.

        Args:
            code_files: name (with ``/`` for folders) → content of the files in the program's read-only
                folder.
            argv: the command. An element ``{python}`` becomes this environment's base interpreter with
                suitable options (no site, nothing from the environment except a fixed hash seed); a leading
                ``{program}``, ``{scratch}`` or ``{packages}`` of an element becomes that folder's path.
            limits: override the sandbox's own limits.

        Raises:
            InputError: a name in ``code_files`` leaves the program folder, or ``argv`` is empty.
            SandboxError: no process can be started.
        """
        files = {
            _inner_name(name): text.encode() if isinstance(text, str) else text for name, text in code_files.items()
        }
        if not argv:
            raise InputError("Sandbox: argv is empty; it must begin with a program, such as '{python}'")
        return Process(self._settings(files, argv, limits or self.limits))

    def _settings(self, files: dict[str, bytes], argv: Sequence[str], limits: Limits) -> dict[str, Any]:
        layout = find_layout(self.packages)
        places = {"{program}": PROGRAM, "{scratch}": SCRATCH, "{packages}": PACKAGES}
        temporary = ""
        if self.isolation == Isolation.NONE:
            temporary = _write_temporary(files)
            places = {"{program}": f"{temporary}/program", "{scratch}": f"{temporary}/scratch"}
            places["{packages}"] = packages_folder()
        command: list[str] = []
        for element in argv:
            if element == "{python}":
                command += [base_interpreter(), *_PYTHON_OPTIONS]
                continue
            for mark, path in places.items():
                if element.startswith(mark):
                    element = path + element[len(mark) :]
            command.append(element)
        return {
            "isolation": str(self.isolation),
            "as_root": self.as_root,
            "caller": os.getpid(),
            "bubblewrap": shutil.which("bwrap") or "",
            "argv": command,
            "files": {} if temporary else files,
            "temporary": temporary,
            "program": places["{program}"],
            "scratch": places["{scratch}"],
            "trees": [list(pair) for pair in layout.trees],
            "links": [list(pair) for pair in layout.links],
            "environment": {
                "PATH": "/usr/local/bin:/usr/bin:/bin",
                "LANG": "C.UTF-8",
                "HOME": places["{scratch}"],
                "PYTHONHASHSEED": "0",
                "PYTHONDONTWRITEBYTECODE": "1",
                "DONOD_CHANNEL": str(CHANNEL),
            },
            "limits": {
                "seconds": float(limits.seconds),
                "cpu_seconds": limits.whole_cpu_seconds,
                "memory": int(limits.memory),
                "processes": int(limits.processes),
                "user_processes": int(limits.processes) if self._kernel_counts() else 0,
                "file_size": int(limits.file_size),
                "scratch": int(min(limits.scratch, limits.memory)),  # files are memory; the kernel holds this at once
                "output": int(limits.output),
                "files": int(limits.files),
                "open_files": int(limits.open_files),
            },
        }

    def _kernel_counts(self) -> bool:
        """Whether the kernel counts this sandbox's processes separately from the user's other processes."""
        if self.isolation == Isolation.NONE:
            return False
        version = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
        return self.as_root or version >= _OLDEST_KERNEL_THAT_COUNTS


def _has_rights_of_root() -> bool:
    """Whether this process may create namespaces and change users (root in a container often may not)."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return False
    rights = next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), 0)
    return os.geteuid() == 0 and rights & _RIGHTS_OF_ROOT == _RIGHTS_OF_ROOT


def _inner_name(name: str) -> str:
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise InputError(f"Sandbox: {name!r} is not a file name within the program folder")
    return str(path)


def _write_temporary(files: dict[str, bytes]) -> str:
    try:
        folder = Path(tempfile.mkdtemp(prefix="donod-program-"))
        (folder / "scratch").mkdir()
        (folder / "program").mkdir()
        for name, content in files.items():
            (folder / "program" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "program" / name).write_bytes(content)
    except OSError as error:
        raise SandboxError(f"the program's files could not be written: {error}") from error
    return str(folder)
