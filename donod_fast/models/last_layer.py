"""Feed-forward part of the last decoder layer, computed at the scored positions only.

Only the output layer follows the last layer, and it is applied at scored positions only. So the feed-forward part of
the last layer (and the final norm) need no other rows. In a model of L layers this saves about 2/3 · 1/L of the trunk's
operations times the share of tokens that are not scored: little for 32 layers, a twentieth for five.

The decoder passes keyword arguments on to its layers. Inside :meth:`NarrowLastLayer.installed`, a last layer of the
usual pre-norm form

    h ← h + self_attn(input_layernorm(h));   h ← h + mlp(post_attention_layernorm(h))

accepts one more, ``scored_rows``. The trunk does not assume that a model has this form: it compares the results on a
probe batch when it is built.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

_PARTS = {"input_layernorm", "self_attn", "post_attention_layernorm", "mlp"}


class NarrowLastLayer:
    """Forward function for the last layer that can skip rows, and its installation.

    ``scored_rows`` is (scored,) int64: rows of the flattened (rows · tokens). The decoder then returns hidden states of
    shape (1, scored, d). Without it the layer computes all rows.
    """

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        self._lock = threading.Lock()
        self._calls = 0
        whole = layer.forward

        def forward(hidden_states: Tensor, *args: Any, scored_rows: Tensor | None = None, **kwargs: Any) -> Any:
            if scored_rows is None:
                return whole(hidden_states, *args, **kwargs)
            attended = layer.self_attn(hidden_states=layer.input_layernorm(hidden_states), **kwargs)[0]
            rows = (hidden_states + attended).flatten(0, 1).index_select(0, scored_rows).unsqueeze(0)
            return rows + layer.mlp(layer.post_attention_layernorm(rows))

        self._forward = forward

    @staticmethod
    def of(decoder: Any) -> NarrowLastLayer | None:
        """Build it for a decoder; None if the last layer does not have the parts named above."""
        layers = getattr(decoder, "layers", None)
        if not isinstance(layers, nn.ModuleList) or not len(layers):
            return None
        layer = layers[-1]
        plain = {name for name, _ in layer.named_children()} == _PARTS and "forward" not in vars(layer)
        return NarrowLastLayer(layer) if plain else None

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Install the new forward within the block, for every thread, and restore the model afterwards."""
        with self._lock:
            self._calls += 1
            self._layer.forward = self._forward
        try:
            yield
        finally:
            with self._lock:
                self._calls -= 1
                if not self._calls:
                    del self._layer.forward


__all__ = ["NarrowLastLayer"]
