"""Exceptions of donod_fast: one small hierarchy, each class with the exit code of the command line.

Library code raises them and never prints. The command line catches :class:`DonodError` in one place, prints the
message and exits with ``exit_code``.
"""

from __future__ import annotations

from collections.abc import Iterable

from donod_fast.confidential import without_secrets


class DonodError(Exception):
    """Base class of the errors that donod_fast raises. The message says what to do.

    Messages quote what libraries say and what the user typed, so secrets are taken out here.
    """

    exit_code = 1

    def __init__(self, *said: object) -> None:
        super().__init__(*(without_secrets(one) if isinstance(one, str) else one for one in said))


class InputError(DonodError, ValueError):
    """An argument (a tensor, an option) has a wrong shape, type or value; the message names it."""

    exit_code = 2


class BackendError(DonodError, RuntimeError):
    """A kernel backend requested by name does not support the input; the message says why."""

    exit_code = 2


class CorpusError(DonodError):
    """A whole input file cannot be read (missing, not in its format, changed since it was scored)."""

    exit_code = 3


class ModelError(DonodError):
    """A model or tokenizer cannot be loaded or cannot be used for scoring."""

    exit_code = 4


class HeadMismatchError(ModelError):
    """Our output layer does not reproduce the model's own logits; the message names the difference."""


class StoreError(DonodError):
    """A scores folder cannot be read or written (disk full, read-only, damaged, in use)."""

    exit_code = 5


class UnreachableError(StoreError):
    """The object store of a scores folder refuses or does not answer; what is in it may be intact."""


class SettingsMismatchError(StoreError):
    """A scores folder holds scores made with other settings; the message names each difference."""


class WorkerError(DonodError):
    """A process of a run was killed from outside (by a signal, out of memory); committed parts are kept."""

    exit_code = 6


class SandboxError(DonodError):
    """No sandbox for programs is available here; the message says why, and what to do about it."""

    exit_code = 7


def suggest(name: object, known: Iterable[str]) -> str:
    """End of a message about an unknown name: ``; did you mean 'topsis'?``, or "" if no known name is similar.

    Capitals and lower case count as equal.
    """
    from difflib import get_close_matches  # imported here, because most runs have no unknown name

    spelt = {one.casefold(): one for one in known}
    near = get_close_matches(str(name).casefold(), list(spelt), n=1)
    return f"; did you mean {spelt[near[0]]!r}?" if near else ""
