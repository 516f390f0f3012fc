"""AGIEval and IFEval by lm-eval on local files: the benchmark of the paper (arXiv 2504.14810, Table 6).

:func:`measure` is the entry for Python users and studies. Nothing here uses the network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from donod_fast.evaluation.harness.measuring import measure

__all__ = ["measure"]


def __getattr__(name: str) -> Any:
    if name == "measure":
        from donod_fast.evaluation.harness.measuring import measure

        return measure
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
