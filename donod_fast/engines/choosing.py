"""The request for a scoring run, and the executor that carries it out.

:class:`ScoreRequest` holds every option that decides the scores. The manifest of the scores folder records it, so that
the run can be repeated from the folder. :class:`ScoreRun` adds where the scores go, and runs the request.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from donod_fast.data.settings import CorpusSettings, MaskSettings, with_data
from donod_fast.engines.executors import Done, Executor, InArray, InProcess, Job, OnDevices, OnRay, Watch
from donod_fast.engines.settings import SLURM_ARRAY, EngineSettings
from donod_fast.errors import InputError
from donod_fast.models.settings import ModelSettings
from donod_fast.scores.manifest import WORKING_FOLDER
from donod_fast.scoring.settings import WARM, ColumnSettings, ComputeSettings, UpdateSettings
from donod_fast.system.options import as_options, option

if TYPE_CHECKING:
    from donod_fast.data.reading import Corpus
    from donod_fast.engines.request import RunOptions
    from donod_fast.scores.array_tasks import ArrayTask
    from donod_fast.scoring.dry_run import RunPlan
    from donod_fast.scoring.spec import ScorerSpec

SUPERVISED_ROWS = 4096
"""From this many rows on a separate process scores, and is replaced if it crashes or hangs."""

PANEL = "Output"


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """Everything that decides the scores of a run.

    Raises:
        InputError: options exclude each other, or no rows are named.
    """

    corpus: CorpusSettings
    model: ModelSettings
    masks: MaskSettings = field(default_factory=MaskSettings)
    update: UpdateSettings = field(default_factory=UpdateSettings)
    columns: ColumnSettings = field(default_factory=ColumnSettings)
    compute: ComputeSettings = field(default_factory=ComputeSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)

    def __post_init__(self) -> None:
        object.__setattr__(self, "corpus", with_data(self.corpus, self.masks))
        if self.engine.devices is not None:
            self._refuse("--devices starts a process for each device and excludes", self._placements())
        if self.update.update == WARM:  # the processes would have to share one state
            ray = "ray" if self.engine.engine == "ray" else None
            self._refuse(
                f"--update {WARM} runs in one process and excludes",
                {"--devices": self.engine.devices, "--engine ray": ray},
            )
        if self.engine.engine == "ray":
            given = {"--devices": self.engine.devices, "--device-map": self.model.device_map}
            self._refuse("--engine ray excludes", given)
            if self.corpus.reads_stdin:
                raise InputError("--engine ray excludes standard input: name files that the workers can read")

    def _placements(self) -> dict[str, Any]:
        return {"--device": self.model.device, "--device-map": self.model.device_map}

    @staticmethod
    def _refuse(why: str, given: dict[str, Any]) -> None:
        for name, value in given.items():
            if value is not None:
                raise InputError(f"{why} {name}")

    def spec(self) -> ScorerSpec:
        """How each process loads the scorer; the decoder is not compiled yet.

        Raises:
            InputError: an unknown criterion, or one that lacks what it needs; a dataset_info.json that cannot be read.
            CorpusError: a reference set cannot be read.
        """
        from donod_fast.scoring.spec import ScorerSpec

        spec = ScorerSpec.of(self.model, self.masks, self.update, self.columns, self.compute)
        return replace(spec, compile=False)


@dataclass(frozen=True, slots=True)
class TargetSettings:
    """Where the scores go, and what happens to scores that are there. None of it decides a score.

    Attributes:
        out: the scores folder, a path or a URL.
        overwrite: drop the scores that the folder holds.
        rescore_changed: if input files have changed since they were scored, drop their scores only.
        token_losses: see :class:`donod_fast.engines.request.RunOptions`.
        profile: report where the time went.
        shard: the task of an array of processes, as ``"0/8"``; None to score all parts.
        trace: file for a Chrome trace of the run.

    Raises:
        InputError: ``trace`` is not a file in an existing folder.
    """

    out: str = option(help="Scores folder to write or to resume: a path or a URL.", panel=PANEL)
    overwrite: bool = option(False, help="Drop the scores that OUT holds.", panel=PANEL)
    rescore_changed: bool = option(
        False, help="Score input files again that have changed since; keep all other scores.", panel=PANEL
    )
    token_losses: bool = option(
        False,
        help="Also write the loss of each scored token, for show --losses and the report: about 4 bytes a token. A "
        "folder that is already scored gets them added.",
        panel=PANEL,
    )
    profile: bool = option(False, help="Show where the time went.", panel=PANEL)
    shard: str | None = option(
        None,
        help="Score only share I of N, numbered from 0, for example 0/8: one task of a job array. Each of N processes "
        "has another I and the same OUT.",
        panel="Running",
    )
    trace: Path | None = option(None, help="Write a Chrome trace of the run to this file.", panel=PANEL)

    def __post_init__(self) -> None:
        if self.trace is not None and (self.trace.is_dir() or not self.trace.absolute().parent.is_dir()):
            raise InputError(f"--trace {self.trace}: name a file in an existing folder")


@dataclass(frozen=True, slots=True)
class ScoreRun:
    """A request with the folder that its scores go to.

    Raises:
        InputError: the request and the target exclude each other.
    """

    request: ScoreRequest
    target: TargetSettings

    def __post_init__(self) -> None:
        from donod_fast.system.storage import is_url

        request, target = self.request, self.target
        if request.engine.devices is not None and target.trace is not None:
            raise InputError("--devices starts a process for each device and excludes --trace")
        if request.engine.engine == "ray" and (target.trace is not None or target.profile):
            raise InputError("--engine ray excludes --trace and --profile")
        if self.is_in_array:
            self._check_array()
        if request.corpus.reads_stdin and is_url(target.out):
            raise InputError(
                f"standard input is stored in the scores folder, which {target.out} cannot do; name a local folder"
            )

    @property
    def is_in_array(self) -> bool:
        """Whether the run is a task of an array of processes."""
        return self.target.shard is not None or self.request.engine.engine == SLURM_ARRAY

    def _check_array(self) -> None:
        from donod_fast.engines.request import RunOptions
        from donod_fast.scores.array_tasks import ArrayTask

        request, target = self.request, self.target
        task = ArrayTask(1, 0) if target.shard is None else ArrayTask.parse(target.shard)
        RunOptions(overwrite=target.overwrite, rescore_changed=target.rescore_changed, task=task)  # refuses
        if request.engine.engine == "ray":
            raise InputError("--engine ray divides the work itself and excludes --shard")
        if target.shard is not None and request.engine.engine == SLURM_ARRAY:
            raise InputError(f"--engine {SLURM_ARRAY} takes the task from the environment and excludes --shard")
        if request.corpus.reads_stdin:
            raise InputError("--shard excludes standard input: name files that every task can read")
        if request.update.update == WARM:
            raise InputError(
                f"--update {WARM} runs in one process and excludes --shard: leave --shard out, or name another --update"
            )

    def plan(self, announce: Callable[[], None]) -> RunPlan:
        """Read the corpus, load the model and time a few rows; nothing is written.

        Args:
            announce: called before the model is loaded.

        Raises:
            InputError, CorpusError, ModelError: as scoring would.
        """
        from donod_fast.scoring.dry_run import plan_run

        setup = self._setup()
        corpus = self._corpus(None)
        spec = setup.spec(corpus)
        self._check_references(corpus, spec)
        announce()
        scorer = spec.load()
        if self.request.update.update == WARM:
            scorer = scorer.warmed(corpus)
        return plan_run(
            corpus,
            scorer,
            workspace_bytes=self.request.compute.workspace_bytes,
            part_rows=self._part_rows(corpus),
            budget=scorer.budget,
            token_losses=self.target.token_losses,
        )

    def score(self, watch: Watch, announce: Callable[[], None]) -> Done:
        """Score the corpus into the folder, or finish what is there.

        Args:
            watch: opens the display of progress.
            announce: called before the model is loaded.

        Raises:
            InputError, CorpusError, ModelError, StoreError, WorkerError: see ``engines.local.score_corpus``.
        """
        from donod_fast.data.reading.inputs import SPOOL_NAME
        from donod_fast.engines.array.holding import holding
        from donod_fast.scores.folder import remove
        from donod_fast.scores.opening import refuse_known_differences

        request, target, task = self.request, self.target, self._task()
        setup = self._setup()
        with holding(target.out, task):
            if target.overwrite and request.corpus.reads_stdin:
                remove(Path(target.out) / SPOOL_NAME)
            corpus = self._corpus(target.out)
            spec, options = setup.spec(corpus), self._options(corpus)
            if not target.overwrite:
                refuse_known_differences(target.out, self._known_settings(options.part_rows))
            self._check_references(corpus, spec)
            announce()
            executor = self._executor(setup, spec, corpus)
            if task is not None:
                executor = InArray(task, executor)
            return executor.score(Job(corpus, spec, target.out, options, watch, target.profile, target.trace))

    def _task(self) -> ArrayTask | None:
        """The task of an array that this process is; None for none."""
        from donod_fast.engines.array.environment import task_of_slurm
        from donod_fast.scores.array_tasks import ArrayTask

        if self.target.shard is not None:
            return ArrayTask.parse(self.target.shard)
        return task_of_slurm() if self.request.engine.engine == SLURM_ARRAY else None

    def _executor(self, setup: _Setup, spec: ScorerSpec, corpus: Corpus) -> Executor:
        if self.request.engine.engine == "ray":
            return OnRay(self.request.engine.ray)
        own = self.target.trace is not None or spec.device_map is not None or self.request.update.update == WARM
        if setup.devices:
            return OnDevices(setup.devices)
        return InProcess() if own or corpus.rows < SUPERVISED_ROWS else OnDevices((setup.first_device,))

    def _setup(self) -> _Setup:
        from donod_fast.data.formats import check_format
        from donod_fast.data.templates import check_template
        from donod_fast.engines.devices import parse_devices
        from donod_fast.models.placement import one_device

        check_format(self.request.masks.format)
        if self.request.engine.engine != "ray":  # a template file may exist on the workers only
            check_template(self.request.masks.template)
        named = self.request.engine.devices
        devices = () if named is None else tuple(parse_devices(named))
        spec = self.request.spec()
        first = str(one_device(devices[0] if devices else spec.device))
        return _Setup(spec, devices, first, self.request.compute.compile)

    def _corpus(self, folder: str | None) -> Corpus:
        from donod_fast.data.column_check import warn_of_missing_columns
        from donod_fast.data.reading.corpus import open_settings
        from donod_fast.scores.opening import known_files

        known = None if folder is None or self.target.overwrite else known_files(folder)
        spool_dir = Path(folder) if folder is not None and self.request.corpus.reads_stdin else None
        corpus = open_settings(self.request.corpus, spool_dir=spool_dir, known=known)
        warn_of_missing_columns(corpus, self.request.masks.rules.columns)
        return corpus

    def _check_references(self, corpus: Corpus, spec: ScorerSpec) -> None:
        """Refuse reference sets with rows of the corpus, unless that is allowed or an earlier run checked it."""
        from donod_fast.criteria.overlap import refuse_overlap
        from donod_fast.criteria.running import fingerprints
        from donod_fast.scores.opening import recorded_signals

        if self.request.columns.allow_overlap or not self.request.columns.reference:
            return
        target = self.target
        checked = {} if target.overwrite else recorded_signals(target.out, corpus.fingerprint)
        marks = fingerprints(spec.signals)
        new = [one for one in spec.signals if checked.get(one.name) != marks[one.name]]
        refuse_overlap(corpus, new, spec.masks.rules)

    def _options(self, corpus: Corpus) -> RunOptions:
        from donod_fast.engines.request import RunOptions

        engine, target = self.request.engine, self.target
        return RunOptions(
            self._part_rows(corpus),
            target.overwrite,
            target.rescore_changed,
            engine.workers,
            engine.stall_timeout,
            {**as_options(self.request), WORKING_FOLDER: str(Path.cwd())},
            target.token_losses,
        )

    def _known_settings(self, part_rows: int) -> dict[str, Any]:
        """The entries of the manifest that do not depend on the model."""
        request = self.request
        reading = dict.fromkeys(("columns", "preference", "text_only")) | request.masks.rules.as_json()
        masks: dict[str, Any] = {**reading, "train_on": request.masks.train_on, "like": request.masks.like}
        if request.masks.template != "auto":
            masks["template"] = request.masks.template
        if request.masks.max_length is not None:
            masks["max_length"] = request.masks.max_length
        return {
            "part_rows": part_rows,
            "carry": list(request.columns.carried),
            "update": request.update.as_dict(),
            "masks": masks,
        }

    def _part_rows(self, corpus: Corpus) -> int:
        from donod_fast.scores.opening import settled_part_rows

        asked, target = self.request.engine.part_rows, self.target
        return settled_part_rows(target.out, corpus.rows, asked, overwrite=target.overwrite)


@dataclass(frozen=True, slots=True)
class _Setup:
    """A request resolved on this machine, before the corpus is read.

    Attributes:
        scorer: how to load the scorer, without the choice of compiling.
        devices: devices with a process each, empty for the one device of ``scorer``.
        first_device: the device that defaults depend on.
        compile: whether to compile, as requested.
    """

    scorer: ScorerSpec
    devices: tuple[str, ...]
    first_device: str
    compile: str

    def spec(self, corpus: Corpus) -> ScorerSpec:
        """How to load the scorer for a corpus. A model that is spread over devices is compiled only on request."""
        import torch

        from donod_fast.models.compiled_trunk import wants_compiling

        rows = corpus.rows if self.scorer.device_map is None else None
        return replace(self.scorer, compile=wants_compiling(self.compile, rows, torch.device(self.first_device)))


__all__ = ["Done", "ScoreRequest", "ScoreRun", "TargetSettings", "Watch"]
