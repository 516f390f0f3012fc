"""Places to read from in tests: a real S3 server, an unreliable web server, and memory that counts or fails."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem


class CountedFiles(MemoryFileSystem):  # type: ignore[misc]
    """``counted://``: files in memory; records the requested ranges."""

    protocol = "counted"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    asked: ClassVar[list[tuple[int, int]]] = []

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.replace(f"{cls.protocol}://", "memory://", 1)))

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        self.asked.append((start or 0, end or 0))
        return bytes(super().cat_file(path, start=start, end=end, **options))


class FlakyFiles(CountedFiles):
    """``flaky://``: the same, but calls fail as ``failing`` says, and may come back too short."""

    protocol = "flaky"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    asked: ClassVar[list[tuple[int, int]]] = []
    chance = random.Random(0)
    failing: float | Exception = 0.0

    def _fail(self) -> None:
        failing = type(self).failing
        if isinstance(failing, Exception):
            raise failing
        if self.chance.random() < failing:
            raise self.chance.choice([ConnectionResetError("reset"), TimeoutError("late"), OSError("EOF in header")])

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        self._fail()
        return dict(super().info(path, **options))

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        content = super().cat_file(path, start=start, end=end, **options)
        self._fail()
        short = not isinstance(self.failing, Exception) and self.chance.random() < self.failing
        return content[: len(content) // 2] if short else content


for _kind in (CountedFiles, FlakyFiles):
    fsspec.register_implementation(_kind.protocol, _kind, clobber=True)


def put(url: str, content: bytes) -> str:
    """Write a file behind a URL, through what a user would use."""
    with fsspec.open(url, "wb") as file:
        file.write(content)
    return url


@contextmanager
def s3_server() -> Iterator[None]:
    """A real S3 server on this machine, told to s3fs by the environment, with the bucket ``bucket``."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        fsspec.filesystem("s3").clear_instance_cache()  # instances for another server
        with suppress(FileExistsError):  # an earlier server of this process, whose buckets outlive it
            fsspec.filesystem("s3").mkdir("bucket")
        yield
        fsspec.filesystem("s3").clear_instance_cache()
    server.stop()


@contextmanager
def web_server(files: dict[str, bytes], *, ranges: bool = True, breaking: bool = False) -> Iterator[str]:
    """A web server for files; ``breaking``: two in three GETs break off in mid-body or answer 503."""
    turn = iter(range(10**9))

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, body: bool) -> None:
            content = files.get(self.path.partition("?")[0].lstrip("/"))
            if content is None:
                self.send_error(404)
                return
            trouble = next(turn) % 3 if body and breaking else 0
            if trouble == 1:
                self.send_error(503)
                return
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")) if ranges else None
            part = content[int(asked[1]) : int(asked[2]) + 1] if asked else content
            self.send_response(206 if asked else 200)
            self.send_header("Content-Length", str(len(part)))
            self.send_header("ETag", f'"{hash(content)}"')
            if ranges:
                self.send_header("Accept-Ranges", "bytes")
            self.end_headers()
            if body:
                self.wfile.write(part[: len(part) // 2] if trouble == 2 else part)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
