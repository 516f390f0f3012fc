"""Words of a verdict's detail, about values of any size."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

DETAIL = 300
"""Maximum characters of a verdict's detail."""

_PARTS = 200  # of a value: each takes at least two characters, so that no cut can be seen
_TEXT = 400
_BITS = 1000


def one_line(text: str) -> str:
    """A text on one line, cut to ``DETAIL`` characters."""
    line = " ".join(text[: 20 * DETAIL].split())
    line = line.encode("utf-8", "backslashreplace").decode()
    return line if len(line) <= DETAIL else line[: DETAIL - 1] + "…"


def brief(value: Any, limit: int = 80) -> str:
    """A value's ``repr``, truncated; the time that it takes does not depend on the value's size."""
    if type(value) is int and value.bit_length() > _BITS:
        return f"an integer of {value.bit_length()} bits"
    try:
        text = repr(_Cut().cut(value))
    except Exception as error:
        return f"a {type(value).__name__} ({type(error).__name__} in its repr)"
    return text if len(text) <= limit else text[: limit - 1] + "…"


def named(error: BaseException) -> str:
    """An exception's class and message."""
    return f"{type(error).__name__}: {error}".rstrip(": ")


class _Cut:
    """Copies the beginning of a value, as much as a brief ``repr`` shows."""

    def __init__(self) -> None:
        self._left = _PARTS

    def cut(self, value: Any) -> Any:
        kind = type(value)
        if kind in (str, bytes, bytearray):
            return value[:_TEXT]
        if kind in (list, tuple, set, frozenset, deque):
            return kind(map(self.cut, self._first(value)))
        if kind in (dict, OrderedDict, Counter):
            pairs = {self.cut(key): self.cut(one) for key, one in self._first(value.items())}
            return OrderedDict(pairs) if kind is OrderedDict else Counter(pairs) if kind is Counter else pairs
        return value

    def _first(self, values: Any) -> Iterator[Any]:
        for one in values:
            if self._left <= 0:
                return
            self._left -= 1
            yield one
