"""Parameter mask: the entries of parameters that training may change; all others stay bit-for-bit identical.

The file is a safetensors file with one tensor per parameter, named as in the model. A tensor holds the entries as bits
(uint8, eight per byte, the first entry in the highest bit), with the shapes in the file's metadata. A bool tensor of
the parameter's own shape is accepted too. Parameters that the file does not name are frozen.

Masking gradients is not enough: weight decay changes an entry without a gradient, and so may an optimizer with
blockwise state. So entries outside the mask are restored after every optimizer step.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from donod_fast.errors import InputError, StoreError
from donod_fast.system.files import atomic_writer

FORMAT = "donod-fast parameter mask"
VERSION = "1"


@dataclass(frozen=True)
class ParameterMask:
    """Entries that may change.

    Attributes:
        masks: a bool tensor of the parameter's shape for each parameter name, True for entries that may change.
        source: origin of the mask, for messages.
    """

    masks: Mapping[str, Tensor] = field(repr=False)
    source: str = "the parameter mask"

    @property
    def entries(self) -> int:
        """Number of entries that may change."""
        return sum(int(mask.sum()) for mask in self.masks.values())

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of names, shapes and bits; independent of the form of the file."""
        found = hashlib.sha256()
        for name in sorted(self.masks):
            mask = self.masks[name]
            found.update(json.dumps([name, list(mask.shape)]).encode())
            found.update(_packed(mask).tobytes())
        return found.hexdigest()


def write_mask(path: str | Path, masks: Mapping[str, Tensor], *, overwrite: bool = False) -> ParameterMask:
    """Write a mask file atomically.

    Args:
        path: the ``.safetensors`` file.
        masks: a bool tensor of the parameter's shape for each parameter name.
        overwrite: replace an existing file.

    Raises:
        InputError: a mask is not a bool tensor, or no entry may change.
        StoreError: the file exists, or cannot be written.
    """
    from safetensors.numpy import save

    file = Path(path)
    if file.exists() and not overwrite:
        raise StoreError(f"{file} exists already; give another name, or add --overwrite")
    mask = _checked(ParameterMask({name: value.cpu() for name, value in masks.items()}, str(file)))
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "shapes": json.dumps({name: list(value.shape) for name, value in mask.masks.items()}),
    }
    with atomic_writer(file) as target:
        target.write(save({name: _packed(value) for name, value in mask.masks.items()}, metadata=metadata))
    return mask


def read_mask(path: str | Path) -> ParameterMask:
    """Read a mask file.

    Raises:
        InputError: the file cannot be read, is not a mask, or allows no change; the message names file, tensor and
            remedy.
    """
    from safetensors import SafetensorError, safe_open

    file = Path(path)
    try:
        with safe_open(file, framework="pt") as opened:
            metadata: dict[str, str] = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"the parameter mask {file} cannot be read ({error}); give a file that `donod-fast dual` wrote"
        ) from error
    if metadata.get("version", VERSION) != VERSION:
        raise InputError(f"{file}: a parameter mask of version {metadata['version']}; this release reads {VERSION}")
    try:
        shapes = {name: tuple(map(int, shape)) for name, shape in json.loads(metadata.get("shapes", "{}")).items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{file}: the shapes in its metadata are damaged; write the mask again") from error
    return _checked(ParameterMask({n: _unpacked(file, n, t, shapes.get(n)) for n, t in tensors.items()}, str(file)))


def _packed(mask: Tensor) -> np.typing.NDArray[np.uint8]:
    return np.packbits(mask.detach().cpu().contiguous().numpy().reshape(-1))


def _unpacked(file: Path, name: str, tensor: Tensor, shape: tuple[int, ...] | None) -> Tensor:
    if tensor.dtype == torch.bool:
        return tensor
    size = None if shape is None else int(np.prod(shape))
    if tensor.dtype != torch.uint8 or shape is None or size is None or tuple(tensor.shape) != (-(-size // 8),):
        raise InputError(
            f"{file}: {name} is a {tensor.dtype} tensor of shape {tuple(tensor.shape)}; a parameter mask holds bool "
            "tensors of the parameters' shapes, or the packed bits that write_mask() writes"
        )
    return torch.from_numpy(np.unpackbits(tensor.numpy(), count=size).astype(np.bool_).reshape(shape))


def _checked(mask: ParameterMask) -> ParameterMask:
    for name, value in mask.masks.items():
        if value.dtype != torch.bool:
            raise InputError(f"{mask.source}: the mask of {name} must be bool, not {value.dtype}")
    if not any(bool(value.any()) for value in mask.masks.values()):
        raise InputError(f"{mask.source}: the mask allows no entry to change, so there is nothing to train")
    return mask


class MaskedTraining:
    """Parameters of a model under a mask, with their values before training.

    Args:
        model: model in memory; a mask refers to the names of ``named_parameters()``.
        mask: entries that may change.

    Raises:
        InputError: the model has no parameter of a name in the mask, or has it with another shape.
    """

    def __init__(self, model: Any, mask: ParameterMask) -> None:
        parameters = dict(model.named_parameters())
        for name, value in mask.masks.items():
            if name not in parameters:
                raise InputError(f"{mask.source}: {_unknown(model, name, parameters)}")
            if tuple(parameters[name].shape) != tuple(value.shape):
                raise InputError(
                    f"{mask.source}: {name} has shape {tuple(parameters[name].shape)} in the model and "
                    f"{tuple(value.shape)} in the mask; the mask was made for another model"
                )
        self.entries = mask.entries
        self._parameters = parameters
        self._masks = {name: value for name, value in mask.masks.items() if bool(value.any())}
        self._before = {name: parameters[name].detach().clone() for name in self._masks}

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Within the block, freeze all other parameters and set gradients outside the mask to zero.

        So they do not count in the norm for gradient clipping, and do not enter the optimizer's state.
        """
        handles = []
        for name, parameter in self._parameters.items():
            parameter.requires_grad_(name in self._masks)
            if name in self._masks:
                handles.append(parameter.register_hook(self._zeroed(name)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @torch.no_grad()
    def restore(self) -> None:
        """Restore every entry outside the mask bit for bit. Call it after each optimizer step."""
        for name in self._masks:
            parameter = self._parameters[name]
            before = self._before[name] = self._before[name].to(parameter.device)
            parameter.copy_(torch.where(self._mask(name, parameter), parameter, before))

    def _zeroed(self, name: str) -> Any:
        return lambda gradient: torch.where(self._mask(name, gradient), gradient, 0)

    def _mask(self, name: str, beside: Tensor) -> Tensor:
        mask = self._masks[name] = self._masks[name].to(beside.device)
        return mask


def restoring_callback(masked: MaskedTraining) -> Any:
    """``TrainerCallback`` of transformers that restores the protected entries after each optimizer step."""
    from transformers import TrainerCallback

    class Restoring(TrainerCallback):  # type: ignore[misc]
        def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            masked.restore()

    return Restoring()


def _unknown(model: Any, name: str, parameters: Mapping[str, Tensor]) -> str:
    shared = dict(model.named_parameters(remove_duplicate=False)).get(name)
    if shared is not None:
        other = next(known for known, parameter in parameters.items() if parameter is shared)
        return f"{name} is the same tensor as {other}; name that in the mask"
    return f"the model has no parameter {name!r}; the mask was made for another model"


__all__ = ["MaskedTraining", "ParameterMask", "read_mask", "restoring_callback", "write_mask"]
