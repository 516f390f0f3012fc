"""Watch a command and all processes that it starts for requests: a hub on loopback, and a hook in each interpreter."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from score_runs import COMMAND

_HOOK = """
import os, socket, sys

def _hook(event, args, log=os.environ.get("REQUEST_LOG")):
    if log is None or not event.startswith("socket."):
        return
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyname_ex"):
        said = f"{event} {args[0]!r}"
    elif event in ("socket.connect", "socket.sendto") and args[0].family in (socket.AF_INET, socket.AF_INET6):
        said = f"{event} {args[1]!r}"
    else:
        return
    with open(log, "a") as file:
        file.write(said + "\\n")

sys.addaudithook(_hook)
"""

_TALKATIVE = {"AI_AGENT": "somebody"}
_QUIETENING = (
    *(
        "CI",
        "HF_HUB_OFFLINE",
        "TRANSFORMERS_OFFLINE",
        "HF_DATASETS_OFFLINE",
        "HF_HUB_DISABLE_TELEMETRY",
        "DO_NOT_TRACK",
    ),
    *("DISABLE_TELEMETRY", "HF_HUB_DISABLE_UPDATE_CHECK", "HF_UPDATE_DOWNLOAD_COUNTS", "RAY_USAGE_STATS_ENABLED"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy", "VLLM_NO_USAGE_STATS"),
)


@dataclass
class Watch:
    """What a command did.

    Attributes:
        code: its exit code.
        out: standard output.
        err: standard error.
        requests: what was asked of the network, by any process.
    """

    code: int
    out: str
    err: str
    requests: list[str] = field(default_factory=list)


@contextmanager
def sink() -> Iterator[tuple[str, list[str]]]:
    """The address of a hub that notes the first line of each connection and closes it."""
    heard: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def listen() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection, suppress(OSError):
                    connection.settimeout(5)
                    heard.append("sink: " + connection.recv(200).decode("latin-1").partition("\r\n")[0])
                    connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}", heard
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def watched(folder: Path, *arguments: object, program: str | None = None, **environment: str) -> Watch:
    """Run ``donod-fast …``, or a program in Python, with an empty cache and nothing that keeps libraries quiet."""
    folder.mkdir(parents=True, exist_ok=True)
    hooks, log = folder / "hooks", folder / "requests.log"
    hooks.mkdir(exist_ok=True)
    (hooks / "sitecustomize.py").write_text(_HOOK, encoding="utf-8")
    log.write_text("")
    command = COMMAND if program is None else [sys.executable, "-P", "-c", program]
    kept: Mapping[str, str] = {name: value for name, value in os.environ.items() if name not in _QUIETENING}
    with sink() as (endpoint, heard):
        done = subprocess.run(
            [*command, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
            cwd=folder,
            env={
                **kept,
                **_TALKATIVE,
                "PYTHONPATH": str(hooks),
                "REQUEST_LOG": str(log),
                "HF_ENDPOINT": endpoint,
                "HF_HOME": str(folder / "hub"),
                "XDG_CACHE_HOME": str(folder / "cache"),
                "OMP_NUM_THREADS": "1",
                **environment,
            },
        )
        return Watch(done.returncode, done.stdout, done.stderr, [*log.read_text().splitlines(), *heard])
