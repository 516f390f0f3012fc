"""Run the notebooks of ``examples/``, and write their outputs into them.

    python docs/tools/notebooks.py examples/look-at-a-corpus.ipynb

A notebook runs in an empty folder, with no hub and no GPU. Standard error is not kept: libraries write warnings there
that name folders of the machine.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

OFFLINE = {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "COLUMNS": "110"}


def run_notebook(path: Path, folder: Path) -> Any:
    """Execute a notebook in a folder and return it with its outputs; the file stays as it is.

    Raises:
        CellExecutionError: a cell fails; the message has the traceback.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    with mock.patch.dict(os.environ, OFFLINE):
        NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def record(path: Path) -> None:
    """Execute a notebook, and write it with its outputs."""
    import nbformat

    with tempfile.TemporaryDirectory() as folder:
        notebook = run_notebook(path, Path(folder))
    path.write_text(nbformat.writes(notebook, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        record(Path(name))
