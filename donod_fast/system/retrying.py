"""Retries of calls to an object store, so that temporary network and server failures do not end a run.

``retrying`` repeats a call after a temporary error (a broken connection, a time-out, a busy or restarting
server) with growing waits, and gives up after ``ATTEMPTS``. Permanent errors (not found, forbidden, a
malformed request, a full disk) are raised immediately. Whatever a store's client library raises, the caller
gets an ``OSError``.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import TypeVar

from donod_fast.confidential import without_secrets

ATTEMPTS = 6
"""Number of attempts before giving up."""

FIRST_WAIT = 0.1
"""Seconds before the second attempt; each further wait is twice as long."""

LONGEST_WAIT = 10.0
"""Longest wait in seconds."""

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
"""Permanent errors: s3fs raises these for refusals (a malformed request, a wrong region); also full disks."""

_CLIENTS = frozenset(
    {
        *("botocore", "aiobotocore", "aiohttp", "urllib3", "requests", "http", "gcsfs", "azure", "fsspec"),
        *("huggingface_hub", "httpx", "httpx2"),
    }
)
"""Packages whose exceptions are store errors; identified by name, since most are not installed."""

_PASSING = frozenset(
    {
        # botocore: these are not OSErrors
        *("HTTPClientError", "ConnectionError", "IncompleteReadError", "ResponseParserError", "ResponseStreamingError"),
        # aiohttp, http.client
        *("ClientConnectionError", "ClientPayloadError", "IncompleteRead", "RemoteDisconnected", "HttpProcessingError"),
        # httpx
        *("NetworkError", "TimeoutException", "ProtocolError"),
        # azure
        *("ServiceRequestError", "ServiceResponseError"),
    }
)

_PASSING_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""HTTP statuses after which the same request may succeed."""


class GaveUpError(OSError):
    """A call failed in every attempt with temporary errors; the message has the last one."""


def retrying(call: Callable[[], Result], what: str) -> Result:
    """Make a call, retry it after temporary errors, and return its result.

    Args:
        call: takes no arguments and can be repeated safely.
        what: description for the message, for example ``"reading s3://bucket/rows.jsonl"``.

    Raises:
        GaveUpError: it failed ``ATTEMPTS`` times.
        OSError: it failed permanently (not found, forbidden, …). Other errors of client libraries are converted
            to an ``OSError``; any other error (a ``TypeError``) is raised unchanged.
    """
    wait = FIRST_WAIT
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return call()
        except Exception as error:
            if not may_pass(error):
                raise as_os_error(error, what) from error
            if attempt == ATTEMPTS:
                raise GaveUpError(f"{what}: {attempt} attempts failed, the last with {_said(error)}") from error
        time.sleep(min(wait, LONGEST_WAIT))
        wait *= 2
    raise AssertionError("unreachable: the last attempt returns or raises")


def may_pass(error: BaseException) -> bool:
    """Whether an error is temporary, so that the same call may succeed later."""
    if isinstance(error, GaveUpError):
        return False
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None and _of_client(error.__cause__):
        return may_pass(error.__cause__)  # fsspec's http raises "not found" for a server that it cannot reach
    if _of_client(error):
        status = _status(error)
        if status is not None:
            return status in _PASSING_STATUS
        if any(_root(kind) in _CLIENTS and kind.__name__ in _PASSING for kind in type(error).__mro__):
            return True
    if not isinstance(error, OSError) or isinstance(error, _LASTING):
        return False
    return error.errno not in _LASTING_NUMBERS


def as_os_error(error: Exception, what: str) -> Exception:
    """The ``OSError`` for an error of a store's client library; any other error as it is. ``what`` as above."""
    if not _of_client(error):
        return error
    refused = _status(error) in (401, 403) or "Credentials" in type(error).__name__
    if isinstance(error, OSError) and not (refused and _root(type(error)) == "huggingface_hub"):
        return error
    return (PermissionError if refused else OSError)(f"{what}: {_said(error)}")


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


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {without_secrets(' '.join(str(error).split())) or 'no message'}"
