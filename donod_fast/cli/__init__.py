"""The command line ``donod-fast``: options, output and exit codes. ``app.py`` is its entry point."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; see :func:`donod_fast.cli.app.main` for its exit codes."""
    if sys.argv[1:] == ["--version"]:  # answered without importing the command-line library
        from donod_fast import __version__

        print(f"donod-fast {__version__}")
        return
    from donod_fast.cli.app import main as run

    run()


__all__ = ["main"]
