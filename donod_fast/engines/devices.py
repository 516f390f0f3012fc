"""Several devices of one machine: which there are, and a whole run on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from donod_fast.data.reading import Corpus
from donod_fast.engines.device.pool import STALL_TIMEOUT, DevicePool, OnProblem
from donod_fast.engines.local import Outcome
from donod_fast.errors import InputError
from donod_fast.models.placement import no_cuda, one_device
from donod_fast.scoring.sample_scorer import Progress
from donod_fast.scoring.scorer import PART_ROWS
from donod_fast.scoring.spec import ScorerSpec
from donod_fast.system.profiling import Report


def parse_devices(text: str) -> list[str]:
    """Read ``"all"`` (every CUDA device) or names such as ``"cuda:0,cuda:2"`` and ``"cpu,cpu"``.

    Raises:
        InputError: there is no such device here, or an accelerator is named twice.
    """
    if text.strip() == "all":
        count = torch.cuda.device_count()
        if not count:
            raise InputError(f"devices 'all': {no_cuda()}, or use --device cpu")
        return [f"cuda:{index}" for index in range(count)]
    names = []
    for name in text.split(","):
        device = one_device(name.strip())
        names.append(f"cuda:{device.index or 0}" if device.type == "cuda" else device.type)
    twice = [name for name, number in Counter(names).items() if number > 1 and name != "cpu"]
    if twice:
        raise InputError(f"devices {text!r}: {twice[0]} is named twice; one process has all of it")
    return names


def score_on_devices(
    corpus: Corpus,
    spec: ScorerSpec,
    out: Path | str,
    devices: Sequence[str],
    *,
    part_rows: int = PART_ROWS,
    overwrite: bool = False,
    rescore_changed: bool = False,
    progress: Progress | None = None,
    workers: int | None = None,
    on_report: Callable[[Report], None] | None = None,
    stall_timeout: float = STALL_TIMEOUT,
    on_problem: OnProblem | None = None,
) -> Outcome:
    """Score a corpus into a folder that the caller holds (``store.locked``), with one process for each device.

    As ``local.score_corpus``, and resumable with any other devices. A process that is lost on the way
    is reported in the log and replaced; a row that ends every process that meets it gets the status ``worker_lost``. A
    program that calls this has to be importable without running (``if __name__ == "__main__"``): the processes are
    spawned.

    Args:
        corpus: what to score; every process gets a copy (of its description, not of the files).
        spec: how to load the scorer.
        out: the scores folder, a path or a URL.
        devices: as :func:`parse_devices` gives them; one is enough.
        part_rows: rows of a part.
        overwrite: drop the scores that the folder holds.
        rescore_changed: where files have changed since they were scored, forget their scores only.
        progress: called in this process.
        workers: processes of each device that tokenise ahead of it; None for what suits device, rows and cores.
        on_report: called at the end with the times of each device; None where nobody wants them.
        stall_timeout: seconds without a sign of life after which a process is taken to hang, killed and replaced; while
            it loads the model it has half an hour at least.
        on_problem: told of what goes wrong, by part; None to have the folder keep it for ``donod-fast status``.

    Raises:
        SettingsMismatchError: the folder holds scores made with other settings.
        ModelError: the model cannot be loaded on a device, or is not the same one on all of them.
        WorkerError: a part could not be scored by any device, or no device is left; names device, rows and cause.
            Parts committed so far stay.
        StoreError, CorpusError, InputError: as for ``score_corpus``.
    """
    with DevicePool(
        corpus,
        spec,
        out,
        devices,
        part_rows=part_rows,
        overwrite=overwrite,
        rescore_changed=rescore_changed,
        workers=workers,
        profile=on_report is not None,
        stall_timeout=stall_timeout,
        on_problem=on_problem,
    ) as pool:
        folder = pool.open()
        if on_problem is None:
            pool.on_problem = folder.note_problem
        missing = folder.missing_parts()
        resumed = folder.rows - sum(stop - start for start, stop in map(folder.part_range, missing))
        if resumed and progress is not None:
            progress(resumed, 0)
        formats = pool.score(missing, progress)
        reports = pool.reports
    if on_report is not None:
        for report in reports:
            on_report(report)
    return Outcome(folder, folder.counts(), resumed, formats)


__all__ = ["DevicePool", "parse_devices", "score_on_devices"]
