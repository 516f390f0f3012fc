"""Kill one process of a host while it scores, for tests of what the host makes of it.

The process kills itself at its first call of the scorer, so nothing waits and no process can be missed.
"""

from __future__ import annotations

from pathlib import Path

_CODE = """
import os, signal, sys, threading, time

def _kill(self, *arguments, **options):
    try:
        os.close(os.open({mark!r}, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return _columns(self, *arguments, **options)
    os.kill(os.getpid(), signal.SIGKILL)

def _watch():
    global _columns
    while True:  # until the module is complete: it is imported long before it scores
        found = getattr(sys.modules.get("donod_fast.adapters.lazy_scorer"), "device_of_rank", None)
        if found is not None:
            kind = sys.modules["donod_fast.adapters.lazy_scorer"].LazyScorer
            _columns, kind.columns = kind.columns, _kill
            return
        time.sleep(0.001)

def _start():
    threading.Thread(target=_watch, daemon=True).start()

os.register_at_fork(after_in_child=_start)  # a fork has none of its parent's threads
_start()
"""


def killing(folder: Path) -> tuple[dict[str, str], Path]:
    """An environment in which the first process that scores kills itself with SIGKILL.

    Args:
        folder: an empty folder for this.

    Returns:
        The variables, and a file that exists once a process was killed.
    """
    folder.mkdir(parents=True)
    mark = folder / "killed"
    (folder / "sitecustomize.py").write_text(_CODE.format(mark=str(mark)), encoding="utf-8")
    return {"PYTHONPATH": str(folder)}, mark


__all__ = ["killing"]
