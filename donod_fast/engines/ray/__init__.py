"""Scoring on a Ray cluster: workers on several machines score the parts of a corpus.

``settings.py`` has the options, ``connection.py`` finds or starts the cluster, ``driver.py`` runs a whole job,
``stream.py`` sends its tasks through a pool of actors, ``worker.py`` is such an actor, and ``ledger.py`` records the
attempts and the progress of all workers.

The names below are imported on first use; Ray itself only when a run begins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from donod_fast.engines.ray.driver import score_on_ray
    from donod_fast.engines.ray.settings import RaySettings

__all__ = ["RaySettings", "score_on_ray"]


def __getattr__(name: str) -> Any:
    if name == "RaySettings":
        from donod_fast.engines.ray.settings import RaySettings

        return RaySettings
    if name == "score_on_ray":
        from donod_fast.engines.ray.driver import score_on_ray

        return score_on_ray
    raise AttributeError(f"module 'donod_fast.engines.ray' has no attribute {name!r}")
