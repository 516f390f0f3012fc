"""``donod-fast study sensitivity, ablation, noise, stability, focus``: the paper's studies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from donod_fast.errors import InputError

if TYPE_CHECKING:
    from donod_fast.studies.core.cells import Cell

Data = Annotated[
    list[str], typer.Argument(metavar="DATA", rich_help_panel="Input", help="Files to take rows from, in this order.")
]
Model = Annotated[
    str, typer.Option(rich_help_panel="Model", help="Folder or hub id of a causal language model (safetensors).")
]
Heldout = Annotated[list[str], typer.Option(rich_help_panel="Input", help="Files to measure the loss on.")]
HeldoutSkip = Annotated[int, typer.Option(rich_help_panel="Input", help="Held-out rows to skip at the start.")]
HeldoutRows = Annotated[int, typer.Option(rich_help_panel="Input", help="Held-out rows to use.")]
Seeds = Annotated[
    int,
    typer.Option(
        rich_help_panel="Study", help="How often rows, damage and orders are drawn; intervals are over these."
    ),
]
Skip = Annotated[
    int,
    typer.Option(rich_help_panel="Input", help="Rows to skip at the start, such as those the model was trained on."),
]
PoolRows = Annotated[int, typer.Option(rich_help_panel="Input", help="Rows to select from.")]
Keep = Annotated[float, typer.Option(rich_help_panel="Study", help="Share of the rows to keep.")]
Damage = Annotated[
    list[str] | None,
    typer.Option(
        "--damage", rich_help_panel="Input", help="Rows to damage beforehand: KIND=SHARE; repeat for several kinds."
    ),
]
SettingSeeds = Annotated[int, typer.Option(rich_help_panel="Study", help="Trainings of every other setting; 0: none.")]
ReferenceSeeds = Annotated[
    int, typer.Option(rich_help_panel="Study", help="Trainings of the default and of the baselines; 0: train nothing.")
]
DamageSeed = Annotated[int, typer.Option(rich_help_panel="Input", help="Seed of the planted damage.", min=0)]
TrainTokens = Annotated[
    int | None, typer.Option(rich_help_panel="Training", help="Tokens of each training (default: 20,000).", min=1)
]
Cells = Annotated[
    Path | None,
    typer.Option(rich_help_panel="Output", help="Folder of cells that studies share (default: the study's own)."),
]
LearningRate = Annotated[
    float | None,
    typer.Option(rich_help_panel="Training", help="Learning rate of the fine-tuning (default: the study's)."),
]


def sensitivity(
    data: Data,
    model: Model,
    heldout: Heldout,
    out: Annotated[Path, typer.Option(rich_help_panel="Output", help="Folder of the study.")] = Path(
        "donod-fast-sensitivity"
    ),
    skip: Skip = 0,
    rows: PoolRows = 700,
    heldout_skip: HeldoutSkip = 0,
    heldout_rows: HeldoutRows = 100,
    damage: Damage = None,
    keep: Keep = 0.3,
    axes: Annotated[
        str, typer.Option(rich_help_panel="Study", help="Axes to vary: a,b for several (default: all).")
    ] = "",
    seeds: ReferenceSeeds = 3,
    setting_seeds: SettingSeeds = 1,
    damage_seed: DamageSeed = 0,
    learning_rate: LearningRate = None,
    train_tokens: TrainTokens = None,
    cells: Cells = None,
) -> None:
    """Compare the scoring choices that the paper leaves open: overlap, separation and held-out loss of each."""
    from donod_fast.studies.core.study_data import StudyData
    from donod_fast.studies.sensitivity.run import run_sensitivity
    from donod_fast.studies.sensitivity.study_settings import SensitivitySettings

    settings = SensitivitySettings(
        keep=keep,
        axes=_names(axes) or None,
        **_damage_settings(damage, damage_seed, seeds, setting_seeds, _changed(learning_rate, tokens=train_tokens)),
    )
    rows_of = StudyData(data, skip, rows, heldout, heldout_skip, heldout_rows)
    run_sensitivity(out, model, rows_of, settings, cells=cells, on_cell=_progress)
    _show(out)


def ablation(
    data: Data,
    model: Model,
    heldout: Heldout,
    out: Annotated[Path, typer.Option(rich_help_panel="Output", help="Folder of the study.")] = Path(
        "donod-fast-ablation"
    ),
    skip: Skip = 0,
    rows: PoolRows = 700,
    heldout_skip: HeldoutSkip = 0,
    heldout_rows: HeldoutRows = 100,
    damage: Damage = None,
    keeps: Annotated[str, typer.Option(rich_help_panel="Study", help="Shares to keep.")] = "0.1,0.2,0.3",
    seeds: ReferenceSeeds = 3,
    setting_seeds: SettingSeeds = 1,
    damage_seed: DamageSeed = 0,
    learning_rate: LearningRate = None,
    train_tokens: TrainTokens = None,
    cells: Cells = None,
) -> None:
    """Compare DON alone, NOD alone (both directions), weighted sum, Pareto front, TOPSIS, random and all rows.

    This is the paper's Table 5.
    """
    from donod_fast.studies.core.study_data import StudyData
    from donod_fast.studies.sensitivity.ablation import run_ablation
    from donod_fast.studies.sensitivity.study_settings import AblationSettings

    settings = AblationSettings(
        keeps=_numbers("keeps", keeps),
        **_damage_settings(damage, damage_seed, seeds, setting_seeds, _changed(learning_rate, tokens=train_tokens)),
    )
    rows_of = StudyData(data, skip, rows, heldout, heldout_skip, heldout_rows)
    run_ablation(out, model, rows_of, settings, cells=cells, on_cell=_progress)
    _show(out)


def noise(
    data: Data,
    model: Model,
    out: Annotated[Path, typer.Option(rich_help_panel="Output", help="Folder of the study.")] = Path(
        "donod-fast-noise"
    ),
    skip: Skip = 0,
    rows: Annotated[int, typer.Option(rich_help_panel="Input", help="Rows of each seed.")] = 300,
    seeds: Seeds = 5,
    kinds: Annotated[
        str, typer.Option(rich_help_panel="Study", help="Kinds of damage: a,b for several (default: all).")
    ] = "",
    updates: Annotated[
        str,
        typer.Option(
            rich_help_panel="Study", help="Updates to score with: adamw, sgd, adamw-bfloat16; a,b for several."
        ),
    ] = "adamw,sgd,adamw-bfloat16",
    top: Annotated[
        float, typer.Option(rich_help_panel="Study", help="Share of the best rows to damage for the overlap.")
    ] = 0.2,
    planted: Annotated[
        float, typer.Option(rich_help_panel="Study", help="Share of the rows to damage for the separation.")
    ] = 0.2,
    keep: Keep = 0.3,
) -> None:
    """Measure whether the scores detect damaged rows: overlap and separation (the paper's §4.4)."""
    from donod_fast.studies.core.corruptions import KINDS
    from donod_fast.studies.core.study_data import StudyData
    from donod_fast.studies.noise.run import run_noise
    from donod_fast.studies.noise.settings import UPDATES, NoiseSettings

    chosen = _names(updates)
    unknown = [name for name in chosen if name not in UPDATES]
    if unknown:
        raise InputError(f"unknown update {unknown[0]!r}; known are {', '.join(UPDATES)}")
    settings = NoiseSettings(
        rows=rows,
        seeds=seeds,
        kinds=_names(kinds) or tuple(KINDS),
        updates={name: UPDATES[name] for name in chosen},
        top=top,
        planted=planted,
        keep=keep,
    )
    run_noise(out, model, StudyData(data, skip), settings, on_cell=_progress)
    _show(out)


def stability(
    data: Data,
    model: Model,
    heldout: Heldout,
    out: Annotated[Path, typer.Option(rich_help_panel="Output", help="Folder of the study.")] = Path(
        "donod-fast-stability"
    ),
    skip: Skip = 0,
    rows: Annotated[int, typer.Option(rich_help_panel="Input", help="Rows of each seed.")] = 400,
    seeds: Seeds = 3,
    heldout_rows: HeldoutRows = 200,
    proportions: Annotated[
        str, typer.Option(rich_help_panel="Study", help="Shares to keep.")
    ] = "0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1.0",
    methods: Annotated[
        str, typer.Option(rich_help_panel="Study", help="Ranking methods, as for select.")
    ] = "topsis,random,nod,loss",
    learning_rate: LearningRate = None,
    epochs: Annotated[
        float | None, typer.Option(rich_help_panel="Training", help="Epochs over each selection.")
    ] = None,
    damage: Damage = None,
) -> None:
    """Fine-tune on 10, 20, … 100 % of a corpus by each method; report the held-out loss (the paper's Figure 4)."""
    from donod_fast.studies.core.study_data import StudyData
    from donod_fast.studies.stability.run import run_stability
    from donod_fast.studies.stability.settings import TRAINING, StabilitySettings

    settings = StabilitySettings(
        rows=rows,
        seeds=seeds,
        proportions=_numbers("proportions", proportions),
        methods=_names(methods),
        training=replace(TRAINING, **_changed(learning_rate, epochs=epochs)),
        planted=_shares(damage),
    )
    rows_of = StudyData(data, skip, heldout=heldout, heldout_rows=heldout_rows)
    run_stability(out, model, rows_of, settings, on_cell=_progress)
    _show(out)


def focus(
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA", rich_help_panel="Input", help="Corpora to fine-tune on: NAME=FILE or NAME=FILE:SKIP."
        ),
    ],
    model: Model,
    out: Annotated[Path, typer.Option(rich_help_panel="Output", help="Folder of the study.")] = Path(
        "donod-fast-focus"
    ),
    train_rows: Annotated[
        int, typer.Option(rich_help_panel="Training", help="Rows of each corpus to fine-tune on.")
    ] = 300,
    seeds: Seeds = 2,
    rows: Annotated[
        int,
        typer.Option(
            rich_help_panel="Input", help="Samples of the first corpus to score layer by layer; 0: none.", min=0
        ),
    ] = 200,
    updates: Annotated[
        str, typer.Option(rich_help_panel="Study", help="Updates that score the samples; a,b for several.")
    ] = "adamw,sgd",
    keep: Keep = 0.3,
    epochs: Annotated[float, typer.Option(rich_help_panel="Training", help="Epochs of the fine-tuning.")] = 1.0,
) -> None:
    """Compare the output layer with all other layers: weight changes and scores (the paper's Figures 3, 6–11)."""
    from donod_fast.studies.core.study_data import StudyData
    from donod_fast.studies.focus.run import run_focus
    from donod_fast.studies.focus.settings import FocusSettings

    settings = FocusSettings(
        train_rows=train_rows,
        seeds=seeds,
        rows=rows,
        updates=_names(updates),
        keep=keep,
        training={"epochs": epochs},
    )
    corpora: dict[str, StudyData] = {}
    for text in data:
        name, given, place = text.partition("=")
        if not given:
            raise InputError(f"{text}: name the corpus, as in gsm8k={text}")
        file, colon, skip = place.rpartition(":")
        corpora[name] = StudyData(file, int(skip)) if colon and skip.isdigit() else StudyData(place)
    run_focus(out, model, corpora, settings, on_cell=_progress)
    _show(out)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(part) for part in _names(text)]
    except ValueError:
        raise InputError(f"--{option} takes shares separated by commas, such as 0.1,0.2, not {text!r}") from None


def _shares(given: list[str] | None) -> dict[str, float]:
    shares = {}
    for text in given or []:
        kind, _, share = text.partition("=")
        try:
            shares[kind] = float(share)
        except ValueError:
            raise InputError(f"--damage takes KIND=SHARE, such as masked=0.05, not {text!r}") from None
    return shares


def _changed(learning_rate: float | None, **others: float | None) -> dict[str, Any]:
    """The fields of ``FineTuneSettings`` that the user gave."""
    given = {"learning_rate": learning_rate, **others}
    return {name: value for name, value in given.items() if value is not None}


def _damage_settings(
    damage: list[str] | None, damage_seed: int, seeds: int, setting_seeds: int, training: dict[str, Any]
) -> dict[str, Any]:
    """The fields that the sensitivity study and the ablation share."""
    from donod_fast.studies.sensitivity.study_settings import SHARES, TRAINING

    return {
        "shares": _shares(damage) or SHARES,
        "damage_seed": damage_seed,
        "seeds": seeds,
        "setting_seeds": setting_seeds,
        "training": replace(TRAINING, **training),
    }


def _progress(cell: Cell) -> None:
    typer.echo(f"{cell.kind}: {'cached' if cell.cached else f'{cell.seconds:.1f} s'}", err=True)


def _show(out: Path) -> None:
    typer.echo((out / "report.md").read_text(encoding="utf-8"))
    typer.echo(f"report: {out / 'report.md'}")
