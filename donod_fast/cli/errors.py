"""Errors of the command line, in addition to those of the library."""

from __future__ import annotations

from donod_fast.errors import DonodError


class Interrupted(DonodError):
    """The user interrupted the run; committed parts are kept."""

    exit_code = 130


class Terminated(DonodError):
    """The scheduler stopped a task of a job array; committed parts are kept."""

    exit_code = 143


class NothingScored(DonodError):
    """No row of the corpus has the status ``scored``."""

    exit_code = 1


class CheckFailed(DonodError):
    """An error is larger than its limit."""

    exit_code = 1


__all__ = ["CheckFailed", "Interrupted", "NothingScored", "Terminated"]
