"""How a command ends other than with success, beside the errors of the library."""

from __future__ import annotations

from donod_fast.errors import DonodError


class Interrupted(DonodError):
    """The user stopped the run; what was committed stays."""

    exit_code = 130


class NothingScored(DonodError):
    """Every row of the corpus ended with another status than ``scored``."""

    exit_code = 1


class CheckFailed(DonodError):
    """An error is larger than its limit."""

    exit_code = 1


__all__ = ["CheckFailed", "Interrupted", "NothingScored"]
