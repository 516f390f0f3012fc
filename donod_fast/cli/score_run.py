"""One run of ``donod-fast score``: on one or several devices or a cluster, timed, profiled and summarised."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from donod_fast.cli import output
from donod_fast.data.reading import Corpus
from donod_fast.data.templates import BUILTIN_TEMPLATES
from donod_fast.engines.devices import score_on_devices
from donod_fast.engines.local import Outcome, score_corpus
from donod_fast.engines.request import RunOptions
from donod_fast.scores.unscored import commonest_cause
from donod_fast.scoring.sample_scorer import Progress
from donod_fast.scoring.spec import ScorerSpec
from donod_fast.system.profiling import NO_STAGES, Report, Stages
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    from donod_fast.engines.ray import RaySettings


@dataclass(frozen=True, slots=True)
class Done:
    """A finished run.

    Attributes:
        outcome: the outcome of the engine.
        seconds: time of scoring, without loading.
        compiled: graphs and time of compiling the trunk, "" if it was not compiled or several processes compiled it.
        reports: profiles by device; empty if no profile was asked for.
        smaller_budget: a token budget that would have fitted in memory, None if memory did not run out.
    """

    outcome: Outcome
    seconds: float
    compiled: str
    reports: tuple[Report, ...]
    smaller_budget: int | None


@dataclass(frozen=True, slots=True)
class ScoreRun:
    """The settings of a run; ``devices`` is empty for the single device of the spec."""

    corpus: Corpus
    spec: ScorerSpec
    out: str
    part_rows: int
    overwrite: bool
    rescore_changed: bool
    workers: int | None
    devices: tuple[str, ...]
    stall_timeout: float
    cluster: RaySettings | None
    profile: bool
    trace: Path | None

    def done(self, *, quiet: bool) -> Done:
        """Run it, in a folder that the caller has locked."""
        output.announce_model(self.spec.model, self.spec.revision, quiet=quiet)
        if self.cluster is not None:
            return self._on_cluster(quiet, self.cluster)
        return self._on_several(quiet) if self.devices else self._on_one(quiet)

    def _on_cluster(self, quiet: bool, cluster: RaySettings) -> Done:
        from donod_fast.engines.ray import score_on_ray

        outcome, seconds = self._timed(
            quiet,
            lambda progress: score_on_ray(
                self.corpus,
                self.spec,
                self.out,
                cluster,
                self._options(),
                progress=progress,
            ),
        )
        return Done(outcome, seconds, "", (), None)

    def _on_one(self, quiet: bool) -> Done:
        scorer = self.spec.load()
        stages = Stages(trace=self.trace is not None) if self.profile or self.trace is not None else NO_STAGES
        outcome, seconds = self._timed(
            quiet,
            lambda progress: score_corpus(
                self.corpus,
                scorer,
                self.out,
                part_rows=self.part_rows,
                overwrite=self.overwrite,
                rescore_changed=self.rescore_changed,
                progress=progress,
                workers=self.workers,
                stages=stages,
            ),
        )
        if self.trace is not None:
            stages.chrome_trace(self.trace)
        compiled = scorer.compiled
        return Done(
            outcome,
            seconds,
            ""
            if compiled is None
            else f"{plural(compiled.compilations, 'graph')} compiled in {compiled.seconds:.1f} s",
            (stages.report(),) if self.profile else (),
            outcome.fitting_budget,
        )

    def _on_several(self, quiet: bool) -> Done:
        reports: list[Report] = []
        outcome, seconds = self._timed(
            quiet,
            lambda progress: score_on_devices(
                self.corpus,
                self.spec,
                self.out,
                self.devices,
                self._options(),
                progress=progress,
                on_report=reports.append if self.profile else None,
            ),
        )
        return Done(outcome, seconds, "", tuple(reports), None)

    def _options(self) -> RunOptions:
        return RunOptions(self.part_rows, self.overwrite, self.rescore_changed, self.workers, self.stall_timeout)

    def _timed(self, quiet: bool, score: Callable[[Progress | None], Outcome]) -> tuple[Outcome, float]:
        start = time.perf_counter()
        with output.progress_bar(self.corpus.rows, quiet=quiet) as progress:
            outcome = score(progress)
        return outcome, time.perf_counter() - start


def summary(done: Done) -> dict[str, Any]:
    """The summary as JSON values, for ``--json``."""
    outcome = done.outcome
    cause = commonest_cause(outcome.folder)
    return {
        "out": outcome.folder.name,
        "rows": outcome.folder.rows,
        "by_status": dict(outcome.counts),
        "commonest_cause": None if cause is None else asdict(cause),
        "resumed_rows": outcome.resumed_rows,
        "formats": dict(outcome.formats),
        "template": outcome.folder.manifest["masks"]["template"],
        "mask": outcome.folder.manifest.get("mask"),
        "update": outcome.folder.manifest["update"],
        "seconds": round(done.seconds, 3),
        "compiled": done.compiled,
        "smaller_token_budget": done.smaller_budget,
        "profile": [
            {**asdict(report), "idle": report.idle, "packing": report.packing, "tokens_per_second": rate}
            for report in done.reports
            for rate in (report.tokens_per_second,)
        ],
    }


def summary_text(done: Done) -> str:
    """The summary as lines of text."""
    folder, old = done.outcome.folder, done.outcome.resumed_rows
    update = folder.manifest["update"]
    lines = [f"{plural(folder.rows, 'row')} in {folder.name}: {output.counts(done.outcome.counts)}"]
    cause = commonest_cause(folder)
    if cause is not None:
        lines.append(f"not scored: {cause.text()}")
    if done.outcome.formats:
        formats = output.counts(done.outcome.formats)
        lines.append(f"formats: {formats}; update: {update['update']}, lr {update['lr']:g}")
    lines.append(masks_text(folder.manifest))
    new = f"{plural(folder.rows - old, 'row')} in {output.duration(done.seconds)}"
    lines.append(new + (f", {old:,} were there" if old else "") + (f"; {done.compiled}" if done.compiled else ""))
    if done.smaller_budget is not None:
        lines.append(f"memory ran out and batches were halved: --token-budget {done.smaller_budget} would have fitted")
    lines += [report.text() for report in done.reports]
    if done.outcome.counts["scored"]:
        lines.append(f"next: donod-fast select {folder.name} --keep 0.3 --out subset.jsonl")
    return "\n".join(lines)


_MASKS = {"generation": "the template's generation marks", "prefix": "the tokens of the prompt"}
_TURNS = {"all": "all assistant turns", "last": "the last assistant turn"}


def masks_text(manifest: Mapping[str, Any]) -> str:
    """The chat template and the mask of a run: what conversations are written with, and which tokens are scored."""
    masks = manifest["masks"]
    name = masks["template"]
    kind = (
        "the tokenizer's own"
        if name == "tokenizer"
        else name + (" (built in)" if name in BUILTIN_TEMPLATES else " (file)")
    )
    turns = _TURNS.get(masks["train_on"], masks["train_on"])
    mask = _MASKS.get(manifest.get("mask", ""))  # folders of earlier releases do not record it
    return f"chat template: {kind}; mask: {turns}" + ("" if mask is None else f", found by {mask}")
