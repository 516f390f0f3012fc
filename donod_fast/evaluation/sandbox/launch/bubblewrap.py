"""Isolation with bubblewrap: its command line, and the processes that it starts.

As root it keeps the one capability that :mod:`inside` needs to change to the sandbox's own user id; an ordinary user
gets a user namespace.
"""

from __future__ import annotations

import contextlib
import os

from .confine import CHANNEL, FAILED
from .namespaces import die_with_monitor, private_user

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from typing import Any

_NOBODY = 65534
_INSIDE = "/launch"  # path of this folder's scripts in the sandbox


def start(settings: dict[str, Any], status: int, interpreter: str) -> tuple[int, int | None]:
    """Start bubblewrap; returns its process id and that of the sandbox's first process (``None`` if it failed).

    Raises:
        OSError: a pipe or a process cannot be created.
    """
    user = private_user() if settings["as_root"] else None
    if user is None and settings["limits"]["user_processes"]:
        settings["limits"]["user_processes"] += 1  # bubblewrap's own process inside belongs to the same user
    news, news_in = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(news)
            die_with_monitor(status)
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
    command = [settings["bubblewrap"], "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
    command += ["--unshare-cgroup-try", "--die-with-parent", "--cap-drop", "ALL", "--info-fd", str(news)]
    if user is None:
        command += ["--unshare-user", "--uid", str(_NOBODY), "--gid", str(_NOBODY)]
    else:
        command += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    trees = [*settings["trees"], (os.path.dirname(__file__), f"{_INSIDE}/{__package__}")]  # noqa: PTH120
    for folder in _folders_above(
        [*(target for _, target in trees), *(f"{program}/{name}" for name in ("", *settings["files"]))]
    ):
        command += ["--perms", "0755", "--dir", folder]  # by default it creates folders that only their owner can enter
    for source, target in trees:
        command += ["--ro-bind", source, target]
    command += ["--dev", "/dev", "--proc", "/proc"]
    for target, link in (*settings["links"], (scratch, "/tmp")):
        command += ["--symlink", target, link]
    passwd = f"sandbox:x:{identity}:{identity}:sandbox:{scratch}:/bin/sh\n".encode()
    command += ["--perms", "0444", "--file", _held(passwd), "/etc/passwd"]
    for name, content in settings["files"].items():
        command += ["--perms", "0444", "--file", _held(content), f"{program}/{name}"]
    command += ["--perms", "1777", "--size", str(settings["limits"]["scratch"]), "--tmpfs", scratch]
    command += ["--remount-ro", "/dev", "--remount-ro", "/"]
    text = f"import sys; sys.path.insert(0, {_INSIDE!r}); from {__package__}.inside import main; main({status})"
    return [*command, "--", interpreter, "-I", "-S", "-B", "-c", text, _held_settings(settings, user)]


def _folders_above(paths: list[str]) -> list[str]:
    folders = {"/etc"}
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


def _held_settings(settings: dict[str, Any], user: int | None) -> str:
    import marshal

    needed = {name: settings[name] for name in ("argv", "environment", "scratch", "limits")}
    return _held(marshal.dumps({**needed, "user": user}))


def _first_process(news: int) -> int | None:
    """Read the process id of the sandbox's first process from bubblewrap's report (a small JSON object)."""
    text = b""
    while part := os.read(news, 4096):
        text += part
    os.close(news)
    with contextlib.suppress(ValueError, IndexError):
        return int(text.split(b'"child-pid"')[1].lstrip(b": \n").split(b",")[0].split(b"\n")[0])
    return None
