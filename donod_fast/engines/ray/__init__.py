"""Past one machine: the parts of a corpus scored by workers of a Ray cluster.

``settings.py`` says what is asked for, ``connection.py`` finds or starts the cluster, ``ray_engine.py`` is the driver's
whole run, ``ray_worker.py`` what a worker does, and ``ledger.py`` what is known of all of them.

The names below are imported when first used; Ray itself only when a run begins.
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
