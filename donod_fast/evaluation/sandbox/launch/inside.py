"""The script that bubblewrap executes as the sandbox's first process."""

from __future__ import annotations

import marshal
import os
import sys

from . import system
from .confine import FAILED
from .first import be_first

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from typing import NoReturn


def main(status: int) -> NoReturn:
    """Read the settings that the monitor left in a descriptor, then start the program."""
    with os.fdopen(int(sys.argv[1]), "rb") as file:
        settings = marshal.loads(file.read())
    try:
        if settings["mounts_inside"]:
            for device in settings["devices"]:
                system.make_read_only(f"/dev/{device}", devices=True)
            system.mount_processes("/proc")
    except OSError as error:
        os.write(status, FAILED + f"{error}".encode()[:2000])
        os._exit(0)
    be_first(settings, status, settings["user"])
