"""Locks as objects of an object store: the process that creates the object holds it, and renews it while it lives."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from donod_fast.errors import StoreError
from donod_fast.system.storage import Storage, unreadable

_log = logging.getLogger(__name__)

BEAT_SECONDS = 20.0
"""Seconds between renewals of a lock object by its holder."""

DEAD_SECONDS = 120.0
"""The holder of a lock object older than this many seconds counts as dead."""

_LOOK_SECONDS = 0.5


class InUse(Exception):
    """Another process holds the lock; the message names it."""


def holder_facts() -> dict[str, Any]:
    """Who holds a lock: this process and its host."""
    return {"host": socket.gethostname(), "process": os.getpid(), "world": _world()}


@contextmanager
def held_object(storage: Storage, name: str, *, patient: bool = False) -> Iterator[None]:
    """Hold a lock object.

    A holder on this machine that has ended loses it at once, any other two minutes after its last renewal.

    Args:
        storage: the folder.
        name: name of the object.
        patient: if the object is there, watch whether it is renewed, and take it over if it is not.

    Raises:
        InUse: another process holds it.
        StoreError: it cannot be written.
    """
    token = uuid.uuid4().hex
    content = json.dumps({"token": token, **holder_facts()}).encode()
    storage.make()
    if not storage.create(name, content):
        if patient:
            _watch(storage, name)
        if is_held(storage, name):
            raise InUse(holder(storage, name))
        storage.write(name, content)
    if _token_now(storage, name) != token:  # another process took it over at the same moment
        raise InUse(holder(storage, name))
    over = threading.Event()
    beat = threading.Thread(target=_beat, args=(storage, name, content, token, over), name="lock", daemon=True)
    beat.start()
    try:
        yield
    finally:
        over.set()
        beat.join()
        _release(storage, name, token)


def is_held(storage: Storage, name: str) -> bool:
    """Whether a lock object exists whose holder counts as alive."""
    return age(storage, name) < DEAD_SECONDS and not _has_ended_here(_content(storage, name))


def age(storage: Storage, name: str) -> float:
    """Seconds since a lock object was last renewed; infinite if there is none."""
    try:
        return storage.age(name)
    except FileNotFoundError:
        return float("inf")


def holder(storage: Storage, name: str) -> str:
    """Who holds a lock, for messages."""
    return described(_content(storage, name))


def described(content: dict[str, Any]) -> str:
    """Who is named by :func:`holder_facts`."""
    try:
        return f"process {content['process']} on {content['host']}"
    except KeyError:
        return "another process"


def _watch(storage: Storage, name: str) -> None:
    """Wait until a lock is renewed, vanishes, or its holder counts as dead."""
    first = _stamp(storage, name)
    while is_held(storage, name) and _stamp(storage, name) == first:
        time.sleep(_LOOK_SECONDS)


def _stamp(storage: Storage, name: str) -> float | None:
    with suppress(FileNotFoundError):
        return storage.modified(name)
    return None


def _release(storage: Storage, name: str, token: str) -> None:
    """Remove the lock, if the store lets us; an error here must not hide that of the run."""
    try:
        if _token(storage, name) == token:
            storage.remove(name)
    except StoreError as error:
        _log.warning("%s stays locked for %g s: %s", storage.name, DEAD_SECONDS, error)


def _beat(storage: Storage, name: str, content: bytes, token: str, over: threading.Event) -> None:
    while not over.wait(BEAT_SECONDS):
        if _token(storage, name) not in (token, None):  # taken over while this process was suspended
            return
        try:
            storage.write(name, content)
        except StoreError:  # the next renewal may succeed; parts are safe without it
            continue


def _content(storage: Storage, name: str) -> dict[str, Any]:
    try:
        found = json.loads(storage.read(name))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _token(storage: Storage, name: str) -> str | None:
    """Whose lock it is; None if there is none or the store does not say."""
    try:
        return _token_now(storage, name)
    except StoreError:
        return None


def _token_now(storage: Storage, name: str) -> str | None:
    try:
        return str(json.loads(storage.read(name))["token"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    except OSError as error:
        raise unreadable(storage, name, error) from error


def _world() -> str | None:
    """Names the set of processes in which process numbers are unique; None if that is unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def _has_ended_here(content: dict[str, Any]) -> bool:
    """Whether a lock is of a process that was in the same world as this one, and has ended."""
    world, process = content.get("world"), content.get("process")
    if world is None or world != _world() or not isinstance(process, int):
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


__all__ = ["BEAT_SECONDS", "DEAD_SECONDS", "InUse", "age", "described", "held_object", "holder", "holder_facts",
           "is_held"]  # fmt: skip
