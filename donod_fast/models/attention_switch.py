"""Replace the attention function of a model during a forward pass and restore it afterwards.

The layers of transformers look up their attention function in the config of the model, which all threads share. So a
thread enters the switch with the function that it needs; threads that need another one wait until all have left.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn


class AttentionSwitch:
    """Configs of a decoder's modules, and the threads that are inside.

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
        """Hold the switch while the decoder runs.

        Args:
            attention: registered function that the layers shall call; ``""`` for the model's own.
            kind: another value that all threads inside must share (see ``rope.RopeSwitch``).
            before: called once by the first thread that enters, with the model's own attention still installed.
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
"""Attribute behind a config's property ``_attn_implementation``, whose setter would also change other sub-models."""

_SWITCHES: WeakKeyDictionary[nn.Module, AttentionSwitch] = WeakKeyDictionary()
_LOCK = threading.Lock()


def switch_of(decoder: nn.Module) -> AttentionSwitch:
    """Switch of a decoder; all trunks over one decoder share it."""
    with _LOCK:
        if decoder not in _SWITCHES:
            _SWITCHES[decoder] = AttentionSwitch(decoder)
        return _SWITCHES[decoder]
