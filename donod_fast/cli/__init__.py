"""The command line ``donod-fast``: options, output and exit codes. ``app.py`` is its entry point."""

from __future__ import annotations

import sys

from donod_fast.cli.signals import Stopper
from donod_fast.system.terminal import code_of_output, guard_streams


def main() -> None:
    """Run the command line; see :func:`donod_fast.cli.app.main` for its exit codes."""
    guard_streams()
    if sys.argv[1:] == ["--version"]:  # answered without importing the command-line library
        from donod_fast._version import __version__

        print(f"donod-fast {__version__}")
        _leave(0)
        return
    stopper = Stopper()
    stopper.install()
    code = 130
    try:
        from donod_fast.cli.app import main as run

        code = run(stopper)
    except KeyboardInterrupt:  # a signal while modules were imported, or while an error was reported
        pass
    stopper.leaving = True
    _leave(stopper.code(code))


def _leave(code: int) -> None:
    code, message = code_of_output(code)
    if message is not None:
        print(f"donod-fast: error: {message}", file=sys.stderr)
    if code:
        sys.exit(code)


__all__ = ["main"]
