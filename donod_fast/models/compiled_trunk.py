"""The trunk compiled by ``torch.compile``: one graph with symbolic sizes, counted compilations, proved equal.

What is compiled is the decoder's forward, called as :class:`~donod_fast.models.trunk.Trunk` calls it. Batches differ in
rows and length, so that a graph for each shape would compile for longer than it runs: sizes are symbolic, and
a graph more is made only where PyTorch must tell one from many (a batch of one row) or where the model's own code
takes another way (attention windows shorter than the batch).

Code that Inductor generates for a CPU has its number of threads written into it, so that batches have to be given the
same number always (``even_threads`` of the scorer).
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

CHOICES = ("auto", "on", "off")

CPU_ROWS = 100_000
"""Rows from which ``auto`` compiles on a CPU. A small model took 48 s to compile and gained 0.6 ms a row: even at
80,000 rows (docs/benchmarks/notes.md). Larger ones take longer and gain more."""


def wants_compiling(choice: str, rows: int | None, device: torch.device) -> bool:
    """Whether to compile for a corpus of ``rows`` (None: unknown).

    ``auto`` depends on nothing that could differ when a run is resumed. On accelerators it stays off: what it
    brings there has not been measured.

    Raises:
        InputError: the choice is not known.
    """
    if choice not in CHOICES:
        raise InputError(f"compile must be one of {', '.join(CHOICES)}, got {choice!r}")
    if choice == "auto":
        return device.type == "cpu" and (rows or 0) >= CPU_ROWS and why_not_inductor() is None
    return choice == "on"


class CompiledTrunk:
    """The compiled decoder: called as the decoder is.

    Attributes:
        compilations: how many graphs have been compiled so far.
        seconds: how long that took, tracing left out.
    """

    def __init__(self, decoder: Callable[..., Any]) -> None:
        self.compilations = 0
        self.seconds = 0.0
        self._compiled = torch.compile(decoder, dynamic=True, backend=self._backend)

    def __call__(self, **arguments: Any) -> Any:
        """Run the decoder."""
        # Whether a tensor is a view or was made in inference mode is guarded too, and would be compiled for anew.
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
    """Compile the trunk's decoder, and prove on a probe that it gives the hidden states of the eager one.

    Returns:
        a trunk that calls the compiled decoder, and the compiled decoder.

    Raises:
        ModelError: the decoder cannot be compiled here, or gives other hidden states.
    """
    if loaded.device.type == "cpu" and (reason := why_not_inductor()):
        raise ModelError(f"{loaded.name}: cannot be compiled: {reason}; install one, or use --compile off")
    if loaded.offloaded:
        raise ModelError(f"{loaded.name}: offloaded weights cannot be compiled; use --compile off")
    compiled = CompiledTrunk(trunk.run)
    # Many rows and one: PyTorch makes a graph for either. Packed samples are one row always.
    probes = [synthetic_batch(loaded, tokens, packed=trunk.packs) for tokens in (512, 64)]
    faster = trunk.calling(compiled)
    wanted = [trunk.scored_states(batch) for batch in probes]
    try:
        with threads_each(torch.get_num_threads() // worker_count(loaded.device)):
            error = max(
                token_error(faster.scored_states(batch), states) for batch, states in zip(probes, wanted, strict=True)
            )
    except Exception as failure:  # the compiler and the model's own code may raise anything
        reason = " ".join(str(failure).split())[:300]
        raise ModelError(f"{loaded.name}: cannot be compiled ({reason}); use --compile off") from failure
    limit = trunk.tolerance(wanted[0].dtype)
    if not error <= limit:
        raise ModelError(
            f"{loaded.name}: compiling changes its hidden states by {error:.1e} (limit {limit:.0e}); use --compile off"
        )
    return faster, compiled


__all__ = ["CHOICES", "CompiledTrunk", "compile_trunk", "wants_compiling"]
