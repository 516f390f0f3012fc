"""The command line ``donod-fast``: what it takes, prints and exits with. ``app.py`` is its edge."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; see :func:`donod_fast.cli.app.main` for its exit codes."""
    if sys.argv[1:] == ["--version"]:  # answered before the command-line library is imported
        from donod_fast import __version__

        print(f"donod-fast {__version__}")
        return
    from donod_fast.cli.app import main as run

    run()


__all__ = ["main"]
