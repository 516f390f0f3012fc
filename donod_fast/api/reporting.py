"""Write the report of scores, wherever they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from donod_fast.api.options import settings_of
from donod_fast.api.source import Source
from donod_fast.reports.report import write_report
from donod_fast.reports.settings import ReportOptions


def write_report_of(source: Source, out: Path, options: Mapping[str, Any]) -> None:
    """Write the report of a scores folder on a disk, in a store or in memory.

    Raises:
        InputError: an unknown or wrong option.
        StoreError: the file exists or cannot be written.
    """
    (given,) = settings_of(options, ReportOptions)
    write_report(source.folder, out, given)


__all__ = ["write_report_of"]
