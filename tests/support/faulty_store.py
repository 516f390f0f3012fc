"""An S3 server whose answers go wrong as a test wants: refused, cut, slow, lost, or from a listing that lags."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar
from urllib.parse import parse_qs, quote
from xml.etree import ElementTree

import fsspec
import pytest

_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"

REFUSALS = {
    "slow down": (503, "SlowDown", "Please reduce your request rate."),
    "internal": (500, "InternalError", "We encountered an internal error. Please try again."),
    "expired": (400, "ExpiredToken", "The provided token has expired."),
    "forbidden": (403, "AccessDenied", "Access Denied"),
    "skewed": (
        403,
        "RequestTimeTooSkewed",
        "The difference between the request time and the current time is too large",
    ),
}
"""By fault the HTTP status, the code and the message of S3's answer."""

PASSING = ("slow down", "internal", "reset", "cut body", "slow body", "answer lost")
"""Faults after which the same request may succeed."""

LASTING = ("expired", "forbidden", "skewed")
"""Faults that stay until somebody acts."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, as the server saw it.

    Attributes:
        method: the HTTP method.
        key: name of the object, "" for a listing.
        query: names in the query.
        fault: what was done to it, "" for nothing.
        applied: whether it did its work.
    """

    method: str
    key: str
    query: frozenset[str]
    fault: str
    applied: bool


@dataclass
class Weather:
    """The faults of a run, drawn by a seeded generator.

    Attributes:
        draw: the generator.
        chance: of a passing fault, for each request.
        burst: most requests in a row that get the same fault.
        lasting: a fault of ``LASTING``, or "" for none.
        after: requests until it begins.
        lag: most listings that do not show a change.
        page: keys in a page of a listing.
    """

    draw: random.Random
    chance: float = 0.0
    burst: int = 1
    lasting: str = ""
    after: int = 0
    lag: int = 0
    page: int = 1000
    _left: int = 0
    _kind: str = ""

    @staticmethod
    def of_seed(seed: int) -> Weather:
        """Draw how bad it is."""
        draw = random.Random(seed)
        return Weather(
            draw,
            chance=draw.choice([0.0, 0.05, 0.2]),
            burst=draw.choice([1, 3, 40]),
            lasting=draw.choice(["", "", *LASTING]),
            after=draw.randint(0, 120),
            lag=draw.choice([0, 1, 5]),
            page=draw.choice([1, 3, 1000]),
        )

    def fault(self, method: str) -> str:
        """What happens to the next request."""
        if self.lasting:
            self.after -= 1
            if self.after < 0:
                return self.lasting
        if self._left == 0 and self.draw.random() < self.chance:
            self._kind, self._left = self.draw.choice(PASSING), self.draw.randint(1, self.burst)
        if self._left == 0:
            return ""
        self._left -= 1
        return "reset" if self._kind == "answer lost" and method not in ("PUT", "DELETE", "POST") else self._kind


@dataclass
class FaultyStore:
    """A WSGI application around that of a server.

    Attributes:
        app: the server.
        weather: the faults; None for fair weather.
        asked: all requests so far.
    """

    app: Any
    weather: Weather | None = None
    asked: list[Asked] = field(default_factory=list)
    _lock: Any = field(default_factory=threading.RLock)
    _young: dict[str, int] = field(default_factory=dict)  # new keys, with the listings that will lack them
    _ghosts: dict[str, tuple[int, bytes]] = field(default_factory=dict)  # removed keys that are still listed

    BUCKET: ClassVar[str] = "bucket"

    def begin(self, weather: Weather | None) -> None:
        """From now on the weather is this one; requests are counted from here."""
        with self._lock:
            self.weather, self.asked = weather, []
            self._young, self._ghosts = {}, {}

    def renew(self) -> None:
        """Do what the message of a lasting fault asks for."""
        with self._lock:
            if self.weather is not None:
                self.weather.lasting = ""

    @contextmanager
    def fair(self) -> Iterator[None]:
        """No faults for a while."""
        before, self.weather = self.weather, None
        try:
            yield
        finally:
            self.weather = before

    def puts(self) -> Counter[str]:
        """How often each object was written."""
        return Counter(one.key for one in self.asked if one.method in ("PUT", "POST") and one.applied)

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        key = path.removeprefix(f"/{self.BUCKET}").lstrip("/")
        query = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
        with self._lock:  # one request at a time: the generator's draws are in the order of requests
            weather = self.weather
            fault = "" if weather is None else weather.fault(method)
            applied = fault not in REFUSALS and fault != "reset"
            self.asked.append(Asked(method, key, frozenset(query), fault, applied))
            if fault in REFUSALS:
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                return _refused(start, *REFUSALS[fault], is_head=method == "HEAD")
            if fault == "reset":
                return _reset(environ, start)
            if method == "GET" and not key and "list-type" in query and weather is not None:
                status, headers, body = self._listing(environ, query, weather)
            else:
                before = self._entry(environ, key) if method == "DELETE" else None
                status, headers, body = self._answer(environ)
                self._note(method, key, status, before, 0 if weather is None else weather.lag)
        if fault == "answer lost":
            return _reset(environ, start)
        start(status, headers)
        return _body(environ, body, fault)

    def _answer(self, environ: dict[str, Any], **other: str) -> tuple[str, list[tuple[str, str]], bytes]:
        begun: list[Any] = []
        body = b"".join(self.app({**environ, **other}, lambda status, headers, *_: begun.extend([status, headers])))
        return begun[0], begun[1], body

    def _note(self, method: str, key: str, status: str, before: bytes | None, lag: int) -> None:
        if not status.startswith("2") or not lag:
            return
        assert self.weather is not None
        if method == "PUT" and key:
            was_ghost = self._ghosts.pop(key, None)
            if was_ghost is None and key not in self._young:
                self._young[key] = self.weather.draw.randint(0, lag)
        elif method == "DELETE" and before is not None:
            self._young.pop(key, None)
            self._ghosts[key] = (self.weather.draw.randint(0, lag), before)

    def _entry(self, environ: dict[str, Any], key: str) -> bytes | None:
        """The element of a key in a listing."""
        return dict(self._contents(environ, key)).get(key)

    def _contents(self, environ: dict[str, Any], prefix: str) -> list[tuple[str, bytes]]:
        whole = f"list-type=2&prefix={quote(prefix)}"
        asked = {"REQUEST_METHOD": "GET", "PATH_INFO": f"/{self.BUCKET}", "QUERY_STRING": whole, "CONTENT_LENGTH": "0"}
        _, _, body = self._answer(environ, **asked)
        entries = ElementTree.fromstring(body).iter(f"{{{_NAMESPACE}}}Contents")
        ElementTree.register_namespace("", _NAMESPACE)
        return [(str(entry.findtext(f"{{{_NAMESPACE}}}Key")), ElementTree.tostring(entry)) for entry in entries]

    def _listing(
        self, environ: dict[str, Any], query: dict[str, list[str]], weather: Weather
    ) -> tuple[str, list[tuple[str, str]], bytes]:
        """A page of a listing that lags."""
        prefix = query.get("prefix", [""])[0]
        entries = dict(self._contents(environ, prefix))
        first = int(query.get("continuation-token", ["0"])[0])
        for key, left in list(self._young.items()):
            if key.startswith(prefix) and left > 0:
                entries.pop(key, None)
                self._young[key] -= first == 0
        for key, (left, entry) in list(self._ghosts.items()):
            if key.startswith(prefix) and left > 0:
                entries[key] = entry
                self._ghosts[key] = (left - (first == 0), entry)
        keys = sorted(entries)
        most = min(weather.page, int(query.get("max-keys", ["1000"])[0]))
        page, more = keys[first : first + most], first + most < len(keys)
        token = f"<NextContinuationToken>{first + most}</NextContinuationToken>" if more else ""
        body = (
            f'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="{_NAMESPACE}"><Name>{self.BUCKET}</Name>'
            f"<Prefix>{prefix}</Prefix><KeyCount>{len(page)}</KeyCount><MaxKeys>{most}</MaxKeys>"
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}"
        ).encode()
        body += b"".join(entries[key] for key in page) + b"</ListBucketResult>"
        return "200 OK", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))], body


def _refused(start: Callable[..., Any], status: int, code: str, text: str, *, is_head: bool) -> list[bytes]:
    body = b"" if is_head else f"<Error><Code>{code}</Code><Message>{text}</Message></Error>".encode()
    start(f"{status} {code}", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]


def _reset(environ: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
    """End the connection without an answer."""
    connection = environ["werkzeug.socket"]
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)
    start("200 OK", [])
    return [b""]


def _body(environ: dict[str, Any], body: bytes, fault: str) -> Iterator[bytes]:
    if fault == "cut body" and len(body) > 1:
        yield body[: len(body) // 2]
        with suppress(OSError):
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        return
    if fault == "slow body":
        for at in range(0, len(body), max(1, len(body) // 4)):
            yield body[at : at + max(1, len(body) // 4)]
            time.sleep(0.002)
        return
    yield body


@contextmanager
def faulty_store() -> Iterator[FaultyStore]:
    """A server on this machine, told to s3fs by the environment, with the bucket ``bucket``. Clients retry at once."""
    import s3fs
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    from donod_fast.system import retrying

    class Quiet(WSGIRequestHandler):
        def log(self, *_: object) -> None:
            pass

        def log_error(self, *_: object) -> None:
            pass

    store = FaultyStore(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, store, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        patch.setattr(s3fs.S3FileSystem, "retries", 1)
        patch.setattr(retrying, "FIRST_WAIT", 0.0)
        fsspec.filesystem("s3").clear_instance_cache()  # instances for another server
        with suppress(FileExistsError):
            fsspec.filesystem("s3").mkdir("bucket")
        yield store
        fsspec.filesystem("s3").clear_instance_cache()
    server.shutdown()
    server.server_close()
    thread.join()
