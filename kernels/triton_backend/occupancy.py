"""Programs that run on a multiprocessor at the same time, from registers, shared memory, tensor memory and warps.

Sources: NVIDIA's CUDA Programming Guide, section "Compute Capabilities" (technical specifications per compute
capability: https://docs.nvidia.com/cuda/cuda-programming-guide/05-appendices/compute-capabilities.html) and the
formula of NVIDIA's occupancy calculator (registers are given to warps in units of 256, per quarter of the
multiprocessor; the system takes 1 KiB of shared memory of each program). Tensor memory of sm_100 has 512 columns (PTX
ISA, section "Tensor Memory"). AMD: LLVM's ``AMDGPUBaseInfo.cpp`` for gfx90a and later (512 vector registers a SIMD
lane, given in units of 8, at most 8 wavefronts a SIMD, 64 KiB of LDS a compute unit); a compute unit has 4 SIMDs.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Multiprocessor:
    """Limits of a multiprocessor (AMD: compute unit).

    Attributes:
        lanes: threads of a warp.
        registers: per scheduler (quarter of the multiprocessor, SIMD), counted per warp.
        register_unit: registers per thread are rounded up to a multiple of it.
        shared_bytes: shared memory of all programs together; ``reserved_bytes`` of it per program are the system's.
        shared_unit: bytes in which shared memory is given.
        block_bytes: most shared memory of one program.
        warps, programs: most at the same time.
        tensor_columns: columns of tensor memory, 0 without any.
    """

    lanes: int
    registers: int
    register_unit: int
    shared_bytes: int
    reserved_bytes: int
    shared_unit: int
    block_bytes: int
    warps: int
    programs: int
    tensor_columns: int = 0


def _nvidia(shared_kib: int, block_kib: int, warps: int, programs: int, tensor_columns: int = 0) -> Multiprocessor:
    return Multiprocessor(32, 512, 8, shared_kib << 10, 1024, 128, block_kib << 10, warps, programs, tensor_columns)


MULTIPROCESSORS = {
    "sm_80": _nvidia(164, 163, 64, 32),
    "sm_89": _nvidia(100, 99, 48, 24),
    "sm_90": _nvidia(228, 227, 64, 32),
    "sm_100": _nvidia(228, 227, 64, 32, tensor_columns=512),
    "sm_120": _nvidia(100, 99, 48, 24),
    "gfx942": Multiprocessor(64, 512, 8, 64 << 10, 0, 512, 64 << 10, 32, 32),
}
SCHEDULERS = 4


def programs_per_multiprocessor(
    architecture: str, *, warps: int, registers: int, shared_bytes: int, tensor_columns: int = 0
) -> int:
    """Programs of ``warps`` warps, with ``registers`` per thread, that run on a multiprocessor at once; 0: none fits.

    Raises:
        KeyError: the architecture is unknown.
    """
    m = MULTIPROCESSORS[architecture]
    # A quarter has 16,384 registers of 32 lanes: 512 per lane.
    per_scheduler = m.registers // _up(max(registers, 1), m.register_unit)
    limits = [m.programs, m.warps // warps, SCHEDULERS * per_scheduler // warps]
    if shared_bytes > m.block_bytes:
        return 0
    used = _up(shared_bytes, m.shared_unit) + m.reserved_bytes
    if used:
        limits.append(m.shared_bytes // used)
    if tensor_columns:
        limits.append(m.tensor_columns // tensor_columns)
    return min(limits)


def _up(number: int, unit: int) -> int:
    return -(-number // unit) * unit
