"""Several devices of one machine: parse their names, and score a corpus on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from donod_fast.criteria.running import fingerprints
from donod_fast.data.reading import Corpus
from donod_fast.engines.device.pool import DevicePool
from donod_fast.engines.prologue import Outcome, begin
from donod_fast.engines.request import OnProblem, RunOptions
from donod_fast.errors import InputError
from donod_fast.models.placement import no_cuda, one_device
from donod_fast.scoring.sample_scorer import Progress
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
    options: RunOptions = RunOptions(),
    *,
    progress: Progress | None = None,
    on_report: Callable[[Report], None] | None = None,
    on_problem: OnProblem | None = None,
) -> Outcome:
    """Score a corpus into a folder, with one process for each device. The caller holds the folder's lock.

    It writes the same parts as ``local.score_corpus``, and can be resumed with any other devices. A process that is
    lost is logged and replaced. A row that ends every process that scores it gets the status ``worker_lost``. The
    processes are spawned, so a calling program must be importable without side effects
    (``if __name__ == "__main__"``).

    Args:
        corpus: what to score; every process gets a copy of its description, not of the files.
        spec: how to load the scorer.
        out: the scores folder, a path or a URL.
        devices: as :func:`parse_devices` gives them; one is enough.
        options: how to run.
        progress: called in this process with rows and tokens as they are scored.
        on_report: called at the end with the times of each device; None to measure nothing.
        on_problem: called with each problem; None to record problems in the folder, for ``donod-fast status``.

    Raises:
        SettingsMismatchError: the folder holds scores made with other settings.
        ModelError: the model cannot be loaded on a device, or differs between devices.
        WorkerError: a part could not be scored by any device, or no device is left; names device, rows and cause.
            Committed parts stay.
        StoreError, CorpusError, InputError: as for ``score_corpus``.
    """
    with DevicePool(corpus, spec, out, devices, options, profile=on_report is not None) as pool:
        folder = pool.open()
        run = begin(folder, fingerprints(spec.signals), progress, options.task)
        formats = pool.score(run.missing, progress, on_problem or run.note_problem)
        reports = pool.reports
    if on_report is not None:
        for report in reports:
            on_report(report)
    return run.outcome(formats)


__all__ = ["DevicePool", "parse_devices", "score_on_devices"]
