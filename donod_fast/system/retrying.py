"""Calls to an object store, tried again: networks and servers fail and recover, and a run need not end for that.

``retrying`` repeats a call whose error may pass (a broken connection, a time-out, a server that is busy or
restarting) with growing waits, and gives up after ``ATTEMPTS``. Errors that no waiting mends (not found,
forbidden, a malformed request, a full disk) are raised at once. Whatever a store's client library raises,
the caller sees an ``OSError``.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import TypeVar

ATTEMPTS = 6
"""How often a call is made before it is given up."""

FIRST_WAIT = 0.1
"""Seconds before the second attempt; each further wait is twice as long."""

LONGEST_WAIT = 10.0
"""Seconds that no wait exceeds."""

Result = TypeVar("Result")

_LASTING = (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError)

_LASTING_NUMBERS = frozenset(
    getattr(errno, name)
    for name in (
        *("EINVAL", "EPERM", "EACCES", "ENOENT", "EEXIST", "ENOSYS", "ENOSPC", "EDQUOT", "EROFS", "EFBIG"),
        *("ENAMETOOLONG", "EMSGSIZE", "ENOTEMPTY", "EREMCHG", "ELOOP", "ENOTSUP"),
    )
    if hasattr(errno, name)
)
"""What s3fs makes of refusals that stand (a malformed request, a bucket elsewhere), and disks that are full."""

_CLIENTS = frozenset({"botocore", "aiobotocore", "aiohttp", "urllib3", "requests", "http", "gcsfs", "azure", "fsspec"})
"""Packages whose errors are those of a store. They are known by name, since most are not installed."""

_PASSING = frozenset(
    {
        # botocore: its own are no OSError
        *("HTTPClientError", "ConnectionError", "IncompleteReadError", "ResponseParserError", "ResponseStreamingError"),
        # aiohttp, http.client
        *("ClientConnectionError", "ClientPayloadError", "IncompleteRead", "RemoteDisconnected", "HttpProcessingError"),
        # azure
        *("ServiceRequestError", "ServiceResponseError"),
    }
)

_PASSING_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""HTTP statuses after which the same request may succeed."""


class GaveUpError(OSError):
    """A call failed in every attempt with errors that might have passed; the message holds the last one."""


def retrying(call: Callable[[], Result], what: str) -> Result:
    """Make a call, again while its errors may pass, and return what it returns.

    Args:
        call: takes nothing and can be repeated without harm.
        what: what is done, for the message: ``"reading s3://bucket/rows.jsonl"``.

    Raises:
        GaveUpError: it failed ``ATTEMPTS`` times.
        OSError: it failed in a way that lasts (not found, forbidden, …). Errors of client libraries that
            are no ``OSError`` become one; other errors (a ``TypeError``) pass through.
    """
    wait = FIRST_WAIT
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return call()
        except Exception as error:
            if not may_pass(error):
                raise _as_os_error(error, what) from error
            if attempt == ATTEMPTS:
                said = " ".join(str(error).split()) or "no message"
                raise GaveUpError(f"{what}: {attempt} attempts failed, the last with {_kind(error)}: {said}") from error
        time.sleep(min(wait, LONGEST_WAIT))
        wait *= 2
    raise AssertionError("unreachable: the last attempt returns or raises")


def may_pass(error: BaseException) -> bool:
    """Tell whether the same call may succeed a moment later."""
    if isinstance(error, GaveUpError):
        return False
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None and _of_client(error.__cause__):
        return may_pass(error.__cause__)  # fsspec's http calls a server "not found" that cannot be reached
    if _of_client(error):
        status = _status(error)
        if status is not None:
            return status in _PASSING_STATUS
        if any(_root(kind) in _CLIENTS and kind.__name__ in _PASSING for kind in type(error).__mro__):
            return True
    if not isinstance(error, OSError) or isinstance(error, _LASTING):
        return False
    return error.errno not in _LASTING_NUMBERS


def _as_os_error(error: Exception, what: str) -> Exception:
    if isinstance(error, OSError) or not _of_client(error):
        return error
    said = " ".join(str(error).split()) or "no message"
    refused = _status(error) in (401, 403) or "Credentials" in type(error).__name__
    return (PermissionError if refused else OSError)(f"{what}: {_kind(error)}: {said}")


def _status(error: BaseException) -> int | None:
    """The HTTP status in an error of aiohttp, gcsfs, requests or botocore's ClientError."""
    for name in ("status", "status_code", "code"):
        status = getattr(error, name, None)
        if isinstance(status, int) and 100 <= status < 600:
            return status
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        response = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        response = getattr(response, "status_code", None)
    return response if isinstance(response, int) else None


def _of_client(error: BaseException) -> bool:
    return any(_root(kind) in _CLIENTS for kind in type(error).__mro__)


def _root(kind: type) -> str:
    return kind.__module__.partition(".")[0]


def _kind(error: BaseException) -> str:
    return type(error).__name__
