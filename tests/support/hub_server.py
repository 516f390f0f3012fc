"""A server that speaks the part of the Hugging Face hub's HTTP that its client uses to read and write data sets.

An upload is answered with "regular": the file is within the commit. With ``store`` it is answered with "lfs": the
client writes the content to a store in that folder, and the commit has its hash and size only.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

Files = dict[str, bytes]

POINTER = b"version https://git-lfs.github.com/spec/v1\n"
"""Beginning of what a commit has of a file whose content is in the store."""


@dataclass
class Hub:
    """The data sets of a hub.

    Attributes:
        endpoint: its URL.
        commits: of each data set, the files of each commit.
        branches: of each data set, the commit of each branch.
        refused: status and error code with which a data set is refused, once so many requests were served.
        busy: how many further requests are answered with 429.
        asked: how often each kind of request was made.
        tokens: the tokens of the requests.
        lost: for each next request for a commit, whether its connection breaks "before" the commit, "after" it, or
            the request is answered with 429: "busy".
        before_commit: called before a commit is looked at.
        ignored: paths that the data set ignores.
        buckets: the files of each bucket.
        store: folder for the content of all files that are uploaded; None keeps it in the commit.
        lock: held while a commit is made.
    """

    endpoint: str = ""
    commits: dict[str, dict[str, Files]] = field(default_factory=dict)
    branches: dict[str, dict[str, str]] = field(default_factory=dict)
    refused: dict[str, tuple[int, str, int]] = field(default_factory=dict)
    busy: int = 0
    asked: Counter[str] = field(default_factory=Counter)
    tokens: list[str | None] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    before_commit: Callable[[], object] = field(default=lambda: None)
    ignored: set[str] = field(default_factory=set)
    buckets: dict[str, Files] = field(default_factory=dict)
    store: Path | None = None
    lock: Any = field(default_factory=threading.Lock)

    def commit(self, name: str, files: Files, branch: str = "main") -> str:
        """Make a commit with these files the newest of a branch; returns its id."""
        digest = hashlib.sha1(f"{name} {len(self.commits.get(name, ()))}".encode())
        for path, content in sorted(files.items()):
            digest.update(path.encode() + content)
        self.commits.setdefault(name, {})[digest.hexdigest()] = dict(files)
        self.branches.setdefault(name, {})[branch] = digest.hexdigest()
        return digest.hexdigest()

    def files(self, name: str, branch: str = "main") -> Files:
        """The files of the newest commit of a branch."""
        return self.commits[name][self.branches[name][branch]]


@contextmanager
def hub_server(patch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that the client of this process uses."""
    from huggingface_hub import HfFileSystem, constants

    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    patch.setattr(constants, "ENDPOINT", hub.endpoint)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.delenv("HF_TOKEN", raising=False)
    HfFileSystem.clear_instance_cache()
    try:
        yield hub
    finally:
        HfFileSystem.clear_instance_cache()
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            self._answer()

        def do_HEAD(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            hub.tokens.append(self.headers.get("Authorization"))
            if hub.busy > 0:
                hub.busy -= 1
                hub.asked["busy"] += 1
                self._send(429, b"", {"Retry-After": "0"})
                return
            url = urlsplit(self.path)
            bucket = re.fullmatch(r"/(?:api/)?buckets/([^/]+/[^/]+)(?:/(paths-info|resolve|tree)(?:/(.*))?)?", url.path)
            if bucket is not None and bucket[1] in hub.buckets:
                self._bucket(hub.buckets[bucket[1]], bucket[2], unquote(bucket[3] or ""), body)
                return
            found = re.fullmatch(
                r"/(?:api/)?datasets/([^/]+/[^/]+)(?:/(revision|tree|paths-info|resolve|refs|auth-check|preupload|commit|xet-write-token)(?:/([^/]+))?(?:/(.*))?)?",
                url.path,
            )
            if found is None:
                self._send(404, b"", {})
                return
            name, what, revision, path = found[1], found[2] or "revision", unquote(found[3] or "main"), found[4]
            hub.asked[what] += 1
            if name in hub.refused:
                status, code, after = hub.refused[name]
                if after <= 0:
                    self._send(status, b"", {"X-Error-Code": code, "X-Error-Message": "refused"})
                    return
                hub.refused[name] = (status, code, after - 1)
            if name not in hub.commits:
                self._send(404, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "no such data set"})
                return
            if what in ("auth-check", "refs"):
                self._json({} if what == "auth-check" else _refs(hub.branches[name]))
                return
            if what == "xet-write-token":
                self._json({"casUrl": f"local://{hub.store}", "accessToken": "t", "exp": int(time.time()) + 3600})
                return
            if what == "commit":
                self._commit(name, revision, body)
                return
            commit = hub.branches[name].get(revision, revision)
            files = hub.commits[name].get(commit)
            if files is None:
                self._send(404, b"", {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "no such revision"})
                return
            path = unquote(path or "")
            if what == "revision":
                self._json({"id": name, "sha": commit, "private": False, "tags": [], "downloads": 0, "likes": 0})
            elif what == "tree":
                recursive = parse_qs(url.query).get("recursive", ["false"])[0].lower() in ("true", "1")
                self._json(_tree(files, path, recursive))
            elif what == "paths-info":
                self._json(_paths(files, parse_qs(body.decode()).get("paths", [])))
            elif what == "preupload":
                wanted = json.loads(body)["files"]
                self._json({"files": [self._mode(one["path"], files) for one in wanted]})
            elif path not in files:
                self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Error-Message": "no such file"})
            else:
                self._content(files[path], commit)

        def _bucket(self, files: Files, what: str | None, path: str, body: bytes) -> None:
            if what in ("paths-info", "tree"):  # a tree is all that begins with the path
                wanted = json.loads(body)["paths"] if body else [name for name in files if name.startswith(path)]
                self._json([{**_file(one, files[one]), "xetHash": _oid(files[one])} for one in wanted if one in files])
            elif what == "resolve" and path in files:
                self._content(files[path], "")
            elif what is None:
                made = "2026-01-01T00:00:00.000Z"
                self._json({"id": "", "private": False, "createdAt": made, "size": 0, "totalFiles": len(files)})
            else:
                self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Error-Message": "no such file"})

        def _mode(self, path: str, files: Files) -> dict[str, Any]:
            oid = _oid(files[path]) if path in files else None
            mode = "regular" if hub.store is None else "lfs"
            return {"path": path, "uploadMode": mode, "shouldIgnore": path in hub.ignored, "oid": oid}

        def _commit(self, name: str, branch: str, body: bytes) -> None:
            hub.before_commit()
            lost = hub.lost.pop(0) if hub.lost else ""
            if lost == "busy":
                self._send(429, b"", {"Retry-After": "0"})
            if lost in ("before", "busy"):
                self.close_connection = True
                return
            lines = [json.loads(line) for line in body.splitlines()]
            with hub.lock:
                head = hub.branches[name].get(branch)
                if lines[0]["value"].get("parentCommit", head) != head:
                    self._send(412, b"", {"X-Error-Message": "the branch has moved"})
                    return
                files = dict(hub.files(name, branch))
                for line in lines[1:]:
                    files[line["value"]["path"]] = _content(line["value"])
                commit = hub.commit(name, files, branch)
            if lost == "after":
                self.close_connection = True
                return
            url = f"{hub.endpoint}/datasets/{name}/commit/{commit}"
            self._json({"success": True, "commitOid": commit, "commitUrl": url})

        def _content(self, content: bytes, commit: str) -> None:
            headers = {"ETag": f'"{_oid(content)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
            wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
            if wanted is None:
                self._send(200, content, headers)
                return
            begin, end = int(wanted[1]), min(int(wanted[2]) + 1, len(content))
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(content)}"
            self._send(206, content[begin:end], headers)

        def _json(self, value: Any) -> None:
            self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

        def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

    return Handler


def _tree(files: Files, path: str, recursive: bool) -> list[dict[str, Any]]:
    prefix = f"{path}/" if path else ""
    found: list[dict[str, Any]] = []
    folders: set[str] = set()
    for name, content in sorted(files.items()):
        if not name.startswith(prefix):
            continue
        parts = name[len(prefix) :].split("/")
        above = ["/".join(parts[:at]) for at in range(1, len(parts))]
        for folder in above if recursive else above[:1]:
            if folder not in folders:
                folders.add(folder)
                found.append({"type": "directory", "oid": _oid(folder.encode()), "size": 0, "path": prefix + folder})
        if recursive or len(parts) == 1:
            found.append(_file(name, content))
    return found


def _refs(branches: dict[str, str]) -> dict[str, Any]:
    """Branches and pull requests; a name that begins with "v" is a tag."""
    found: dict[str, Any] = {"branches": [], "tags": [], "converts": [], "pullRequests": []}
    for name, commit in branches.items():
        kind = "pullRequests" if name.startswith("refs/pr/") else "tags" if name.startswith("v") else "branches"
        ref = name if kind == "pullRequests" else f"refs/{'tags' if kind == 'tags' else 'heads'}/{name}"
        found[kind].append({"name": name.removeprefix("refs/pr/"), "ref": ref, "targetCommit": commit})
    return found


def _paths(files: Files, wanted: list[str]) -> list[dict[str, Any]]:
    found = [_file(one, files[one]) for one in wanted if one in files]
    for one in wanted:
        if any(name.startswith(f"{one}/") for name in files):
            found.append({"type": "directory", "oid": _oid(one.encode()), "size": 0, "path": one})
    return found


def _content(added: dict[str, Any]) -> bytes:
    """What a commit has of a file: its content, or a pointer to it."""
    if "content" in added:
        return base64.b64decode(added["content"])
    return POINTER + f"oid sha256:{added['oid']}\nsize {added['size']}\n".encode()


def _file(name: str, content: bytes) -> dict[str, Any]:
    if content.startswith(POINTER):
        oid, size = content.decode().split("\n")[1:3]
        pointed = {"oid": oid.removeprefix("oid sha256:"), "size": int(size.split()[1]), "pointerSize": len(content)}
        return {"type": "file", "oid": _oid(content), "size": pointed["size"], "path": name, "lfs": pointed}
    return {"type": "file", "oid": _oid(content), "size": len(content), "path": name}


def _oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


__all__ = ["POINTER", "Hub", "hub_server"]
