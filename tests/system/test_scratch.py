"""Temporary folders: whatever ends their process, nothing of them stays."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from donod_fast.system.scratch import remove_abandoned, scratch_folder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and forks of POSIX")


def test_a_folder_whose_removal_was_killed_is_removed_by_the_next_run(tmp_path: Path) -> None:
    prefix = ".donod-fast-test-"

    def work(last: int) -> None:
        left = iter(range(last))

        def counted(call: Callable[..., None]) -> Callable[..., None]:
            def changed(*arguments: Any, **options: Any) -> None:
                if next(left, None) is None:
                    os.kill(os.getpid(), signal.SIGKILL)
                call(*arguments, **options)

            return changed

        with scratch_folder(tmp_path, prefix) as folder:
            (folder / "inner").mkdir()
            for name in ("a", "inner/b", "z"):
                (folder / name).touch()
            for name in ("unlink", "rmdir"):
                setattr(os, name, counted(getattr(os, name)))

    for last in range(20):
        child = os.fork()
        if child == 0:
            work(last)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        remove_abandoned(tmp_path, prefix)
        assert list(tmp_path.iterdir()) == [], last
        if code == 0:
            assert last >= 6  # three files, a lock and two folders
            return
    raise AssertionError("it never ended")
