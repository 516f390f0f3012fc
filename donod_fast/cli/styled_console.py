"""A rich console whose colours reach the terminal, and whose text is escaped."""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO, Any, cast

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from donod_fast.system.escaping import escaped
from donod_fast.system.terminal import StyledOutput


class StyledConsole(Console):
    """A console on standard output. Colours come from styles only: those in a text are escaped with it.

    Args:
        given: as for :class:`rich.console.Console`.
    """

    def __init__(self, **given: Any) -> None:
        super().__init__(file=cast(IO[str], StyledOutput()), **given)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of something, with their text escaped."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=escaped(segment.text))


__all__ = ["StyledConsole"]
