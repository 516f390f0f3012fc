"""Isolation with bubblewrap: its command line, and the processes that it starts.

Its own first process is not used: an ordinary user's program could write to it. Ours is :mod:`first`. As root it keeps
the capabilities that are needed to change to the sandbox's own user id; an ordinary user gets a user namespace.
"""

from __future__ import annotations

import contextlib
import os
import stat

from .confine import CHANNEL, FAILED, first_to_be_killed
from .namespaces import DEVICE_LINKS, DEVICES, die_with_monitor, private_user

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from typing import Any

_NOBODY = 65534
_OLDEST_KERNEL_THAT_SHOWS_PROCESSES_ALONE = [5, 12]  # and can make a device read-only
_INSIDE = "/launch"  # path of this folder's scripts in the sandbox


def start(settings: dict[str, Any], status: int, interpreter: str) -> tuple[int, int | None]:
    """Start bubblewrap; returns its process id and that of the sandbox's first process (``None`` if it failed).

    Raises:
        OSError: a pipe or a process cannot be created.
    """
    user = private_user() if settings["as_root"] else None
    if user is None and settings["limits"]["user_processes"]:
        settings["limits"]["user_processes"] += 1  # the first process inside belongs to the same user
    news, news_in = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(news)
            die_with_monitor(status)
            first_to_be_killed()
            command = _command(settings, status, news_in, user, interpreter)
            for descriptor in (CHANNEL, status, news_in):
                os.set_inheritable(descriptor, True)
            os.execve(command[0], command, {})
        except BaseException as error:
            os.write(status, FAILED + f"{error}".encode()[:2000])
        finally:
            os._exit(127)
    os.close(news_in)
    return child, _first_process(news)


def _command(settings: dict[str, Any], status: int, news: int, user: int | None, interpreter: str) -> list[str]:
    scratch, program = settings["scratch"], settings["program"]
    identity = _NOBODY if user is None else user
    inside = _mounts_inside(settings)
    command = [settings["bubblewrap"], "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
    command += ["--unshare-cgroup-try", "--die-with-parent", "--cap-drop", "ALL", "--info-fd", str(news)]
    command += ["--as-pid-1"]
    if user is None:
        command += ["--unshare-user", "--uid", str(_NOBODY), "--gid", str(_NOBODY)]
    else:
        command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    if inside:
        command += ["--cap-add", "CAP_SYS_ADMIN"]
    trees = [*settings["trees"], (os.path.dirname(__file__), f"{_INSIDE}/{__package__}")]  # noqa: PTH120
    for folder in _folders_above(
        [*(target for _, target in trees), *(f"{program}/{name}" for name in ("", *settings["files"]))]
    ):
        command += ["--perms", "0755", "--dir", folder]  # by default it creates folders that only their owner can enter
    for source, target in trees:
        command += ["--ro-bind", source, target]
    # Not --dev: its terminals are counted for the whole machine.
    for name, target in DEVICES:
        command += ["--dev-bind", f"/dev/{name}", f"/dev/{target}"]
    # As an ordinary user one may mount /proc only where another can be seen.
    command += ["--proc", "/proc"] if inside and user is None else ["--dir", "/proc"]
    for target, link in (*settings["links"], *DEVICE_LINKS, (scratch, "/tmp"), (scratch, "/dev/shm")):
        command += ["--symlink", target, link]
    passwd = f"sandbox:x:{identity}:{identity}:sandbox:{scratch}:/bin/sh\n".encode()
    command += ["--perms", "0444", "--file", _held(passwd), "/etc/passwd"]
    for name, content in settings["files"].items():
        command += ["--perms", "0444", "--file", _held(content), f"{program}/{name}"]
    command += ["--perms", "1777", "--size", str(settings["limits"]["scratch"]), "--tmpfs", scratch]
    command += ["--remount-ro", "/"]
    text = f"import sys; sys.path.insert(0, {_INSIDE!r}); from {__package__}.inside import main; main({status})"
    return [*command, "--", interpreter, "-I", "-S", "-B", "-c", text, _held_settings(settings, user, inside)]


def _mounts_inside(settings: dict[str, Any]) -> bool:
    """Whether the first process inside may mount: bubblewrap's own /proc tells of the machine, and ours covers it.

    Not with a kernel that cannot show processes alone, if bubblewrap is set-user-ID, or under the AppArmor profile that
    lets only bubblewrap itself have a user namespace. Programs then have no /proc.
    """
    version = [int(part) for part in os.uname().release.split("-")[0].split(".")[:2]]
    if settings["as_root"] or version < _OLDEST_KERNEL_THAT_SHOWS_PROCESSES_ALONE:
        return version >= _OLDEST_KERNEL_THAT_SHOWS_PROCESSES_ALONE
    with contextlib.suppress(OSError):
        if os.stat(settings["bubblewrap"]).st_mode & stat.S_ISUID:  # noqa: PTH116
            return False
        with open("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", encoding="ascii") as file:  # noqa: PTH123
            return file.read().strip() == "0"
    return True


def _folders_above(paths: list[str]) -> list[str]:
    folders = {"/etc", "/dev"}
    for path in paths:
        while (path := os.path.dirname(path)) != "/":  # noqa: PTH120
            folders.add(path)
    return sorted(folders)


def _held(content: bytes) -> str:
    """A descriptor from which bubblewrap reads ``content``."""
    descriptor = os.memfd_create("file", 0)
    while content:
        content = content[os.write(descriptor, content) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    return str(descriptor)


def _held_settings(settings: dict[str, Any], user: int | None, inside: bool) -> str:
    import marshal

    needed = {name: settings[name] for name in ("argv", "environment", "scratch", "limits", "filter")}
    return _held(
        marshal.dumps({**needed, "user": user, "mounts_inside": inside, "devices": [target for _, target in DEVICES]})
    )


def _first_process(news: int) -> int | None:
    """Read the process id of the sandbox's first process from bubblewrap's report (a small JSON object)."""
    text = b""
    while part := os.read(news, 4096):
        text += part
    os.close(news)
    with contextlib.suppress(ValueError, IndexError):
        return int(text.split(b'"child-pid"')[1].lstrip(b": \n").split(b",")[0].split(b"\n")[0])
    return None
