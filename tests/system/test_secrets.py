"""Secrets of URLs and of the environment appear in no file, message or output; the runs themselves go through."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from attack_counts import Attacks
from canaries import PLACES, canary, leaks
from fsspec.implementations.memory import MemoryFileSystem
from score_runs import Finished, invoke, short_rows

from donod_fast.demo.corpus import MODEL_FOLDER
from donod_fast.system import retrying

ROWS = 6
VARIABLE = "DONOD_FAST_URL"


class Guarded(MemoryFileSystem):  # type: ignore[misc]
    """``guarded://user:password@host/file?signature``: files in memory, whose errors quote the whole URL."""

    protocol = "guarded"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        host = path.replace("guarded://", "", 1).rpartition("@")[2].partition("?")[0].partition("#")[0]
        return str(super()._strip_protocol(host))


fsspec.register_implementation(Guarded.protocol, Guarded, clobber=True)


@contextmanager
def server(content: bytes) -> Iterator[tuple[str, list[int]]]:
    """A web server that answers each path with a status of its own, and shows the request in its errors."""
    statuses = {"/rows.jsonl": 200, "/forbidden.jsonl": 403, "/gone.jsonl": 404, "/busy.jsonl": 503}
    asked: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(False)

        def do_GET(self) -> None:
            self._answer(True)

        def _answer(self, body: bool) -> None:
            status = statuses.get(self.path.partition("?")[0].partition(";")[0], 404)
            asked.append(status)
            if status != 200:
                self.send_error(status, f"no: {self.path}")
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", '"one"')
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{running.server_address[1]}", asked
    finally:
        running.shutdown()
        running.server_close()
        thread.join()


@pytest.fixture
def rows() -> bytes:
    lines = [row for row in short_rows(40, seed=1) if "question" in row and row["answer"].strip()][:ROWS]
    return "".join(json.dumps(row) + "\n" for row in lines).encode()


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No URL is remembered from another test, and retries do not wait."""
    monkeypatch.setattr(retrying, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(retrying, "ATTEMPTS", 2)
    logging.getLogger().handlers.clear()
    forget(monkeypatch)
    yield
    forget(monkeypatch)


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a new process would begin."""
    for name in [name for name in os.environ if name.startswith(VARIABLE)]:
        monkeypatch.delenv(name)
    for kind in ("http", "guarded"):
        fsspec.filesystem(kind).clear_instance_cache()


def score(url: str, out: object, *more: object) -> Finished:
    return invoke("score", url, "--model", MODEL_FOLDER, "--out", out, "--part-rows", 2, *more)


def whole_run(place: str, secrets: list[str], host: str, folder: Path, patch: pytest.MonkeyPatch) -> list[Finished]:
    """All commands that take a URL or a folder made from one; with another secret each time."""

    def url(number: int, path: str = "rows.jsonl") -> str:
        return PLACES[place].format(scheme="http", secret=secrets[number], host=host, path=path)

    out, subset = folder / "scores", folder / "subset.jsonl"
    done = [score(url(0), out)]
    forget(patch)
    for part in sorted(out.glob("part-*"))[1:]:
        part.unlink()
    done.append(score(url(1), out, "--json"))
    forget(patch)
    done.append(invoke("status", out, "--json"))
    without = invoke("select", out, "--keep", "2", "--out", subset)
    patch.setenv(VARIABLE, url(0))
    done += [
        invoke("select", out, "--keep", "2", "--out", subset, "--overwrite"),
        invoke("export", out, "--out", folder / "all.parquet"),
        invoke("show", "--scores", out, "--rows", 2, "--json"),
        invoke("compare", out),
        invoke("rank", out, "--count", 1),
    ]
    forget(patch)
    done.append(score(url(1), folder / "again", "--config", out))
    assert [one.code for one in done] == [0] * len(done), done
    lines = subset.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2 and all("question" in line for line in lines)
    failing = [
        *(score(url(0, f"{name}.jsonl"), folder / "never") for name in ("forbidden", "gone", "busy")),
        score(url(0, "rows.unknown"), folder / "never"),
        score(f"simplecache::{url(0)}", folder / "never"),
        score(url(0).replace(host, "127.0.0.1:1"), folder / "never"),
        score(url(0), folder / "scores", "--lr", "1"),
        score(url(0).replace("http://", "guarded://"), folder / "never"),
        score(url(0).replace("http://", "nothing://"), folder / "never"),
        invoke("status", url(0)),
        invoke("select", url(0), "--keep", "1", "--out", folder / "x.jsonl"),
        invoke("show", url(0), "--model", url(0)),
        invoke("score", url(0), "--model", url(1), "--out", url(1)),
        invoke("score", f"--data={url(0)}", "--signals", "influence", "--reference", url(1, "gone.jsonl")),
    ]
    assert not [one for one in failing if one.code in (0, 70)]
    return [*done, without, *failing]


@pytest.mark.attack
def test_a_whole_run_shows_no_secret_of_a_url(
    attacks: Attacks, tmp_path: Path, rows: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    places = list(PLACES)[:: 1 if attacks.full else 4]
    with server(rows) as (host, asked):
        for number, place in enumerate(places):
            folder = tmp_path / str(number)
            folder.mkdir()
            secrets = [canary(2 * number), canary(2 * number + 1)]
            done = whole_run(place, secrets, host, folder, monkeypatch)
            shown = leaks(secrets, (text for one in done for text in (one.out, one.err)), folder)
            found += [f"{place}: {', '.join(shown)}"] * bool(shown)
        assert {200, 403, 404, 503} <= set(asked)
    attacks.count("secrets", "a secret of a URL after a whole run", tried=len(places), got_through=len(found))
    assert not found


@pytest.mark.attack
def test_a_store_with_secrets_in_its_url_keeps_none(
    attacks: Attacks, tmp_path: Path, rows: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    Guarded.store.clear()
    with fsspec.open("guarded://host/rows.jsonl", "wb") as file:
        file.write(rows)
    places = [place for place in list(PLACES)[:: 1 if attacks.full else 5] if "user" in place or "password" in place]
    found = []
    for number, place in enumerate(places):
        secrets = [canary(100 + number), canary(200 + number)]
        data, out, again = (
            PLACES[place].format(scheme="guarded", secret=secret, host="host", path=path).partition("?")[0]
            for secret, path in zip((*secrets, secrets[0]), ("rows.jsonl", f"s{number}", f"s{number}"), strict=True)
        )
        texts = [score(data, out)]
        texts.append(score(data, again))  # the secret of the folder was renewed
        monkeypatch.setenv(VARIABLE, data)
        texts.append(invoke("select", out, "--keep", "1", "--out", tmp_path / f"{number}.jsonl"))
        texts.append(invoke("status", out))
        assert [one.code for one in texts] == [0] * 4, texts
        copy = tmp_path / f"copy-{number}"
        copy.mkdir()
        for name, stored in Guarded.store.items():
            (copy / name.strip("/").replace("/", "-")).write_bytes(stored.getvalue())
        shown = leaks(secrets, (text for one in texts for text in (one.out, one.err)), copy, tmp_path)
        found += [f"{place}: {', '.join(shown)}"] * bool(shown)
        forget(monkeypatch)
    attacks.count("secrets", "a secret in the URL of a scores folder", tried=len(places), got_through=len(found))
    assert not found


def test_a_rewriting_service_gets_the_key_and_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai", reason="the extra `rewrite` is not installed")
    from donod_fast.studies.damoc.rewriters import OpenAIRewriter, RewriteError

    key, password = canary(1), canary(2)
    monkeypatch.setenv("OPENAI_API_KEY", key)
    heard: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(self.headers.get("Authorization", ""))
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            content = json.dumps({"error": {"message": f"no: {heard[-1]} {password} {self.path}"}}).encode()
            self.send_response(401)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        rewriter = OpenAIRewriter(f"http://me:{password}@127.0.0.1:{running.server_address[1]}/v1", "m", retries=0)
        found = rewriter.rewrite_many(["a text"])
        running.shutdown()
    assert len(heard) == 1 and isinstance(found[0], RewriteError)
    assert not leaks([key, password], [str(found[0]), repr(vars(rewriter))])


def test_a_recipe_keeps_no_secret_of_a_url(tmp_path: Path) -> None:
    from donod_fast.studies.damoc.recipe import damoc_recipe_from, load_damoc_recipe

    secret = canary(3)
    values = {
        "name": "r",
        "candidates": [{"name": "a", "model": "m"}],
        "data": [f"https://h/x.jsonl?sig={secret}"],
        "heldout": [f"https://u:{secret}@h/y.jsonl"],
    }
    file = tmp_path / "r.yaml"
    file.write_text(json.dumps(values), encoding="utf-8")
    for recipe in (damoc_recipe_from(values), load_damoc_recipe(file)):
        assert not leaks([secret], [json.dumps(recipe.as_dict()), repr(recipe)])
        assert recipe.data == ("https://h/x.jsonl?REDACTED",)


def test_a_traceback_and_a_log_line_show_no_secret(tmp_path: Path) -> None:
    secret = canary(4)
    program = (
        "import logging, sys, warnings\n"
        "from donod_fast.system.terminal import guard_streams\n"
        "guard_streams()\n"
        "logging.basicConfig()\n"
        "logging.getLogger('x').warning('GET %s', sys.argv[1])\n"
        "warnings.warn(sys.argv[1])\n"
        "print(sys.argv[1], file=sys.stderr)\n"
        "try:\n    raise OSError(sys.argv[1])\nexcept OSError as error:\n    raise RuntimeError('no') from error\n"
    )
    url = f"https://u:{secret}@h/x?sig={secret}"
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, url], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 1 and done.stderr.count("https://REDACTED@h/x?REDACTED") >= 4
    assert not leaks([secret], [done.stdout, done.stderr])
