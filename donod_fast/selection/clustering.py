"""K-Means clusters of embeddings, the same on any number of cores."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from donod_fast.errors import InputError

Floats = npt.NDArray[Any]


def usable(embeddings: Floats) -> tuple[npt.NDArray[np.bool_], Floats]:
    """Which rows of (n, d) embeddings have a direction, and the lengths of all of them in float64."""
    with np.errstate(all="ignore"):  # rows of length zero or NaN are not usable
        lengths = np.linalg.norm(embeddings.astype(np.float64), axis=1)
    return np.isfinite(lengths) & (lengths > 0), lengths


def cluster_labels(units: Floats, clusters: int, seed: int, method: str) -> npt.NDArray[Any]:
    """The cluster of each row, (n,) from 0, by ``KMeans`` of scikit-learn with its defaults.

    Args:
        units: (n, d) vectors.
        clusters: number of clusters.
        seed: K-Means' random state.
        method: the method, for messages.

    Raises:
        InputError: scikit-learn is not installed.
    """
    try:
        library: Any = importlib.import_module("sklearn.cluster")
    except ImportError:
        raise InputError(f"{method} needs scikit-learn: pip install 'donod-fast[criteria]'") from None
    with one_thread(method), warnings.catch_warnings():
        # With fewer distinct rows than clusters, some clusters have no row; the counts show it.
        warnings.filterwarnings("ignore", message="Number of distinct clusters")
        found: npt.NDArray[Any] = library.KMeans(n_clusters=clusters, random_state=seed).fit_predict(units)
    return found


def one_thread(method: str) -> Any:
    """A context in which NumPy and scikit-learn use one thread, so that results do not depend on the cores.

    Raises:
        InputError: scikit-learn's threadpoolctl is not installed.
    """
    try:
        return importlib.import_module("threadpoolctl").threadpool_limits(1)
    except ImportError:
        raise InputError(f"{method} needs scikit-learn: pip install 'donod-fast[criteria]'") from None


__all__ = ["cluster_labels", "one_thread", "usable"]
