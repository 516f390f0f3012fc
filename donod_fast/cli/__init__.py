"""The command line: ``donod-fast demo | score | select | rank | check``."""

from donod_fast.cli.app import main

__all__ = ["main"]
