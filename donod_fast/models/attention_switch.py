"""The attention function of a model, changed for the duration of a forward and put back afterwards.

transformers' layers look their attention function up in the model's config, which all threads share. So whoever
runs the decoder enters with what they need, and those who need something else wait until it is empty.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn


class AttentionSwitch:
    """The configs of a decoder's modules, and who is inside.

    Args:
        decoder: the module whose layers read ``config._attn_implementation``.
    """

    def __init__(self, decoder: nn.Module) -> None:
        configs = (getattr(module, "config", None) for module in decoder.modules())
        self._configs = list({id(c): c for c in configs if getattr(c, _NAME, None) is not None}.values())
        self._turn = threading.Condition()
        self._inside = 0
        self._need: tuple[str, int] = ("", 0)
        self._own: list[Any] = []

    @contextmanager
    def using(self, attention: str, kind: int = 0, before: Callable[[], None] | None = None) -> Iterator[None]:
        """Run the decoder inside of this.

        Args:
            attention: the registered function that layers call, ``""`` for the model's own.
            kind: something else that all who are inside have to share (see ``rope.RopeSwitch``).
            before: run once by the first who enters, with the model's own attention and nobody else inside.
        """
        need = (attention, kind)
        with self._turn:
            while self._inside and self._need != need:
                self._turn.wait()
            if not self._inside:
                if before is not None:
                    before()
                self._need = need
                if attention:
                    self._own = [getattr(config, _NAME) for config in self._configs]
                    for config in self._configs:
                        setattr(config, _NAME, attention)
            self._inside += 1
        try:
            yield
        finally:
            with self._turn:
                self._inside -= 1
                if not self._inside:
                    for config, own in zip(self._configs, self._own, strict=True) if attention else ():
                        setattr(config, _NAME, own)
                    self._turn.notify_all()


_NAME = "_attn_implementation_internal"
"""What the property ``_attn_implementation`` of a config reads; its setter would reach into other sub-models."""

_SWITCHES: WeakKeyDictionary[nn.Module, AttentionSwitch] = WeakKeyDictionary()
_LOCK = threading.Lock()


def switch_of(decoder: nn.Module) -> AttentionSwitch:
    """The one switch of a decoder, however many trunks there are on it."""
    with _LOCK:
        if decoder not in _SWITCHES:
            _SWITCHES[decoder] = AttentionSwitch(decoder)
        return _SWITCHES[decoder]
