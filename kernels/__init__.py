"""Compute DON, NOD and related quantities from tensors (installed as ``donod_fast.kernels``)."""

from donod_fast.kernels.arguments import DEFAULT_WORKSPACE, IGNORE_INDEX
from donod_fast.kernels.dispatch import don_nod
from donod_fast.kernels.padded import don_nod_padded
from donod_fast.kernels.products import gradient_products
from donod_fast.kernels.reference import reference_don_nod
from donod_fast.kernels.reference_gradient import accumulate_gradients, gradient_dots
from donod_fast.kernels.scaled_gradients import scaled_norms, scaled_products, squared_sums
from donod_fast.kernels.scores import DonNod, don_and_nod
from donod_fast.kernels.token_statistics import TokenColumns, token_statistics
from donod_fast.kernels.topsis import topsis
from donod_fast.kernels.torch_backend import frobenius_norm
from donod_fast.kernels.updates import SGD, AdamState, AdamW, FactoredAdamW, Sign, Update

__all__ = [
    "DEFAULT_WORKSPACE",
    "IGNORE_INDEX",
    "SGD",
    "AdamState",
    "AdamW",
    "DonNod",
    "FactoredAdamW",
    "Sign",
    "TokenColumns",
    "Update",
    "accumulate_gradients",
    "don_and_nod",
    "don_nod",
    "don_nod_padded",
    "frobenius_norm",
    "gradient_dots",
    "gradient_products",
    "reference_don_nod",
    "scaled_norms",
    "scaled_products",
    "squared_sums",
    "token_statistics",
    "topsis",
]
