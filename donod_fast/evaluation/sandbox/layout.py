"""The part of the file system that a sandboxed program sees, read-only: the interpreter and its libraries."""

from __future__ import annotations

import os
import sys
import sysconfig
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PROGRAM = "/program"
SCRATCH = "/scratch"
PACKAGES = "/packages"

# Not all of /usr or /etc: they also contain sources, caches and secrets.
_SYSTEM = (
    "/usr/bin",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/share/zoneinfo",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/alternatives",
)
_OFTEN_LINKS = ("/bin", "/lib", "/lib32", "/lib64")


@dataclass(frozen=True)
class Layout:
    """Folders and files shown read-only as (source, target), and links as (content, path)."""

    interpreter: str
    trees: tuple[tuple[str, str], ...]
    links: tuple[tuple[str, str], ...]


def base_interpreter() -> str:
    """The interpreter below any virtual environment, with links resolved."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def packages_folder() -> str:
    """The folder with the installed packages of this environment."""
    return os.path.realpath(sysconfig.get_path("purelib"))


@cache
def find_layout(packages: bool) -> Layout:
    """Find what the interpreter needs on this machine.

    Args:
        packages: also show the environment's installed packages, at ``/packages``.
    """
    interpreter = base_interpreter()
    prefix = Path(os.path.realpath(sys.base_prefix))
    own = [prefix / "bin", prefix / "lib", prefix / "lib64", Path(interpreter).parent]
    links = []
    wanted = [*map(Path, _SYSTEM), *own]
    for path in map(Path, _OFTEN_LINKS):
        if path.is_symlink():
            links.append((str(path.readlink()), str(path)))
        else:
            wanted.append(path)
    trees: dict[str, str] = {}
    for path in sorted(wanted, key=lambda path: len(path.parts)):
        inside_another = any(path.is_relative_to(target) for target in trees.values())
        if path.exists() and not inside_another:
            trees[os.path.realpath(path)] = str(path)
    if packages:
        trees[packages_folder()] = PACKAGES
    return Layout(interpreter, tuple(trees.items()), tuple(links))
