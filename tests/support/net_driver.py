"""The driver of a slow run on a cluster: ``net_driver.py DATA OUT ADDRESS PAUSE STALL``. The model is the node's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cluster_specs  # by this name workers know the spec
from net_nodes import MODEL, PLACE
from score_runs import run_options

from donod_fast.data.reading import open_corpus
from donod_fast.engines.ray import RaySettings, score_on_ray
from donod_fast.errors import DonodError
from donod_fast.scores.folder import locked


def main(data: str, out: str, address: str, pause: str, stall: str) -> int:
    """Score; returns the exit code, as the command line has it."""
    spec: Any = cluster_specs.ClusterSpec(Path(MODEL), "", Path(PLACE), pause=float(pause))
    options = run_options(cluster_specs.PART_ROWS, {"stall_timeout": float(stall)})
    try:
        with locked(out):
            found = score_on_ray(open_corpus([data]), spec, out, RaySettings(address, workers=2), options)
    except DonodError as error:
        print(f"error: {error}", flush=True)
        return error.exit_code
    print(f"scored {sum(found.counts.values())} rows, {found.resumed_rows} done before", flush=True)
    for problem in found.folder.problems():
        print(f"problem: {problem.text}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
