"""Report of the output-layer study: Markdown, CSV, JSON, and pictures if matplotlib is installed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from donod_fast.studies.core.tables import markdown_table, write_csv, write_json, write_text
from donod_fast.studies.focus.result import Agreement, FocusResult, Moved
from donod_fast.system.wording import plural

MOVED_PICTURE, AGREEMENT_PICTURE = "moved.png", "agreement.png"
TIED = (
    "The output layer is also the input embedding: one matrix, which training moves for both reasons. The scores of "
    "samples below see its use as the output layer only."
)
"""What a reader must know of a model with tied embeddings."""

_OURS, _OTHERS = "#d1495b", "#8fb0cc"
_SHOWN = 12  # bars of a panel


def write_focus_report(out: Path, result: FocusResult) -> None:
    """Write ``report.md``, ``moved.csv``, ``agreement.csv``, ``result.json`` and the pictures.

    Raises:
        StoreError: a file cannot be written.
    """
    write_csv(out / "moved.csv", [asdict(one) for one in result.moved])
    if result.agreements:
        write_csv(out / "agreement.csv", [_flat(one) for one in result.agreements])
    write_json(out / "result.json", asdict(result))
    pictures = draw_focus(out, result)
    write_text(out / "report.md", focus_markdown(result) + "".join(f"\n![{name}]({name})\n" for name in pictures))


def focus_markdown(result: FocusResult) -> str:
    """Text of the report: settings, rank of the output layer, and agreement with its ranking of samples."""
    settings = result.settings
    optimizers = "; ".join(f"{n}: lr {fields['learning_rate']:g}" for n, fields in settings["optimizers"].items())
    text = [
        "# Output-layer focus\n",
        f"Model `{settings['model']}` in float32. Fine-tuned on {plural(settings['train_rows'], 'row')} of "
        f"{', '.join(settings['corpora'])}, {settings['training']['epochs']:g} epochs, "
        f"{plural(settings['seeds'], 'seed')} "
        f"({optimizers}).\n",
        *([f"{TIED}\n"] if settings["tied"] else []),
        "\n## How far each matrix moved\n",
        "Place of the output layer, by ‖W_after − W_before‖ (absolute), over ‖W_before‖ (relative), and over the "
        "root of the number of weights (per weight); 1 is the farthest.\n",
        _places(result.moved, layer=False),
        "The same with all parameters of a decoder layer taken together:\n",
        _places(result.moved, layer=True),
    ]
    for update in settings["updates"] if result.agreements else ():
        some = [one for one in result.agreements if one.update == update and one.kind != "matrix"]
        text += [
            f"\n## Agreement with the output layer's ranking of samples: {update}\n",
            f"{plural(settings['rows'], 'sample')} of {settings['corpora'][0]}; lr {settings['lr']:g}. "
            "Spearman's correlation "
            "with the output layer's scores (bootstrap over samples, 95 %), and overlap of the best "
            f"{settings['keep']:.0%} by TOPSIS (by chance {settings['keep']:.2f}; Wilson's interval).\n",
            markdown_table(
                ["scores of", "part of ‖U‖²", "DON", "NOD", "TOPSIS", "overlap"],
                [
                    [
                        one.name,
                        f"{one.nod_share:.3f}",
                        *(e.text(2) for e in (one.don, one.nod, one.closeness, one.best)),
                    ]
                    for one in some
                ],
            ),
        ]
    return "\n".join(text)


def draw_focus(out: Path, result: FocusResult) -> list[str]:
    """Draw the available results; returns the names of the pictures (none without matplotlib)."""
    try:
        import matplotlib
    except ImportError:
        return []
    matplotlib.use("Agg")
    _draw_moved(out / MOVED_PICTURE, result)
    if not result.agreements:
        return [MOVED_PICTURE]
    _draw_agreement(out / AGREEMENT_PICTURE, result)
    return [MOVED_PICTURE, AGREEMENT_PICTURE]


def _draw_moved(path: Path, result: FocusResult) -> None:
    import matplotlib.pyplot as plt

    corpora, optimizers = result.settings["corpora"], list(result.settings["optimizers"])
    figures = (("delta", "‖ΔW‖"), ("relative", "‖ΔW‖ / ‖W‖"))
    across = len(figures) * len(optimizers)
    size = (3.4 * across, 2.7 * len(corpora))
    figure, axes = plt.subplots(len(corpora), across, figsize=size, layout="constrained", dpi=110, squeeze=False)
    for corpus, line in zip(corpora, axes, strict=True):
        panels = iter(line)
        for optimizer in optimizers:
            some = [m for m in result.moved if (m.corpus, m.optimizer, m.layer) == (corpus, optimizer, False)]
            for name, label in figures:
                _bars(next(panels), some, name, f"{corpus}, {optimizer}: {label}")
    figure.savefig(path)
    plt.close(figure)


def _bars(panel: Any, some: Sequence[Moved], figure: str, title: str) -> None:
    """The matrices that changed most, and the output layer at any rank."""
    ordered = sorted(some, key=lambda one: -getattr(one, figure))
    places = {one.name: place for place, one in enumerate(ordered, 1)}
    shown = ordered[:_SHOWN]
    if not any(one.output for one in shown):
        shown = [*ordered[: _SHOWN - 1], next(one for one in ordered if one.output)]
    labels = [f"{places[one.name]}. {one.name}" for one in shown]
    panel.barh(labels, [getattr(one, figure) for one in shown], color=[_OURS if m.output else _OTHERS for m in shown])
    panel.invert_yaxis()
    panel.tick_params(labelsize=6)
    panel.locator_params(axis="x", nbins=4)
    panel.set_title(title, fontsize=8)


def _draw_agreement(path: Path, result: FocusResult) -> None:
    import matplotlib.pyplot as plt

    updates = result.settings["updates"]
    names = [one.name for one in result.agreements if one.update == updates[0] and one.kind != "matrix"]
    size = (5.6 * len(updates), 1.2 + 0.32 * len(names))
    figure, axes = plt.subplots(1, len(updates), figsize=size, layout="constrained", dpi=110, squeeze=False)
    for update, panel in zip(updates, axes[0], strict=True):
        some = [one for one in result.agreements if one.update == update and one.kind != "matrix"]
        for at, (figure_name, label) in enumerate((("don", "DON"), ("nod", "NOD"), ("closeness", "TOPSIS"))):
            found = [getattr(one, figure_name) for one in some]
            # A percentile interval need not hold the estimate itself.
            errors = [[max(0.0, e.value - e.low) for e in found], [max(0.0, e.high - e.value) for e in found]]
            places = [i + 0.2 * (at - 1) for i in range(len(some))]
            panel.errorbar([e.value for e in found], places, xerr=errors, fmt="o", markersize=4, capsize=2, label=label)
        panel.axvline(0, color="#bbbbbb", linewidth=1)
        panel.set_yticks(range(len(names)), names, fontsize=8)
        panel.invert_yaxis()
        panel.set_xlim(-1.05, 1.05)
        panel.set_title(f"{update}: rank correlation with the output layer", fontsize=9)
        panel.legend(fontsize=7, loc="lower left")
    figure.savefig(path)
    plt.close(figure)


def _places(moved: Sequence[Moved], *, layer: bool) -> str:
    rows = []
    for corpus, optimizer in dict.fromkeys((one.corpus, one.optimizer) for one in moved):
        some = [one for one in moved if (one.corpus, one.optimizer, one.layer) == (corpus, optimizer, layer)]
        ours = next(one for one in some if one.output)

        def place(figure: str, some: Sequence[Moved] = some, ours: Moved = ours) -> str:
            return str(1 + sum(getattr(one, figure) > getattr(ours, figure) for one in some))

        first = max(some, key=lambda one: one.relative)
        rows.append(
            [
                f"{corpus}, {optimizer}",
                str(len(some)),
                *(place(figure) for figure in ("delta", "relative", "per_weight")),
                f"{ours.relative:.2e}",
                f"{first.name} {first.relative:.2e}",
            ]
        )
    kind = "layers" if layer else "matrices"
    header = [
        "fine-tuning",
        kind,
        "absolute",
        "relative",
        "per weight",
        "its relative delta",
        "largest relative delta",
    ]
    return markdown_table(header, rows)


def _flat(one: Agreement) -> dict[str, Any]:
    flat: dict[str, Any] = {"update": one.update, "name": one.name, "kind": one.kind, "nod_share": one.nod_share}
    for name in ("don", "nod", "closeness", "best"):
        estimate = getattr(one, name)
        flat |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return flat
