"""Output streams without secrets: the last of the places where a message could show one.

Libraries log, warn and raise with URLs in their words. Standard error is cleaned by the form of URLs and tokens.
Standard output may show data, where a URL with a query is no secret: only secrets that this process knows are hidden.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

from donod_fast.confidential import without_known_secrets, without_secrets


class DiscreetStream:
    """A text stream that cleans each text before it writes it; all else is the stream's own."""

    def __init__(self, stream: Any, clean: Callable[[str], str]) -> None:
        self._stream, self._clean = stream, clean

    def write(self, text: str) -> int:
        """Write a text without secrets."""
        self._stream.write(self._clean(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write texts without secrets."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def use_discreet_streams() -> None:
    """Clean standard output and standard error of this process from now on; a second call changes nothing."""
    for name, clean in (("stdout", without_known_secrets), ("stderr", without_secrets)):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, DiscreetStream):
            setattr(sys, name, DiscreetStream(stream, clean))


__all__ = ["DiscreetStream", "use_discreet_streams"]
