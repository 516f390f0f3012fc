"""Isolation with Linux namespaces: a tiny read-only root, no network, a process tree that dies with its first process.

As root the program changes to a user id that no other process uses, so that the limit on processes counts only the
program (the kernel exempts user 0). An ordinary user gets a new user namespace, in which it may mount, and
whose processes are counted separately (Linux 5.14 and later).
"""

from __future__ import annotations

import contextlib
import os
import select
import stat
from pathlib import Path

from . import system
from .confine import FAILED, first_to_be_killed
from .first import be_first

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from typing import Any, NoReturn

_NOBODY = 65534
_HIGH = 1_900_000_000  # above the ranges that distributions assign to users and containers
_ANCHOR = "/tmp"  # exists everywhere; the new root is mounted on it, visible only to the sandbox's first process
DEVICES = (("null", "null"), ("full", "zero"), ("full", "full"), ("random", "random"), ("urandom", "urandom"))
"""Devices as (source, target). Mapping /dev/zero would give memory that nothing counts; /dev/full reads the same."""

DEVICE_LINKS = (
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
)


def private_user() -> int:
    """A user id for one sandbox, from those mapped in this user namespace (root may use any of them)."""
    with Path("/proc/self/uid_map").open(encoding="ascii") as file:
        top = max(int(inside) + int(count) for inside, _, count in (line.split() for line in file))
    if top > _HIGH + (1 << 23):
        return _HIGH + os.getpid()
    return max(1, min(top, 65536) - 1000 - os.getpid() % 4000)


def start(settings: dict[str, Any], status: int) -> int:
    """Fork the first process of a new sandbox around the program; returns its process id.

    Raises:
        OSError: the namespaces cannot be created.
    """
    user = None
    if settings["as_root"]:
        user = private_user()
        system.unshare(system.CLONE_NEWPID)
    else:
        real_user, real_group = os.getuid(), os.getgid()
        system.unshare(system.CLONE_NEWUSER | system.CLONE_NEWPID)
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{_NOBODY} {real_user} 1")
        _write("/proc/self/gid_map", f"{_NOBODY} {real_group} 1")
        if settings["limits"]["user_processes"]:
            settings["limits"]["user_processes"] += 2  # the monitor and the first process belong to the same user
    first = os.fork()
    if first == 0:
        _start_first(settings, status, user)
    return first


def die_with_monitor(status: int) -> None:
    """Let the kernel kill this process when the monitor that forked it exits; exit now if it has already exited."""
    system.prctl(system.PR_SET_PDEATHSIG, 9)
    watch = select.poll()
    watch.register(status, 0)
    if watch.poll(0):  # the reader has exited
        os._exit(0)
    os.setsid()


def _start_first(settings: dict[str, Any], status: int, user: int | None) -> NoReturn:
    try:
        die_with_monitor(status)
        first_to_be_killed()
        system.unshare(
            system.CLONE_NEWNS
            | system.CLONE_NEWNET
            | system.CLONE_NEWIPC
            | system.CLONE_NEWUTS
            | system.CLONE_NEWCGROUP
        )
        _build_root(settings, _NOBODY if user is None else user)
        be_first(settings, status, user)
    except BaseException as error:
        os.write(status, FAILED + f"{error}".encode()[:2000])
    finally:
        os._exit(0)


def _build_root(settings: dict[str, Any], user: int) -> None:
    system.mount("none", "/", None, system.MS_REC | system.MS_PRIVATE)
    # Opened before the new root hides files; a descriptor works below folders closed to the program's user.
    sources = [(os.open(source, os.O_PATH), target) for source, target in settings["trees"]]
    devices = [(os.open(f"/dev/{name}", os.O_PATH), target) for name, target in DEVICES]
    root = _ANCHOR
    room = (1 << 20) + sum(len(content) + (1 << 14) for content in settings["files"].values())
    system.mount("tmpfs", root, "tmpfs", system.MS_NOSUID, f"size={room},mode=755")
    for folder in ("/proc", "/dev", "/etc", settings["program"], settings["scratch"]):
        _make_folder(root + folder)

    for descriptor, target in sources:
        _bind(f"/proc/self/fd/{descriptor}", root + target, stat.S_ISDIR(os.fstat(descriptor).st_mode))
        system.make_read_only(root + target)
    for descriptor, name in devices:
        _bind(f"/proc/self/fd/{descriptor}", f"{root}/dev/{name}", False)
        system.make_read_only(f"{root}/dev/{name}", devices=True)  # its times, that is; it can still be written
    scratch = settings["scratch"]
    for target, link in (*settings["links"], *DEVICE_LINKS, (scratch, "/tmp"), (scratch, "/dev/shm")):
        _make_folder(root + link, above=True)
        Path(root + link).symlink_to(target)
    _write(root + "/etc/passwd", f"sandbox:x:{user}:{user}:sandbox:{settings['scratch']}:/bin/sh\n")
    for name, content in settings["files"].items():
        path = root + settings["program"] + "/" + name
        _make_folder(path, above=True)
        _write(path, content)

    limits = settings["limits"]
    options = f"size={limits['scratch']},nr_inodes={limits['files']},mode=700,uid={user},gid={user}"
    system.mount("tmpfs", root + scratch, "tmpfs", system.MS_NOSUID | system.MS_NODEV, options)
    with contextlib.suppress(OSError):  # masked parts of /proc (in a container) forbid a new mount: then it stays empty
        system.mount_processes(root + "/proc")
    system.enter_root(root)
    system.mount("none", "/", None, system.MS_REMOUNT | system.MS_BIND | system.MS_RDONLY | system.MS_NOSUID)


def _bind(source: str, target: str, folder: bool) -> None:
    if folder:
        _make_folder(target)
    else:
        _make_folder(target, above=True)
        _write(target, "")
    system.mount(source, target, None, system.MS_BIND | system.MS_REC)


def _make_folder(path: str, above: bool = False) -> None:
    folder = Path(path).parent if above else Path(path)
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)


def _write(path: str, content: str | bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        data = content.encode() if isinstance(content, str) else content
        while data:
            data = data[os.write(descriptor, data) :]
    finally:
        os.close(descriptor)
