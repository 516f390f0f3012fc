"""Options that only the command line has: what it prints."""

from __future__ import annotations

from dataclasses import dataclass

from donod_fast.system.options import option

PANEL = "Output"


@dataclass(frozen=True, slots=True)
class ScreenSettings:
    """What a command prints.

    Attributes:
        quiet: print neither progress nor a summary.
        json: print the summary as JSON.
    """

    quiet: bool = option(False, help="Print neither progress nor a summary.", panel=PANEL, short="-q")
    json: bool = option(False, help="Print the summary as JSON.", panel=PANEL)

    @property
    def hides_progress(self) -> bool:
        """Whether no progress is shown."""
        return self.quiet or self.json


__all__ = ["ScreenSettings"]
