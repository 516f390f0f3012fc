"""Context managers that restore what a training changes: random state, model, garbage collection, warnings."""

from __future__ import annotations

import gc
import logging
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from donod_fast.training.recipe import TrainSettings


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Restore the random state, since the trainer seeds every generator."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    with torch.random.fork_rng(devices=list(devices)):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


@contextmanager
def model_put_back(model: Any, settings: TrainSettings) -> Iterator[None]:
    """Restore the model's forward: TRL and accelerate replace it, and a copy would run the original's weights."""
    own = {name: vars(model).get(name) for name in ("forward", "_original_forward")}
    trainable = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    if settings.method == "full":
        model.requires_grad_(True)
    try:
        yield
    finally:
        for name, value in own.items():
            if value is not None:
                setattr(model, name, value)
            elif name in vars(model):
                delattr(model, name)
        if settings.gradient_checkpointing and getattr(model, "is_gradient_checkpointing", False):
            model.gradient_checkpointing_disable()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(trainable.get(name, parameter.requires_grad))
            parameter.grad = None
        model.eval()


@contextmanager
def young_garbage_only() -> Iterator[None]:
    """Hide existing objects from the trainer's garbage collection, which takes half a second over all modules."""
    if gc.get_freeze_count():  # the caller's own doing
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def no_warnings() -> Iterator[None]:
    """Silence the libraries' warnings: what matters is checked here, and a study runs hundreds of trainings."""
    levels = {name: logging.getLogger(name).level for name in ("trl", "peft", "accelerate")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in levels:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


__all__ = ["model_put_back", "no_warnings", "random_state_kept", "young_garbage_only"]
