"""YAML without the silent loss of PyYAML: a key that is given twice is refused."""

from __future__ import annotations

from typing import Any

import yaml

from donod_fast.confidential import hidden


class UniqueKeyLoader(yaml.SafeLoader):
    """Safe YAML loader that refuses duplicate keys; PyYAML itself keeps the last value and drops the others."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """A mapping; raises ``yaml.constructor.ConstructorError`` (a ``yaml.YAMLError``) for a key given twice."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = next((key for at, key in enumerate(keys) if key in keys[:at]), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: Any) -> Any:
        """A scalar; the secrets of a URL are hidden."""
        return hidden(super().construct_scalar(node))


__all__ = ["UniqueKeyLoader"]
