"""Compile the trunk with ``torch.compile``: symbolic sizes, counted compilations, and a check against the eager trunk.

The compiled function is the decoder's forward, called as :class:`~donod_fast.models.trunk.Trunk` calls it. Batches
differ in rows and length, and one graph per shape would take longer to compile than to run. So sizes are symbolic.
PyTorch adds another graph only for a batch of one row, or if the model's own code takes another branch (attention
windows shorter than the batch).

Inductor writes the number of threads into the code that it generates for a CPU, so every batch must run with the same
number (``even_threads`` of the scorer).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from donod_fast.errors import InputError, ModelError
from donod_fast.kernels.fused import why_not_inductor
from donod_fast.models.loading import LoadedModel
from donod_fast.models.trunk import Trunk, synthetic_batch, token_error
from donod_fast.system.threads import threads_each, worker_count
from donod_fast.system.wording import shortened

CHOICES = ("auto", "on", "off")

CPU_ROWS = 100_000
"""Minimum number of rows for which ``auto`` compiles on a CPU. A small model took 48 s to compile and gained 0.6 ms per
row, so it breaks even at 80,000 rows (docs/benchmarks/notes.md). Larger models take longer and gain more."""


def wants_compiling(choice: str, rows: int | None, device: torch.device) -> bool:
    """Whether to compile for a corpus of ``rows`` rows (None: unknown).

    ``auto`` depends on nothing that could differ when a run resumes. On accelerators it does not compile, because the
    gain there has not been measured.

    Raises:
        InputError: the choice is unknown.
    """
    if choice not in CHOICES:
        raise InputError(f"compile must be one of {', '.join(CHOICES)}, got {choice!r}")
    if choice == "auto":
        return device.type == "cpu" and (rows or 0) >= CPU_ROWS and why_not_inductor() is None
    return choice == "on"


class CompiledTrunk:
    """The compiled decoder; called like the decoder.

    Attributes:
        compilations: number of graphs compiled so far.
        seconds: time that this took, without tracing.
    """

    def __init__(self, decoder: Callable[..., Any]) -> None:
        self.compilations = 0
        self.seconds = 0.0
        self._compiled = torch.compile(decoder, dynamic=True, backend=self._backend)

    def __call__(self, **arguments: Any) -> Any:
        """Run the decoder."""
        # Graphs are also guarded on whether a tensor is a view or an inference tensor; clones avoid recompilation.
        alike = {name: value.clone() if isinstance(value, Tensor) else value for name, value in arguments.items()}
        return self._compiled(**alike)

    def _backend(self, graph: Any, inputs: Any) -> Any:
        from torch._inductor.compile_fx import compile_fx

        start = time.perf_counter()
        compiled = compile_fx(graph, inputs)
        self.compilations += 1
        self.seconds += time.perf_counter() - start
        return compiled


def compile_trunk(trunk: Trunk, loaded: LoadedModel) -> tuple[Trunk, CompiledTrunk]:
    """Compile the trunk's decoder and check on a probe that its hidden states equal those of the eager decoder.

    Returns:
        A trunk that calls the compiled decoder, and the compiled decoder.

    Raises:
        ModelError: the decoder cannot be compiled here, or returns other hidden states.
    """
    if loaded.device.type == "cpu" and (reason := why_not_inductor()):
        raise ModelError(f"{loaded.name}: cannot be compiled: {reason}; install one, or use --compile off")
    if loaded.offloaded:
        raise ModelError(f"{loaded.name}: offloaded weights cannot be compiled; use --compile off")
    compiled = CompiledTrunk(trunk.run)
    # Several rows and one row: PyTorch makes a graph for each. Packed samples are always one row.
    probes = [synthetic_batch(loaded, tokens, packed=trunk.packs) for tokens in (512, 64)]
    faster = trunk.calling(compiled)
    wanted = [trunk.scored_states(batch) for batch in probes]
    try:
        with threads_each(torch.get_num_threads() // worker_count(loaded.device)):
            error = max(
                token_error(faster.scored_states(batch), states) for batch, states in zip(probes, wanted, strict=True)
            )
    except Exception as failure:  # the compiler and the model's own code may raise anything
        reason = shortened(failure, 300)
        raise ModelError(f"{loaded.name}: cannot be compiled ({reason}); use --compile off") from failure
    limit = trunk.tolerance(wanted[0].dtype)
    if not error <= limit:
        raise ModelError(
            f"{loaded.name}: compiling changes its hidden states by {error:.1e} (limit {limit:.0e}); use --compile off"
        )
    return faster, compiled


__all__ = ["CHOICES", "CompiledTrunk", "compile_trunk", "wants_compiling"]
