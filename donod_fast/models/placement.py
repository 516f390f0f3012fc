"""Placement of a model: on one device, or spread over several and partly off-loaded by accelerate.

Accelerate distributes a model according to a *device map* and adds hooks to its modules. A hook moves the inputs of a
module to the device of its weights. If the weights are off-loaded, the hook loads them for the call and drops them
afterwards (between calls they are ``meta`` tensors). This module does not import accelerate; it recognises the hooks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from donod_fast.errors import InputError, ModelError, suggest
from donod_fast.models.releases import installed_transformers
from donod_fast.models.settings import DEVICE_MAPS, MEMORY_SIZE, parse_max_memory
from donod_fast.system.wording import plural

DeviceMap = str | Mapping[str, int | str | torch.device]
MaxMemory = str | Mapping[int | str, int | str]


@dataclass(frozen=True, slots=True)
class Placement:
    """Target of a model that is to be loaded.

    Attributes:
        device: the device; with a device map, the kind of device that decides defaults (CUDA before the CPU).
        device_map: a device map as transformers accepts it; None for a single device.
        max_memory: bytes, or sizes such as ``"20GiB"``, by device index or ``"cpu"``; None for all free memory.
        offload_folder: folder for weights that are off-loaded to disk.
    """

    device: torch.device
    device_map: DeviceMap | None = None
    max_memory: Mapping[int | str, int | str] | None = None
    offload_folder: Path | None = None

    def options(self) -> dict[str, Any]:
        """Arguments of ``from_pretrained`` for this placement."""
        options: dict[str, Any] = {"device_map": {"": self.device} if self.device_map is None else self.device_map}
        if self.max_memory is not None:
            options["max_memory"] = dict(self.max_memory)
        if self.offload_folder is not None:
            options["offload_folder"] = str(self.offload_folder)
        return options


def place(
    device: str | torch.device | None = None,
    device_map: DeviceMap | None = None,
    max_memory: MaxMemory | None = None,
    offload_folder: str | Path | None = None,
) -> Placement:
    """Check the four arguments for consistency.

    Args:
        device: None is CUDA if available, else the CPU.
        device_map: one of :data:`DEVICE_MAPS`, or the device (``"disk"`` too) of each module by its name.
        max_memory: memory of each device that a map computed by accelerate may use; a text as for
            :func:`parse_max_memory`.
        offload_folder: folder for weights that are off-loaded to disk; created if it is missing.

    Raises:
        InputError: a device that is not available, an unknown map, or arguments that exclude each other.
    """
    if device_map is None:
        for name, given in (("max_memory", max_memory), ("offload_folder", offload_folder)):
            if given is not None:
                raise InputError(f"{name} needs a device map; add device_map='auto'")
        return Placement(one_device(device))
    if device is not None:
        raise InputError(f"device={device!r} and device_map={device_map!r}: give only one of them")
    if isinstance(device_map, str):
        if device_map not in DEVICE_MAPS:
            known = ", ".join(DEVICE_MAPS)
            near = suggest(device_map, DEVICE_MAPS)
            raise InputError(
                f"device_map={device_map!r} is not known; use {known}, a dict, or device={device_map!r}{near}"
            )
        found = one_device(None)
    else:
        devices = {one_device(_named(value)) for value in device_map.values() if value != "disk"}
        accelerators = sorted((d for d in devices if d.type != "cpu"), key=str)
        found = accelerators[0] if accelerators else torch.device("cpu")
    if isinstance(max_memory, str):
        max_memory = parse_max_memory(max_memory)
    if max_memory is not None:
        for key, size in max_memory.items():
            if not (isinstance(size, int) or MEMORY_SIZE.fullmatch(size)):
                raise InputError(f"max_memory of {key} is {size!r}; give bytes, or a size such as '20GiB'")
    return Placement(found, device_map, max_memory, None if offload_folder is None else Path(offload_folder))


def one_device(device: str | torch.device | None) -> torch.device:
    """The device by its name; None is CUDA if available, else the CPU.

    Raises:
        InputError: the device does not exist.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"device={device!r} is not a device; use 'cpu', 'cuda', 'cuda:1' or 'mps'") from error
    if found.type == "cuda":
        _refuse_absent_cuda(found)
    if found.type == "mps" and not torch.backends.mps.is_available():
        raise InputError("device='mps': PyTorch sees no MPS device on this machine; use device='cpu'")
    if found.type == "meta":
        raise InputError("device='meta' holds no weights; use 'cpu' or 'cuda'")
    return found


def _refuse_absent_cuda(device: torch.device) -> None:
    there = torch.cuda.device_count()
    if (device.index or 0) < there:
        return
    if there:
        names = ", ".join(f"cuda:{index}" for index in range(there))
        raise InputError(f"device='{device}': PyTorch sees {plural(there, 'CUDA device')} ({names}); use one of these")
    raise InputError(f"device='{device}': {no_cuda()}, or use device='cpu'")


def no_cuda() -> str:
    """Why PyTorch has no CUDA device, and what to do about it."""
    if torch.version.cuda is None and torch.version.hip is None:
        return (
            f"this PyTorch build has no CUDA support ({torch.__version__}); "
            "install a CUDA build from https://pytorch.org/get-started"
        )
    return f"no CUDA device is visible to PyTorch {torch.__version__}; check nvidia-smi and CUDA_VISIBLE_DEVICES"


def is_offloaded(model: Any) -> bool:
    """Whether some weights are on a device only while their module runs."""
    return any(_offload_hook(module) is not None for module in model.modules())


def refuse_unplaced(name: str, model: Any) -> None:
    """Refuse weights without values, which some releases leave if a device map puts the whole model on disk.

    Raises:
        ModelError: names the release and the remedy.
    """
    if not is_offloaded(model) and any(one.device.type == "meta" for one in model.parameters()):
        raise ModelError(
            f"{name}: transformers {installed_transformers()} has left weights without values under this device map; "
            "give some module a device with memory, or pip install --upgrade transformers"
        )


def execution_device(module: Any, tensor: Tensor) -> torch.device:
    """Device on which a module uses its ``tensor``: the tensor's own, or the target of the module's hook.

    A ``meta`` tensor without a hook stays on ``meta``.
    """
    hook = _offload_hook(module) if tensor.device.type == "meta" else None
    where = None if hook is None else hook.execution_device
    return tensor.device if where is None else torch.device(_named(where))


def stored_tensor(model: Any, name: str, tensor: Tensor) -> Tensor:
    """Stored values of a parameter or buffer of ``model``, given its full name.

    An off-loaded tensor is read from host memory or disk. Any other is returned unchanged, and so is a ``meta`` tensor
    of a module without off-loading.

    Raises:
        ModelError: the tensor is off-loaded, but its values are nowhere.
    """
    if tensor.device.type != "meta":
        return tensor
    path, _, leaf = name.rpartition(".")
    parts = path.split(".") if path else []
    # The hook is on the module itself, or on a parent if the weights are used without calling the module.
    for depth in range(len(parts), -1, -1):
        hook = _offload_hook(model.get_submodule(".".join(parts[:depth])))
        if hook is not None:
            try:
                value = hook.weights_map[".".join([*parts[depth:], leaf])]
            except KeyError as error:
                raise ModelError(
                    f"{type(model).__name__}: {name} is off-loaded, and this release of transformers does not keep its "
                    "values (transformers 4 loses tied weights on disk); give it a device, or pip install "
                    "'transformers>=5.7'"
                ) from error
            return torch.as_tensor(value).to(tensor.dtype)
    return tensor


def one_at_a_time(call: Callable[..., Any]) -> Callable[..., Any]:
    """``call`` with a lock: when one caller returns, off-loaded weights are dropped for all callers."""
    lock = threading.Lock()

    def serial(*args: Any, **kwargs: Any) -> Any:
        with lock:
            return call(*args, **kwargs)

    return serial


def _offload_hook(module: Any) -> Any:
    """Accelerate's off-loading hook of the module, or None."""
    hook = getattr(module, "_hf_hook", None)
    for one in getattr(hook, "hooks", (hook,)):  # a SequentialHook has several
        if getattr(one, "offload", False) and getattr(one, "weights_map", None) is not None:
            return one
    return None


def _named(device: Any) -> Any:
    """Full name of a device; accelerate names a CUDA device by its index only."""
    return f"cuda:{device}" if isinstance(device, int) else device
