"""``RaySettings``: which Ray cluster scores, and the resources of each worker."""

from __future__ import annotations

from dataclasses import dataclass

from donod_fast.errors import InputError
from donod_fast.system.options import option

PANEL = "Running"


@dataclass(frozen=True, slots=True)
class RaySettings:
    """Which cluster scores, and with how many workers.

    Attributes:
        address: ``"HOST:PORT"`` of a cluster that this machine belongs to, ``"auto"`` for the one that runs on this
            machine, or None to start one here and stop it after the run.
        workers: number of workers. If fewer fit, those work, and the others start as soon as there is room.
        gpus_per_worker: 1, a fraction that workers share, or 0; None for 1 if the cluster has GPUs and the scorer may
            use them.
        cpus_per_worker: CPUs that each worker reserves. It uses as many threads, and one process fewer that tokenises
            ahead.

    Raises:
        InputError: names a setting with a wrong value.
    """

    address: str | None = option(
        None, help="Address of the Ray cluster: HOST:PORT or auto.", panel=PANEL, shown="start one here"
    )
    workers: int = option(2, help="Number of Ray workers.", panel=PANEL, name="ray_workers", minimum=1)
    gpus_per_worker: float | None = option(
        None,
        help="GPUs per Ray worker.",
        panel=PANEL,
        minimum=0,
        shown="1 if the cluster has GPUs, else 0",
    )
    cpus_per_worker: float = option(1.0, help="CPUs per Ray worker.", panel=PANEL, minimum=0)

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise InputError(f"workers must be at least 1, got {self.workers}")
        if self.gpus_per_worker is not None and not 0 <= self.gpus_per_worker <= 1:
            raise InputError(
                f"gpus_per_worker must be from 0 to 1, got {self.gpus_per_worker:g}: a worker drives one GPU or a part "
                "of it; ask for more workers"
            )
        if self.cpus_per_worker < 0 or (self.cpus_per_worker > 1 and self.cpus_per_worker % 1):
            raise InputError(f"cpus_per_worker must be a whole number or less than 1, got {self.cpus_per_worker:g}")
        if self.address is not None and self.address.startswith("ray://"):
            raise InputError(
                f"address {self.address}: a Ray client is not enough; run the command on a machine of the cluster, "
                "with its HOST:PORT or auto"
            )


__all__ = ["RaySettings"]
