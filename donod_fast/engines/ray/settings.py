"""``RaySettings``: which cluster, and what each of its workers takes."""

from __future__ import annotations

from dataclasses import dataclass

from donod_fast.errors import InputError


@dataclass(frozen=True, slots=True)
class RaySettings:
    """Which cluster scores, and with how many workers.

    Attributes:
        address: ``"HOST:PORT"`` of a cluster that this machine belongs to, ``"auto"`` for the one that runs here, or
            None to start one here and end it with the run.
        workers: how many there are. Fewer work if no more fit; others begin as soon as they do.
        gpus_per_worker: 1, a fraction that workers share, or 0; None for 1 where the cluster has GPUs and the scorer
            may use them.
        cpus_per_worker: CPUs that each reserves; so many threads it has, and one process fewer that tokenises ahead.
        stall_timeout: seconds without a sign of life after which a process is taken to hang, killed and replaced. After
            twice that without any worker at work the run ends.

    Raises:
        InputError: names a setting with a wrong value.
    """

    address: str | None = None
    workers: int = 2
    gpus_per_worker: float | None = None
    cpus_per_worker: float = 1.0
    stall_timeout: float = 1800.0

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
        if not self.stall_timeout > 0:
            raise InputError(f"stall_timeout must be more than 0 seconds, got {self.stall_timeout:g}")
        if self.address is not None and self.address.startswith("ray://"):
            raise InputError(
                f"address {self.address}: a Ray client is not enough; run the command on a machine of the cluster, "
                "with its HOST:PORT or auto"
            )


__all__ = ["RaySettings"]
