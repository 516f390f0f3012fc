"""YAML without the silent loss of PyYAML, and within bounds: a key that is given twice is refused, and so is a text
that expands, nests or refers to itself without end.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from donod_fast.confidential import hidden
from donod_fast.errors import InputError
from donod_fast.system.limits import YAML_BYTES, YAML_DEPTH, YAML_NODES
from donod_fast.system.wording import shortened


class UniqueKeyLoader(yaml.SafeLoader):
    """Safe YAML loader that refuses duplicate keys, deep nesting, references of a value to itself, and aliases that
    stand for too many values. PyYAML itself keeps the last of equal keys, and shares what an alias names.
    """

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._depth = self._nodes = 0
        self._sizes: dict[str, int] = {}  # values below each anchor, once it is complete

    def compose_node(self, parent: Any, index: Any) -> Any:
        """A node and those below it; raises ``yaml.composer.ComposerError`` (a ``yaml.YAMLError``) beyond a limit."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        anchor, before = event.anchor, self._nodes
        self._nodes += 1
        if isinstance(event, yaml.AliasEvent):
            if anchor in self.anchors and anchor not in self._sizes:
                raise _refusal(f"the value &{anchor} holds itself", event)
            self._nodes += self._sizes.get(str(anchor), 0)
        self._depth += 1
        if self._depth > YAML_DEPTH:
            raise _refusal(f"it is nested more than {YAML_DEPTH} deep", event)
        if self._nodes > YAML_NODES:
            raise _refusal(f"it has more than {YAML_NODES:,} values; aliases count each time", event)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if anchor is not None and not isinstance(event, yaml.AliasEvent):
            self._sizes[anchor] = self._nodes - before
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """A mapping; raises ``yaml.constructor.ConstructorError`` (a ``yaml.YAMLError``) for a key given twice."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            try:
                twice = key in seen
            except TypeError:
                raise yaml.constructor.ConstructorError(
                    None, None, "a key is a list or a mapping, not a text", key_node.start_mark
                ) from None
            if twice:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: Any) -> Any:
        """A scalar; the secrets of a URL are hidden. Two halves of a character, as JSON escapes it, are one again."""
        value = super().construct_scalar(node)
        if isinstance(value, str) and not value.isascii():
            value = value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        return hidden(value)


def _refusal(problem: str, event: Any) -> yaml.composer.ComposerError:
    return yaml.composer.ComposerError(None, None, problem, event.start_mark)


def parse_yaml(content: str, what: str, loader: type[UniqueKeyLoader] = UniqueKeyLoader) -> Any:
    """The value of a YAML text.

    Args:
        content: the text.
        what: how a message begins, such as ``"the recipe x.yaml"``.
        loader: the loader.

    Raises:
        InputError: it is not valid YAML, or beyond a limit of :mod:`donod_fast.system.limits`.
    """
    if len(content) > YAML_BYTES:
        raise InputError(f"{what} is longer than {YAML_BYTES >> 20} MiB; is it the right file?")
    try:
        return yaml.load(content, Loader=loader)
    except RecursionError as error:
        raise InputError(f"{what} is not valid YAML: it is nested too deep") from error
    # A loader's own constructors raise these for a date that does not exist, or a number with too many digits.
    except (yaml.YAMLError, ValueError, TypeError, ArithmeticError, LookupError, AttributeError) as error:
        for name in ("context_mark", "problem_mark"):
            if (mark := getattr(error, name, None)) is not None:
                mark.buffer = None  # it would quote the place, cut in the middle of a URL with its secret
        raise InputError(f"{what} is not valid YAML: {shortened(error, 1000)}") from error


def read_yaml(file: Path, what: str, loader: type[UniqueKeyLoader] = UniqueKeyLoader) -> Any:
    """The value of a YAML file; ``what`` and ``loader`` as for :func:`parse_yaml`.

    Raises:
        InputError: it cannot be read, is not valid YAML, or beyond a limit.
    """
    try:
        with file.open("rb") as stream:
            content = stream.read(YAML_BYTES + 1).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{what} cannot be read: {error}") from error
    return parse_yaml(content, what, loader)


__all__ = ["UniqueKeyLoader", "parse_yaml", "read_yaml"]
