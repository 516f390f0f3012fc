"""Checks of every memory access of the Triton kernels under the interpreter, and memory that held something before.

``checked_memory`` watches each launch: every address that a kernel loads or stores lies inside one of the tensors that
the launch was given, all addresses of one instruction in the same one; no two programs store to one address; no program
loads what another one stores. ``poisoned`` fills what is allocated.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from triton.runtime import interpreter
from triton.runtime.jit import KernelInterface


class Access(AssertionError):
    """A kernel accessed memory that it should not."""


class Launches:
    """Names of the kernels that were launched, and the tensors and accesses of the launch in progress."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.extents: list[tuple[int, int, str]] = []
        self.program = 0
        self.loads: list[tuple[int, Any]] = []
        self.stores: list[tuple[int, Any]] = []

    def begin(self, name: str, arguments: list[tuple[str, Any]]) -> None:
        self.names.add(name)
        self.extents = [(*extent_of(tensor), argument) for argument, tensor in arguments if tensor.numel()]
        self.loads, self.stores = [], []

    def check(self, what: str, handle: Any, mask: Any) -> Any:
        """Addresses of the active lanes, which lie inside one tensor; raises ``Access`` if they do not."""
        addresses = np.unique(np.atleast_1d(handle.data)[np.atleast_1d(mask.data)].astype(np.int64))
        if not addresses.size:
            return addresses
        size = max(handle.get_element_ty().primitive_bitwidth // 8, 1)
        first, last = int(addresses[0]), int(addresses[-1]) + size
        if not any(begin <= first and last <= end for begin, end, _ in self.extents):
            near = {argument: (first - begin, end - last) for begin, end, argument in self.extents}
            raise Access(f"a {what} of {addresses.size} addresses is outside of every tensor; bytes inside: {near}")
        return addresses

    def finish(self, name: str) -> None:
        """Check that the programs of the launch are independent; raises ``Access`` if they are not."""
        stored, by = _joined(self.stores)
        if stored.size and (stored[1:] == stored[:-1]).any():
            raise Access(f"two programs of {name} store to one address")
        loaded, reader = _joined(self.loads)
        if stored.size and loaded.size:
            at = np.minimum(np.searchsorted(stored, loaded), stored.size - 1)
            if ((stored[at] == loaded) & (by[at] != reader)).any():
                raise Access(f"a program of {name} loads what another one stores")


def _joined(accesses: list[tuple[int, Any]]) -> tuple[Any, Any]:
    """Sorted addresses, once a program, and their programs."""
    by_program: dict[int, list[Any]] = {}
    for program, addresses in accesses:
        by_program.setdefault(program, []).append(addresses)
    unique = {program: np.unique(np.concatenate(some)) for program, some in by_program.items()}
    if not unique:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    addresses = np.concatenate(list(unique.values()))
    programs = np.concatenate([np.full(some.size, program) for program, some in unique.items()])
    order = np.argsort(addresses, kind="stable")
    return addresses[order], programs[order]


def extent_of(tensor: Tensor) -> tuple[int, int]:
    """First address of a tensor, and the one past its last element."""
    span = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (span + 1) * tensor.element_size()


@contextmanager
def checked_memory() -> Iterator[Launches]:
    """Raise ``Access`` (inside the interpreter's own error) for a wrong access of any kernel launched in the block."""
    seen = Launches()
    builder, executor = interpreter.InterpreterBuilder, interpreter.GridExecutor
    load, store, place = builder.create_masked_load, builder.create_masked_store, builder.set_grid_idx
    prepare, call = executor._init_args_hst, executor.__call__

    def checked_load(self: Any, ptrs: Any, mask: Any, *rest: Any, **options: Any) -> Any:
        seen.loads.append((seen.program, seen.check("load", ptrs, mask)))
        return load(self, ptrs, mask, *rest, **options)

    def checked_store(self: Any, ptrs: Any, value: Any, mask: Any, *rest: Any, **options: Any) -> Any:
        seen.stores.append((seen.program, seen.check("store", ptrs, mask)))
        return store(self, ptrs, value, mask, *rest, **options)

    def numbered(self: Any, x: int, y: int, z: int) -> Any:
        seen.program = (x << 40) + (y << 20) + z
        return place(self, x, y, z)

    def prepared(self: Any, args: Any, kwargs: Any) -> Any:
        host, options = prepare(self, args, kwargs)
        named = [*zip(self.arg_names, host, strict=False), *options.items()]
        tensors = [(name, getattr(value, "base", value)) for name, value in named]
        seen.begin(self.fn.__name__, [(name, value) for name, value in tensors if torch.is_tensor(value)])
        return host, options

    def finished(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = call(self, *args, **kwargs)
        seen.finish(self.fn.__name__)
        return result

    with ExitStack() as stack:
        for owner, name, patched in (
            (builder, "create_masked_load", checked_load),
            (builder, "create_masked_store", checked_store),
            (builder, "set_grid_idx", numbered),
            (executor, "_init_args_hst", prepared),
            (executor, "__call__", finished),
        ):
            stack.enter_context(mock.patch.object(owner, name, patched))
        yield seen


@contextmanager
def poisoned(floats: float, integers: int) -> Iterator[None]:
    """Whatever is allocated without a value in the block holds ``floats``, or ``integers`` in tensors of integers.

    Bytes hold 0 where ``floats`` is 0, a pattern of NaN where it is NaN, else one that is some 10⁹ in every float type.
    """

    def fill(allocate: Callable[..., Tensor]) -> Callable[..., Tensor]:
        @functools.wraps(allocate)
        def filled(*args: Any, **kwargs: Any) -> Tensor:
            out = allocate(*args, **kwargs)
            if out.dtype == torch.bool or not out.numel():
                return out
            if out.dtype == torch.uint8:  # an arena: read as floats, its bytes are NaN or large
                return out.fill_(0 if floats == 0.0 else 0x4E if floats == floats else 0xFF)
            return out.fill_(floats if out.is_floating_point() else integers)

        return filled

    with ExitStack() as stack:
        for owner, name in ((torch, "empty"), (torch, "empty_like"), (torch, "empty_strided"), (Tensor, "new_empty")):
            stack.enter_context(mock.patch.object(owner, name, fill(getattr(owner, name))))
        yield


def kernels_of(*modules: Any) -> set[str]:
    """Names of the kernels that modules define (functions named ``…_kernel`` that are launched)."""
    found = set()
    for module in modules:
        for name, value in vars(module).items():
            if name.endswith("_kernel") and isinstance(value, KernelInterface):
                found.add(name)
    return found
