"""Train only on some rows from the next epoch on: a sampler between the trainer's own and its batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import BatchSampler, Sampler

from donod_fast.errors import InputError


class KeptRows(Sampler[int]):
    """The order of another sampler without the rows that are dropped.

    Attributes:
        kept: (rows,) bool; replace it between two epochs.

    Args:
        inner: the trainer's sampler; its order and its random numbers are not changed.
        rows: number of rows of the data set.
        multiple: an epoch has a multiple of so many rows, so that no gradient is left over at its end.
    """

    def __init__(self, inner: Any, rows: int, multiple: int) -> None:
        self._inner, self._multiple = inner, multiple
        self.kept: np.ndarray[Any, Any] = np.ones(rows, bool)

    def __iter__(self) -> Iterator[int]:
        left = len(self)
        for number in self._inner:
            if left and self.kept[number]:
                left -= 1
                yield number

    def __len__(self) -> int:
        rows = int(self.kept.sum())
        return rows if self.kept.all() else rows - rows % self._multiple

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_inner" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self._inner, name)  # set_epoch, generator: accelerate looks for them


def keep_rows_of(loader: Any, rows: int, steps: int) -> KeptRows:
    """Put a :class:`KeptRows` into a trainer's loader; it takes effect when the loader is iterated next.

    Args:
        loader: the trainer's loader.
        rows: number of rows of its data set.
        steps: batches per optimizer step.

    Raises:
        InputError: the loader makes its batches in another way.
    """
    batches = getattr(loader, "batch_sampler", None)
    if type(batches) is not BatchSampler:
        raise InputError(
            f"keep= drops rows between the trainer's sampler and its batches; {type(batches).__name__} makes batches "
            "in another way (train_sampling_strategy); select rows before training instead"
        )
    if isinstance(batches.sampler, KeptRows):
        return batches.sampler
    sampler = KeptRows(batches.sampler, rows, batches.batch_size * steps if steps > 1 else 1)
    batches.sampler = sampler
    return sampler


__all__ = ["KeptRows", "keep_rows_of"]
