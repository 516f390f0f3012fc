"""The first process of a sandbox: it starts the program, waits for it, and reports how it ended.

A program can see this process and may have its user, so it must have nothing to give: it cannot be written, read or
traced (it is not dumpable), takes no signal from inside, has no rights and no files of the caller, and the program's
system call filter holds for it too.
"""

from __future__ import annotations

import os
import signal

from . import system
from .confine import FAILED, become_program, drop_rights

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from typing import Any, NoReturn


def be_first(settings: dict[str, Any], status: int, user: int | None) -> NoReturn:
    """Start the program in this sandbox, whose first process this is; its wait status is written to ``status``.

    When this process exits, the kernel kills all others of the sandbox.

    Args:
        settings: the settings sent to :func:`monitor.main`.
        status: the writing end of the status pipe.
        user: the program's user id, or ``None`` to keep the current one.
    """
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        system.prctl(system.PR_SET_DUMPABLE, 0)  # before there is a program; executing it makes it dumpable again
        program = os.fork()
        if program == 0:
            become_program(settings, status, user, filtered=True)
        drop_rights(settings["filter"])
        os.closerange(0, status)  # above all the channel, so that the caller sees its end
        os.closerange(status + 1, 1 << 16)
        while True:
            ended, how = os.wait()
            if ended == program:
                os.write(status, how.to_bytes(4, "little"))
                break
    except BaseException as error:
        os.write(status, FAILED + f"{error}".encode()[:2000])
    finally:
        os._exit(0)
