"""Automatic token budget from free memory and a probe run.

On a CUDA device two small batches run through the trunk, and the peak of allocated memory over their sizes gives bytes
per token. The budget fills most of the free memory, without the head's workspace, and is at most the size from which
larger batches are not faster. On a CPU that size is small (larger batches leave the cache), and memory matters only if
it is short.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from donod_fast.models.batching import Batch
from donod_fast.models.loading import LoadedModel, text_config
from donod_fast.models.trunk import Trunk, synthetic_batch
from donod_fast.system.memory import free_bytes, is_out_of_memory
from donod_fast.system.threads import worker_count
from donod_fast.system.wording import plural

CPU_PLATEAU = 1024
"""Padded tokens; from here to twice as many the speed is the same (docs/benchmarks/notes.md)."""

PADDED_PLATEAU = 16_384
PACKED_PLATEAU = 32_768
"""Tokens of a batch on an accelerator from which more only costs memory: the products are large enough long before, and
what packing in input order leaves empty falls below one slot in a hundred."""

STEP = 256
"""Budgets are multiples of this, and at least this: a longer sample is alone in its batch anyway."""

_SHARE = 0.8  # of the free memory: fragments, and samples that are longer than the probe's
_PROBES = (512, 2048)
_SMALLEST_PROBE = 32
_TOLERANCE = 1.1


@dataclass(frozen=True, slots=True)
class Budget:
    """A token budget and its origin.

    Attributes:
        tokens: slots of a batch, padding included.
        how: how the number was found: one phrase for a reader and for the manifest.
        bytes_per_token: measured (on a CPU: estimated) memory of the trunk per slot, None if unknown.
        free_bytes: memory that was free with the model loaded, None if unknown.
    """

    tokens: int
    how: str
    bytes_per_token: float | None = None
    free_bytes: int | None = None


class MemoryMeter(Protocol):
    """Measures the memory of a device."""

    def free(self) -> int:
        """Bytes that could be allocated now."""

    def peak(self, run: Callable[[], object]) -> int:
        """The most bytes that ``run`` allocates at once, beyond those allocated before."""


def find_token_budget(
    loaded: LoadedModel,
    trunk: Trunk,
    warm_up: Callable[[Batch], object],
    *,
    workspace_bytes: int,
    meters: Sequence[MemoryMeter] | None = None,
) -> Budget:
    """Find the budget for a loaded model on its device.

    Args:
        loaded: the model; the devices of its weights decide what is measured.
        trunk: its decoder, which is run on synthetic batches.
        warm_up: runs a batch through trunk and head; called once, before anything is measured.
        workspace_bytes: memory limit of the head mathematics, in addition to the trunk.
        meters: one for every device that holds a part of the model; None for those of its CUDA devices.
    """
    if meters is None:
        meters = cuda_meters(loaded)
    if not meters:
        if loaded.device.type != "cpu":
            return Budget(PADDED_PLATEAU, f"a fixed number: the memory of {loaded.device.type} cannot be measured")
        return cpu_budget(
            free_bytes(loaded.device),
            activation_bytes(loaded),
            workers=worker_count(loaded.device),
            workspace_bytes=workspace_bytes,
        )
    packs = trunk.packs

    def run(tokens: int) -> object:
        return trunk.scored_states(synthetic_batch(loaded, tokens, packed=packs))

    try:  # handles and compiled kernels are allocated once and do not belong to a batch
        warm_up(synthetic_batch(loaded, _SMALLEST_PROBE, packed=packs))
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    plateau = PACKED_PLATEAU if packs else PADDED_PLATEAU
    found = [probed_budget(meter, run, workspace_bytes=workspace_bytes, plateau=plateau) for meter in meters]
    return min(found, key=lambda budget: budget.tokens)


def cuda_meters(loaded: LoadedModel) -> list[MemoryMeter]:
    """One for each CUDA device that the model is on."""
    places = {loaded.device, *(parameter.device for parameter in loaded.model.parameters())}
    return [CudaMeter(place) for place in sorted(places, key=str) if place.type == "cuda"]


def probed_budget(meter: MemoryMeter, run: Callable[[int], object], *, workspace_bytes: int, plateau: int) -> Budget:
    """Measure two batches and solve for the budget; a probe that does not fit is halved.

    Args:
        meter: measures the device.
        run: runs the trunk on a batch of this many tokens.
        workspace_bytes: kept free for the head.
        plateau: size from which larger batches are not faster.
    """
    small, large = _PROBES
    while small >= _SMALLEST_PROBE:
        try:
            low, high = (_peak(meter, run, tokens) for tokens in (small, large))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            small, large = small // 2, large // 2
            continue
        return solve_budget(
            (small, low), (large, high), free=meter.free(), workspace_bytes=workspace_bytes, plateau=plateau
        )
    return Budget(STEP, f"memory is short: a probe of {plural(2 * small, 'token')} does not fit", None, meter.free())


def solve_budget(
    small: tuple[int, int], large: tuple[int, int], *, free: int, workspace_bytes: int, plateau: int
) -> Budget:
    """The budget from two measured batches.

    Args:
        small: tokens and peak bytes of the smaller one.
        large: tokens and peak bytes of the larger one.
        free: bytes that are free.
        workspace_bytes: kept free for the head.
        plateau: size from which larger batches are not faster.
    """
    per_token = (large[1] - small[1]) / (large[0] - small[0])
    if per_token <= 0:  # the memory does not depend on the size
        per_token = max(1.0, large[1] / large[0])
    once = max(0.0, small[1] - per_token * small[0])
    fits = int((_SHARE * free - workspace_bytes - once) / per_token)
    tokens = max(STEP, min(fits, plateau) // STEP * STEP)
    reason = "larger batches are not faster" if fits >= plateau else "what fits" if fits >= STEP else "memory is short"
    return Budget(tokens, f"{reason}: {_size(per_token)} a token measured, {_size(free)} free", per_token, free)


def cpu_budget(free: int | None, per_token: float, *, workers: int, workspace_bytes: int) -> Budget:
    """The plateau, or less if ``workers`` such batches and the workspace do not fit into ``free`` bytes."""
    if free is None:
        return Budget(CPU_PLATEAU, "the best size on CPUs", per_token)
    fits = int((_SHARE * free - workspace_bytes) / (workers * per_token))
    if fits >= CPU_PLATEAU:
        return Budget(CPU_PLATEAU, "the best size on CPUs", per_token, free)
    tokens = max(STEP, fits // STEP * STEP)
    return Budget(tokens, f"memory is short: {_size(free)} free", per_token, free)


def settled(own: int, recorded: object) -> int:
    """The budget for a folder that was begun with ``recorded`` tokens, if ``own`` were found now.

    Batches of another size round differently in the last bits. So a run that resumes (or another device of the run)
    uses the recorded number, unless it is clearly more than what fits now.
    """
    return recorded if isinstance(recorded, int) and 0 < recorded <= _TOLERANCE * own else own


def activation_bytes(loaded: LoadedModel) -> float:
    """Estimated memory of the trunk per token: hidden state, residual, attention and the wide layer."""
    config = text_config(loaded.model.config)
    dim = int(getattr(config, "hidden_size", None) or loaded.model.get_output_embeddings().weight.shape[1])
    wide = int(getattr(config, "intermediate_size", None) or 4 * dim)
    return (6 * dim + 3 * wide) * torch.finfo(loaded.dtype).bits / 8


class CudaMeter:
    """Measures a CUDA device through PyTorch's allocator."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def free(self) -> int:
        """What the device has free, and what the allocator holds and does not use."""
        torch.cuda.synchronize(self._device)
        held, used = torch.cuda.memory_reserved(self._device), torch.cuda.memory_allocated(self._device)
        return (free_bytes(self._device) or 0) + held - used

    def peak(self, run: Callable[[], object]) -> int:
        """Most bytes allocated during ``run`` beyond those before it."""
        torch.cuda.synchronize(self._device)
        before = torch.cuda.memory_allocated(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        run()
        torch.cuda.synchronize(self._device)
        return torch.cuda.max_memory_allocated(self._device) - before


def _peak(meter: MemoryMeter, run: Callable[[int], object], tokens: int) -> int:
    run(tokens)  # the first batch of a size may search for kernels, with workspaces of its own
    return meter.peak(lambda: run(tokens))


def _size(number: float) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if number >= size:
            return f"{number / size:,.1f} {unit}"
    return f"{number / 1024:,.1f} KiB"


__all__ = ["Budget", "CudaMeter", "MemoryMeter", "activation_bytes", "cpu_budget", "cuda_meters", "find_token_budget",
           "probed_budget", "settled", "solve_budget"]  # fmt: skip
