"""The whole demonstration: score, rank, select, report and draw, without a network or a GPU."""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from donod_fast.data.reading import open_corpus
from donod_fast.demo.conclusion import conclude
from donod_fast.demo.corpus import CLEAN, CORPUS_FILE, MODEL_FOLDER, Row, read_corpus
from donod_fast.demo.report import detect, format_table
from donod_fast.engines.local import score_corpus
from donod_fast.errors import StoreError
from donod_fast.models.loading import load_model
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scoring.scorer import Scorer
from donod_fast.scoring.settings import UpdateSettings
from donod_fast.selection.keeping import keep
from donod_fast.selection.plane import draw_plane
from donod_fast.selection.ranking import ScoreColumns, rank
from donod_fast.selection.subset import write_subset
from donod_fast.system.locking import locked
from donod_fast.system.wording import plural

UPDATES = ("adamw", "sgd")

DEFAULT, CONTROL = "TOPSIS (AdamW)", "random"
"""The default method of ``donod-fast select``, and random selection for comparison."""

METHODS = (
    (DEFAULT, "adamw", "topsis"),
    ("TOPSIS (SGD)", "sgd", "topsis"),
    ("DON (AdamW)", "adamw", "don"),
    ("NOD (AdamW)", "adamw", "nod"),
    ("loss", "adamw", "loss"),
    (CONTROL, "adamw", "random"),
)
"""The methods of the table: the name to print, the update that scored, the method that ranks."""

REPORT, SUBSET, PICTURE = "report.txt", "subset.jsonl", "plane.png"
OWN_SCORES, OWN_SUBSET = "my-scores", "my-subset.jsonl"

NOT_SHOWN = """\
Not shown: which rows train a better model. The model is small and the corpus is generated: these counts do not
carry over to other models and data. Studies and limits of the method: https://github.com/OWNER/donod_fast
"""


def run_demo(out: Path, *, keep: float = 0.3, quiet: bool = False) -> None:
    """Score the embedded corpus with AdamW and with SGD, and print what each method drops and what that shows.

    Writes into ``out``: the scores folders ``scores-adamw`` and ``scores-sgd``, the selected records
    ``subset.jsonl`` (TOPSIS with AdamW), the table and its conclusion ``report.txt`` and, if matplotlib
    is installed, the NOD–DON plane ``plane.png``. A second run reuses the scores of the first.

    Args:
        out: the folder to write into; it is created if it does not exist.
        keep: the fraction of the rows to keep.
        quiet: print the table and its conclusion only.

    Raises:
        StoreError: the folder cannot be written, or holds scores made with other settings.
    """

    def say(text: str) -> None:
        if not quiet:
            print(text, flush=True)

    rows = read_corpus()
    say(f"{len(rows):,} questions, of which {_planted(rows)} have a corrupted answer (planted, and known).")
    say(f"corpus: {CORPUS_FILE}\nmodel:  {MODEL_FOLDER}")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{out}: the folder cannot be made ({error.strerror or error})") from error
    columns = {}
    for update in UPDATES:
        folder = out / f"scores-{update}"
        began = time.perf_counter()
        columns[update] = _scores(folder, update)
        say(f"{update}: scored into {folder} in {time.perf_counter() - began:.1f} s")

    kept = {name: _kept(columns[update], method, keep) for name, update, method in METHODS}
    labels = [row["corruption"] for row in rows]
    detections = detect(labels, {name: chosen.tolist() for name, chosen in kept.items()})
    report = f"{format_table(detections)}\n\n{conclude(detections, default=DEFAULT, control=CONTROL)}\n{NOT_SHOWN}"
    chosen = kept[DEFAULT]
    write_subset(open_corpus([str(CORPUS_FILE)]), chosen, out / SUBSET, overwrite=True)
    try:
        (out / REPORT).write_text(report, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{out / REPORT} cannot be written ({error.strerror or error})") from error

    say(f"\nEach method keeps {len(chosen):,} of {plural(len(rows), 'row')} and drops the others:\n")
    print(report, end="")
    say(f"\nselected: {out / SUBSET} ({DEFAULT}; the original records)")
    if find_spec("matplotlib") is None:
        say("no picture: drawing needs matplotlib (pip install donod-fast[plot])")
    else:
        _draw(columns["adamw"], chosen, labels, out / PICTURE)
        say(f"picture:  {out / PICTURE} (the NOD–DON plane, kept and dropped rows)")
    say("\nContinue with your own commands on this corpus and model (no network needed):")
    for command in next_commands(out):
        say(f"  {shlex.join(command)}")


def next_commands(out: Path) -> list[list[str]]:
    """Commands that score, select from and compare the embedded corpus, as argument lists."""
    program, scores = _program(), str(out / OWN_SCORES)
    return [
        [program, "score", str(CORPUS_FILE), "--model", str(MODEL_FOLDER), "--out", scores],
        [program, "select", scores, "--keep", "0.3", "--method", "nod", "--out", str(out / OWN_SUBSET)],
        [program, "compare", scores, "--columns", "topsis,don,nod,loss"],
    ]


def _program() -> str:
    """The command's name, or its path where the environment that runs this is not on PATH."""
    script = Path(sys.executable).with_name("donod-fast")
    return str(script) if shutil.which("donod-fast") is None and script.exists() else "donod-fast"


def _planted(rows: Sequence[Row]) -> int:
    return sum(row["corruption"] != CLEAN for row in rows)


def _scores(folder: Path, update: str) -> ScoreColumns:
    """Score the embedded corpus with the embedded model into ``folder``; returns the columns in row order."""
    with locked(folder), _one_thread():
        model = load_model(MODEL_FOLDER, dtype="float32", device="cpu")
        scorer = Scorer(model, update=UpdateSettings(update))
        scores: ScoresFolder = score_corpus(open_corpus([str(CORPUS_FILE)]), scorer, folder).folder
        return ScoreColumns.from_table(scores.table())


@contextmanager
def _one_thread() -> Iterator[None]:
    """Limit PyTorch to one thread: for so small a model, synchronising threads costs more than it saves."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _kept(columns: ScoreColumns, method: str, fraction: float) -> Tensor:
    return keep(rank(columns, method), keep=fraction)


def _draw(columns: ScoreColumns, chosen: Tensor, labels: Sequence[str], path: Path) -> None:
    kept_mask = torch.zeros(len(labels), dtype=torch.bool)
    kept_mask[chosen] = True
    kinds = [kind for kind in dict.fromkeys(labels) if kind != CLEAN]
    draw_plane(
        columns.don,
        columns.nod,
        kept_mask,
        path,
        title=f"The demonstration: {kept_mask.double().mean():.0%} kept by {DEFAULT}",
        groups={kind.replace("_", " "): torch.tensor([label == kind for label in labels]) for kind in kinds},
    )
