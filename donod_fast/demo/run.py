"""The demonstration from end to end: score, rank, select, report, draw. No network, no GPU."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from donod_fast.data.reading import open_corpus
from donod_fast.demo.corpus import CLEAN, CORPUS_FILE, MODEL_FOLDER, Row, read_corpus
from donod_fast.demo.plane import draw_plane
from donod_fast.demo.report import detect, format_table
from donod_fast.engines.local import score_corpus
from donod_fast.errors import StoreError
from donod_fast.models.loading import load_model
from donod_fast.scores.folder import ScoresFolder, locked
from donod_fast.scoring.scorer import Scorer
from donod_fast.scoring.settings import UpdateSettings
from donod_fast.selection.keeping import keep
from donod_fast.selection.ranking import ScoreColumns, rank
from donod_fast.selection.subset import write_subset
from donod_fast.system.wording import plural

UPDATES = ("adamw", "sgd")

METHODS = (
    ("TOPSIS, AdamW", "adamw", "topsis"),
    ("TOPSIS, SGD", "sgd", "topsis"),
    ("DON, AdamW", "adamw", "don"),
    ("NOD, AdamW", "adamw", "nod"),
    ("loss", "adamw", "loss"),
    ("random", "adamw", "random"),
)
"""What the table compares: the name to print, the update that scored, the method that ranks."""

REPORT, SUBSET, PICTURE = "report.txt", "subset.jsonl", "plane.png"


def run_demo(out: Path, *, keep: float = 0.3, quiet: bool = False) -> None:
    """Scores the embedded corpus with AdamW and with SGD, and says what each method drops.

    Writes into ``out``: the scores folders ``scores-adamw`` and ``scores-sgd``, the selected records
    ``subset.jsonl`` (TOPSIS with AdamW), the table ``report.txt`` and, where matplotlib is installed,
    the NOD–DON plane ``plane.png``. Run again, it uses the scores that are there.

    Args:
        out: the folder to write into, made if need be.
        keep: the fraction of the rows to keep.
        quiet: prints the table only.

    Raises:
        StoreError: the folder cannot be written, or holds scores made with other settings.
    """

    def say(text: str) -> None:
        if not quiet:
            print(text, flush=True)

    rows = read_corpus()
    say(f"{len(rows):,} questions, of which {_planted(rows)} have a corrupted answer (planted, and known).")
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
    table = format_table(detect(labels, {name: chosen.tolist() for name, chosen in kept.items()}))
    chosen = kept["TOPSIS, AdamW"]
    write_subset(open_corpus([str(CORPUS_FILE)]), chosen, out / SUBSET, overwrite=True)
    try:
        (out / REPORT).write_text(table + "\n", encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{out / REPORT} cannot be written ({error.strerror or error})") from error

    say(f"\nEach method keeps {len(chosen):,} of {plural(len(rows), 'row')}. What it drops:\n")
    print(table)
    say(f"\nselected: {out / SUBSET} (TOPSIS, AdamW; the original records)")
    if find_spec("matplotlib") is None:
        say("no picture: drawing needs matplotlib (pip install donod-fast[plot])")
        return
    _draw(columns["adamw"], chosen, labels, out / PICTURE)
    say(f"picture:  {out / PICTURE} (the NOD-DON plane, kept and dropped)")


def _planted(rows: Sequence[Row]) -> int:
    return sum(row["corruption"] != CLEAN for row in rows)


def _scores(folder: Path, update: str) -> ScoreColumns:
    """The embedded corpus scored by the embedded model into ``folder``, as columns in row order."""
    with locked(folder), _one_thread():
        model = load_model(MODEL_FOLDER, dtype="float32", device="cpu")
        scorer = Scorer(model, update=UpdateSettings(update))
        scores: ScoresFolder = score_corpus(open_corpus([str(CORPUS_FILE)]), scorer, folder).folder
        return ScoreColumns.from_table(scores.table())


@contextmanager
def _one_thread() -> Iterator[None]:
    """The model is so small that threads which wait for each other cost more than they save."""
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
        title=f"The demonstration: {kept_mask.double().mean():.0%} kept by TOPSIS (AdamW)",
        groups={kind.replace("_", " "): torch.tensor([label == kind for label in labels]) for kind in kinds},
    )
