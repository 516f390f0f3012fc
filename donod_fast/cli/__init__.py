"""The command line ``donod-fast``: options, help, progress, summaries and exit codes."""

from donod_fast.cli.app import main

__all__ = ["main"]
