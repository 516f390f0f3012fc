"""The errors that donod_fast raises: one small hierarchy, each with the exit code of the command line.

Library code raises them and never prints; the command line catches :class:`DonodError` once,
at the edge, prints the message and leaves with ``exit_code``.
"""

from __future__ import annotations

from collections.abc import Iterable


class DonodError(Exception):
    """Base of every error that donod_fast raises on purpose. The message names the remedy."""

    exit_code = 1


class InputError(DonodError, ValueError):
    """An argument (a tensor, an option) has a wrong shape, type or value; the message names it."""

    exit_code = 2


class BackendError(DonodError, RuntimeError):
    """A kernel backend asked for by name cannot serve the input; the message says why."""

    exit_code = 2


class CorpusError(DonodError):
    """An input file as a whole cannot be read (absent, not of its format, changed since)."""

    exit_code = 3


class ModelError(DonodError):
    """A model or tokenizer cannot be loaded or cannot be scored with."""

    exit_code = 4


class HeadMismatchError(ModelError):
    """Our output layer does not reproduce the model's own logits; the message names what differs."""


class StoreError(DonodError):
    """A scores folder cannot be read or written (disk full, read-only, damaged, in use)."""

    exit_code = 5


class SettingsMismatchError(StoreError):
    """A scores folder holds scores made with other settings; the message names each difference."""


class WorkerError(DonodError):
    """A process of a run was ended from outside (killed, out of memory); what was committed stays."""

    exit_code = 6


class SandboxError(DonodError):
    """Programs cannot be run in isolation here; the message says why, and what would make it possible."""

    exit_code = 7


def suggest(name: object, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: ``; did you mean 'topsis'?``, or "" if no known name is close."""
    from difflib import get_close_matches  # here, since most runs have no unknown name

    near = get_close_matches(str(name), list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
