"""Which errors are retried, how often, and the final message."""

from __future__ import annotations

import errno
import http.client

import aiohttp
import botocore.exceptions as boto
import pytest

from donod_fast.system import retrying
from donod_fast.system.retrying import GaveUpError


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waited: list[float] = []
    monkeypatch.setattr("donod_fast.system.retrying.time.sleep", waited.append)
    return waited


class Failing:
    """A call that raises the errors given, then returns."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def refused(status: int) -> boto.ClientError:
    return boto.ClientError({"Error": {"Code": "X"}, "ResponseMetadata": {"HTTPStatusCode": status}}, "GetObject")


def not_found(cause: Exception) -> FileNotFoundError:
    error = FileNotFoundError("http://server/file")
    error.__cause__ = cause
    return error


PASSING = [
    ConnectionResetError("reset"),
    TimeoutError(),
    OSError("unexpected end"),
    OSError(errno.EBUSY, "slow down"),
    boto.EndpointConnectionError(endpoint_url="x"),
    boto.ReadTimeoutError(endpoint_url="x"),
    boto.IncompleteReadError(actual_bytes=1, expected_bytes=2),
    aiohttp.ClientPayloadError("cut off"),
    aiohttp.ServerDisconnectedError(),
    http.client.IncompleteRead(b""),
    refused(503),
    not_found(aiohttp.ServerDisconnectedError()),
]

LASTING = [
    FileNotFoundError("gone"),
    PermissionError("denied"),
    IsADirectoryError("folder"),
    OSError(errno.EINVAL, "bad request"),
    OSError(errno.ENOSPC, "full"),
    boto.NoCredentialsError(),
    refused(400),
    not_found(refused(404)),
]


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_an_error_that_may_pass_is_tried_again(error: Exception) -> None:
    call = Failing(error, error)
    assert retrying.retrying(call, "reading") == "done" and call.calls == 3


@pytest.mark.parametrize("error", LASTING, ids=repr)
def test_an_error_that_lasts_is_an_os_error_at_once(error: Exception) -> None:
    call = Failing(error)
    with pytest.raises(OSError):
        retrying.retrying(call, "reading")
    assert call.calls == 1


def test_missing_credentials_are_a_matter_of_permission() -> None:
    with pytest.raises(PermissionError, match="reading: NoCredentialsError: Unable to locate credentials"):
        retrying.retrying(Failing(boto.NoCredentialsError()), "reading")


def test_a_bug_is_no_matter_of_the_network() -> None:
    call = Failing(TypeError("wrong"))
    with pytest.raises(TypeError):
        retrying.retrying(call, "reading")
    assert call.calls == 1


def test_waits_grow_to_a_limit_and_attempts_are_bounded(waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "LONGEST_WAIT", 0.5)
    call = Failing(*[ConnectionResetError("the peer is gone")] * 50)
    with pytest.raises(GaveUpError, match="reading x: 6 attempts failed, the last with ConnectionResetError: the peer"):
        retrying.retrying(call, "reading x")
    assert call.calls == 6 and waits == [0.1, 0.2, 0.4, 0.5, 0.5]
    with pytest.raises(GaveUpError):  # no attempts of attempts
        retrying.retrying(Failing(GaveUpError("x")), "outside")
    assert len(waits) == 5
