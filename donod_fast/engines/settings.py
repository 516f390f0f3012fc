"""Where and how a scoring run is carried out: settings as options."""

from __future__ import annotations

from dataclasses import dataclass, field

from donod_fast.engines.isolation import STALL_TIMEOUT
from donod_fast.engines.ray.settings import RaySettings
from donod_fast.errors import InputError
from donod_fast.system.options import check_choices, option

SLURM_ARRAY = "slurm-array"
ENGINES = ("local", "ray", SLURM_ARRAY)
PANEL = "Running"


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Which processes score, on which devices. No score depends on it.

    Attributes:
        engine: ``"local"`` for this machine, ``"ray"`` for a cluster, ``"slurm-array"`` for this machine as one task of
            an array, whose number is in the environment.
        devices: devices of this machine with a process each: ``"all"``, or names separated by commas; None for one.
        workers: processes that read and tokenise ahead; None to choose by device and rows.
        part_rows: rows of a committed part; None to choose by the size of the corpus.
        stall_timeout: see :class:`donod_fast.engines.request.RunOptions`.
        ray: the cluster.

    Raises:
        InputError: names the setting with a wrong value.
    """

    devices: str | None = option(
        None, help="Score on several devices, with a process each: all, or for example cuda:0,cuda:2.", panel=PANEL
    )
    workers: int | None = option(
        None,
        help="Processes that read and tokenise ahead.",
        panel=PANEL,
        minimum=0,
        shown="by device and rows",
    )
    part_rows: int | None = option(
        None,
        help="Rows of a committed part.",
        panel=PANEL,
        minimum=1,
        shown="1,024 to 16,384 by corpus size",
    )
    engine: str = option(
        "local",
        help="Engine: local (this machine), ray (a cluster) or slurm-array (--shard from Slurm's environment).",
        panel=PANEL,
        choices=ENGINES,
    )
    stall_timeout: float = option(
        STALL_TIMEOUT,
        help="Seconds without progress after which a worker process is considered hung, killed and replaced.",
        panel=PANEL,
        minimum=1,
    )
    ray: RaySettings = field(default_factory=RaySettings)

    def __post_init__(self) -> None:
        check_choices(self)
        if self.engine != "ray" and self.ray.address is not None:
            raise InputError("--address is the address of a Ray cluster: add --engine ray")


__all__ = ["ENGINES", "SLURM_ARRAY", "EngineSettings"]
