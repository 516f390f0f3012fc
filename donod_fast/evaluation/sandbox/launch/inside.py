"""The first script executed inside bubblewrap: drops the remaining privileges and executes the program."""

from __future__ import annotations

import marshal
import os
import sys

from . import filters, system  # noqa: F401  (now, while the files can still be read)
from .confine import become_program

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from typing import NoReturn


def main(status: int) -> NoReturn:
    """Read the settings that the monitor left in a descriptor, then execute the program."""
    with os.fdopen(int(sys.argv[1]), "rb") as file:
        settings = marshal.loads(file.read())
    become_program(settings, status, settings["user"], filtered=True)
