"""Write the report of scores, wherever they are."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from donod_fast.api.options import settings_of
from donod_fast.api.source import Source
from donod_fast.scores.copying import copy_folder


def write_report_of(source: Source, out: Path, options: Mapping[str, Any]) -> None:
    """Write the report of a scores folder; scores in memory are written to a temporary folder first.

    Raises:
        InputError: an unknown or wrong option.
        StoreError: the file exists or cannot be written.
    """
    reports: Any = import_module("donod_fast.reports.report")
    settings: Any = import_module("donod_fast.reports.settings")
    (given,) = settings_of(options, settings.ReportOptions)
    corpus = None if source.given is None else source.corpus()
    if not source.in_memory:
        reports.write_report(source.folder, out, given, corpus=corpus)
        return
    with TemporaryDirectory(prefix="donod-fast-") as place:
        reports.write_report(copy_folder(source.folder, Path(place) / "scores"), out, given, corpus=corpus)


__all__ = ["write_report_of"]
