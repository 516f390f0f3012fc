"""The paper's other studies on the command line, and the sensitivity of the ranking to what it leaves open."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from donod_fast.errors import InputError

if TYPE_CHECKING:
    from donod_fast.studies.core.cells import Cell
    from donod_fast.studies.core.finetune import FineTuneSettings

Data = Annotated[list[str], typer.Argument(help="Files to take rows from, in this order.")]
Model = Annotated[str, typer.Option(help="Folder or hub id of a causal language model (safetensors).")]
Heldout = Annotated[list[str], typer.Option(help="Files to measure the loss on.")]
Seeds = Annotated[int, typer.Option(help="How many times rows, damage and orders are drawn; intervals are over these.")]
Skip = Annotated[int, typer.Option(help="Rows at the start to leave out (those the model was trained on).")]
Keep = Annotated[float, typer.Option(help="Share of the rows that is kept.")]
Damage = Annotated[
    list[str] | None, typer.Option("--damage", help="Rows to damage beforehand: KIND=SHARE, several times.")
]
SettingSeeds = Annotated[int, typer.Option(help="Trainings of every other setting; 0: none.")]
ReferenceSeeds = Annotated[int, typer.Option(help="Trainings of the default and of the baselines; 0: train nothing.")]
Cells = Annotated[Path | None, typer.Option(help="Folder of cells that studies share (default: the study's own).")]
LearningRate = Annotated[float | None, typer.Option(help="Of the fine-tuning (default: the study's).")]


def sensitivity(
    data: Data,
    model: Model,
    heldout: Heldout,
    out: Annotated[Path, typer.Option(help="Folder of the study.")] = Path("donod-fast-sensitivity"),
    skip: Skip = 0,
    rows: Annotated[int, typer.Option(help="Rows to select from.")] = 700,
    heldout_skip: Annotated[int, typer.Option(help="Held-out rows at the start to leave out.")] = 0,
    heldout_rows: Annotated[int, typer.Option(help="Held-out rows after these.")] = 100,
    damage: Damage = None,
    keep: Keep = 0.3,
    axes: Annotated[str, typer.Option(help="Axes to vary, a,b for several (default: all).")] = "",
    seeds: ReferenceSeeds = 3,
    setting_seeds: SettingSeeds = 1,
    damage_seed: Annotated[int, typer.Option(help="Names the damage that is planted.", min=0)] = 0,
    learning_rate: LearningRate = None,
    train_tokens: Annotated[int | None, typer.Option(help="Tokens of each training (default: 20,000).", min=1)] = None,
    cells: Cells = None,
) -> None:
    """What the ranking owes to the scoring step, which the paper leaves open: overlap, separation, held-out loss."""
    from donod_fast.studies.sensitivity.run import run_sensitivity

    run_sensitivity(
        out,
        model,
        data,
        heldout,
        skip=skip,
        rows=rows,
        heldout_skip=heldout_skip,
        heldout_rows=heldout_rows,
        shares=_shares(damage) or None,
        keep=keep,
        axes=_names(axes) or None,
        seeds=seeds,
        setting_seeds=setting_seeds,
        damage_seed=damage_seed,
        training=_training(learning_rate, train_tokens),
        cells=cells,
        on_cell=_progress,
    )
    _show(out)


def ablation(
    data: Data,
    model: Model,
    heldout: Heldout,
    out: Annotated[Path, typer.Option(help="Folder of the study.")] = Path("donod-fast-ablation"),
    skip: Skip = 0,
    rows: Annotated[int, typer.Option(help="Rows to select from.")] = 700,
    heldout_skip: Annotated[int, typer.Option(help="Held-out rows at the start to leave out.")] = 0,
    heldout_rows: Annotated[int, typer.Option(help="Held-out rows after these.")] = 100,
    damage: Damage = None,
    keeps: Annotated[str, typer.Option(help="Shares to keep.")] = "0.1,0.2,0.3",
    seeds: ReferenceSeeds = 3,
    setting_seeds: SettingSeeds = 1,
    damage_seed: Annotated[int, typer.Option(help="Names the damage that is planted.", min=0)] = 0,
    learning_rate: LearningRate = None,
    train_tokens: Annotated[int | None, typer.Option(help="Tokens of each training (default: 20,000).", min=1)] = None,
    cells: Cells = None,
) -> None:
    """DON alone, NOD alone (both ways), weighted sum, Pareto front, TOPSIS, random, all rows (the paper's Table 5)."""
    from donod_fast.studies.sensitivity.ablation import run_ablation

    run_ablation(
        out,
        model,
        data,
        heldout,
        skip=skip,
        rows=rows,
        heldout_skip=heldout_skip,
        heldout_rows=heldout_rows,
        shares=_shares(damage) or None,
        keeps=_numbers("keeps", keeps),
        seeds=seeds,
        setting_seeds=setting_seeds,
        damage_seed=damage_seed,
        training=_training(learning_rate, train_tokens),
        cells=cells,
        on_cell=_progress,
    )
    _show(out)


def noise(
    data: Data,
    model: Model,
    out: Annotated[Path, typer.Option(help="Folder of the study.")] = Path("donod-fast-noise"),
    skip: Skip = 0,
    rows: Annotated[int, typer.Option(help="Rows of each seed.")] = 300,
    seeds: Seeds = 5,
    kinds: Annotated[str, typer.Option(help="Kinds of damage, a,b for several (default: all).")] = "",
    updates: Annotated[
        str, typer.Option(help="adamw, sgd, adamw-bfloat16; a,b for several.")
    ] = "adamw,sgd,adamw-bfloat16",
    top: Annotated[float, typer.Option(help="Share of the best rows that is damaged for the overlap.")] = 0.2,
    planted: Annotated[float, typer.Option(help="Share of the rows that is damaged for the separation.")] = 0.2,
    keep: Keep = 0.3,
) -> None:
    """Do the scores notice damaged rows? Overlap of the best after damaging them, and separation (the paper's §4.4)."""
    from donod_fast.studies.core.corruptions import KINDS
    from donod_fast.studies.noise.run import UPDATES, run_noise

    chosen = _names(updates)
    unknown = [name for name in chosen if name not in UPDATES]
    if unknown:
        raise InputError(f"unknown update {unknown[0]!r}; known are {', '.join(UPDATES)}")
    run_noise(
        out,
        model,
        data,
        skip=skip,
        rows=rows,
        seeds=seeds,
        kinds=_names(kinds) or tuple(KINDS),
        updates={name: UPDATES[name] for name in chosen},
        top=top,
        planted=planted,
        keep=keep,
        on_cell=_progress,
    )
    _show(out)


def stability(
    data: Data,
    model: Model,
    heldout: Heldout,
    out: Annotated[Path, typer.Option(help="Folder of the study.")] = Path("donod-fast-stability"),
    skip: Skip = 0,
    rows: Annotated[int, typer.Option(help="Rows of each seed.")] = 400,
    seeds: Seeds = 3,
    heldout_rows: Annotated[int, typer.Option(help="The first so many held-out rows.")] = 200,
    proportions: Annotated[str, typer.Option(help="Shares to keep.")] = "0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1.0",
    methods: Annotated[str, typer.Option(help="Methods of ranking, as of select.")] = "topsis,random,nod,loss",
    learning_rate: LearningRate = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over each selection.")] = None,
    damage: Damage = None,
) -> None:
    """Fine-tune on 10, 20, … 100 % of a corpus by each method: held-out loss with intervals (the paper's Figure 4)."""
    from dataclasses import replace

    from donod_fast.studies.stability.run import TRAINING, run_stability

    training = TRAINING
    if learning_rate is not None:
        training = replace(training, learning_rate=learning_rate)
    if epochs is not None:
        training = replace(training, epochs=epochs)
    run_stability(
        out,
        model,
        data,
        heldout,
        skip=skip,
        rows=rows,
        seeds=seeds,
        heldout_rows=heldout_rows,
        proportions=_numbers("proportions", proportions),
        methods=_names(methods),
        training=training,
        planted=_shares(damage),
        on_cell=_progress,
    )
    _show(out)


def focus(
    data: Annotated[list[str], typer.Argument(help="Corpora to fine-tune on: NAME=FILE or NAME=FILE:SKIP.")],
    model: Model,
    out: Annotated[Path, typer.Option(help="Folder of the study.")] = Path("donod-fast-focus"),
    train_rows: Annotated[int, typer.Option(help="Rows of each corpus to fine-tune on.")] = 300,
    seeds: Seeds = 2,
    rows: Annotated[
        int, typer.Option(help="Samples of the first corpus to score layer by layer; 0: none.", min=0)
    ] = 200,
    updates: Annotated[str, typer.Option(help="That score them; a,b for several.")] = "adamw,sgd",
    keep: Keep = 0.3,
    epochs: Annotated[float, typer.Option(help="Of the fine-tuning.")] = 1.0,
) -> None:
    """May one look at the output layer alone? Weights that moved, and scores of every layer (Figures 3, 6–11)."""
    from donod_fast.studies.focus.run import run_focus

    corpora: dict[str, Any] = {}
    skips: dict[str, int] = {}
    for text in data:
        name, given, place = text.partition("=")
        if not given:
            raise InputError(f"{text}: name the corpus, as in gsm8k={text}")
        file, colon, skip = place.rpartition(":")
        numbered = bool(colon) and skip.isdigit()
        corpora[name], skips[name] = (file, int(skip)) if numbered else (place, 0)
    run_focus(
        out,
        model,
        corpora,
        skip=skips,
        train_rows=train_rows,
        seeds=seeds,
        rows=rows,
        updates=_names(updates),
        keep=keep,
        training={"epochs": epochs},
        on_cell=_progress,
    )
    _show(out)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(part) for part in _names(text)]
    except ValueError:
        raise InputError(f"--{option} takes shares parted by commas, such as 0.1,0.2, not {text!r}") from None


def _shares(given: list[str] | None) -> dict[str, float]:
    shares = {}
    for text in given or []:
        kind, _, share = text.partition("=")
        try:
            shares[kind] = float(share)
        except ValueError:
            raise InputError(f"--damage takes KIND=SHARE, such as masked=0.05, not {text!r}") from None
    return shares


def _training(learning_rate: float | None, tokens: int | None) -> FineTuneSettings:
    from dataclasses import replace

    from donod_fast.studies.sensitivity.measures import TRAINING

    training = TRAINING if learning_rate is None else replace(TRAINING, learning_rate=learning_rate)
    return training if tokens is None else replace(training, tokens=tokens)


def _progress(cell: Cell) -> None:
    typer.echo(f"{cell.kind}: {'kept' if cell.cached else f'{cell.seconds:.1f} s'}", err=True)


def _show(out: Path) -> None:
    typer.echo((out / "report.md").read_text(encoding="utf-8"))
    typer.echo(f"report: {out / 'report.md'}")
