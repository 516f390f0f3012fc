"""What a scoring run computes, and with which means: settings as options, which a manifest records."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from donod_fast.confidential import hide
from donod_fast.errors import InputError
from donod_fast.system.options import check_choices, option

if TYPE_CHECKING:
    import torch

    from donod_fast.criteria.base import Criterion
    from donod_fast.kernels import Update

UPDATES = ("adamw", "sgd", "sign")
"""Updates that need no state."""

WARM = "adamw-warm"
"""AdamW with a second moment that is estimated on a sample of the corpus."""

REDUCTIONS = ("mean", "sum")
HEAD_PRECISIONS = ("full", "float8")
"""Of the kernels' ``don_nod``; a test compares them."""
STORAGE_DTYPES = ("float32", "bfloat16", "float16")
BACKENDS = ("auto", "torch", "inductor", "triton")
SWITCH = ("auto", "on", "off")
NORMALISATIONS = ("vector", "range", "sum")
DEFAULT_NORMALISE: Literal["vector", "range", "sum"] = "vector"
"""Of :mod:`donod_fast.kernels.topsis`, for help texts, which must not import PyTorch; a test compares them."""

PANEL = "Scoring"
RUNNING = "Running"
CHECKING = "Checking"
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class UpdateSettings:
    """The one-step update that scores a sample (design of DONOD, arXiv 2504.14810, §3.2).

    Attributes:
        update: ``"adamw"`` from fresh state (the default), ``"sgd"``, ``"sign"``, or ``"adamw-warm"``, whose second
            moment is estimated on a sample of the corpus (see ``warm_state.py``).
        lr: learning rate of the step.
        weight_decay: λ of W′ = W − lr (U + λW).
        eps: AdamW's eps; ignored by sgd and sign.
        reduction: ``"mean"`` or ``"sum"`` of the token losses of a sample.
        storage_dtype: name of the dtype that W′ is rounded to before the norms, or None.
        warm_rows: for adamw-warm: rows of the sample.
        warm_seed: for adamw-warm: seed of the sample.
        head_precision: ``"float8"`` multiplies the output layer's gradients of long samples in float8, see ``don_nod``.

    Raises:
        InputError: names the setting with a wrong value.
    """

    update: str = option(
        "adamw",
        help="Update rule that scores a sample: adamw, sgd, sign, or adamw-warm (second moment from a sample of DATA).",
        panel=PANEL,
        choices=(*UPDATES, WARM),
    )
    lr: float = option(2e-5, help="Learning rate of the update.", panel=PANEL)
    weight_decay: float = option(0.0, help="Weight decay of the update.", panel=PANEL)
    eps: float = option(1e-8, help="AdamW's eps.", panel=PANEL)
    reduction: str = option(
        "mean", help="Reduction of a sample's token losses: mean or sum.", panel=PANEL, choices=REDUCTIONS
    )
    storage_dtype: str | None = option(
        None,
        help="Round the updated weights to this dtype before the norms, as low-precision training does.",
        panel=PANEL,
        choices=STORAGE_DTYPES,
    )
    warm_rows: int = option(256, help="For adamw-warm: rows of the sample.", panel=PANEL, minimum=1)
    warm_seed: int = option(0, help="For adamw-warm: seed of the sample.", panel=PANEL)
    head_precision: str = option(
        "full",
        help="Multiply the output layer's gradients of long samples in full precision, or in float8.",
        panel=PANEL,
        choices=HEAD_PRECISIONS,
    )

    def __post_init__(self) -> None:
        check_choices(self)
        for name in ("lr", "weight_decay", "eps"):
            if isinstance(getattr(self, name), bool) or not isinstance(getattr(self, name), int | float):
                raise InputError(f"{name.replace('_', ' ')} must be a number, got {getattr(self, name)!r}")
        if self.warm_rows < 1:
            raise InputError(f"warm rows must be at least 1, got {self.warm_rows}")
        if self.update != WARM and (self.warm_rows, self.warm_seed) != (256, 0):
            raise InputError(f"warm rows and warm seed are for update {WARM}, got update {self.update}")
        if self.head_precision == "float8":
            if self.update not in ("adamw", "sign"):
                raise InputError(f"head precision float8 is for update adamw or sign, got {self.update}")
            if self.storage_dtype is not None:
                raise InputError(f"head precision float8 is without a storage dtype, got {self.storage_dtype}")
        if not 0.0 < self.lr < float("inf"):
            raise InputError(f"lr must be finite and > 0, got {self.lr}")
        if not 0.0 <= self.weight_decay < float("inf"):
            raise InputError(f"weight decay must be finite and ≥ 0, got {self.weight_decay}")
        if not 0.0 < self.eps < float("inf"):
            raise InputError(f"eps must be finite and > 0, got {self.eps}")

    def as_dict(self) -> dict[str, Any]:
        """A JSON-able record of the settings, without those that the update does not have or that change nothing."""
        found = asdict(self)
        if self.head_precision == "full":  # as in folders and studies that are older than it
            del found["head_precision"]
        return found if self.update == WARM else {name: found[name] for name in found if not name.startswith("warm_")}

    def rule(self) -> Update:
        """The update rule, as ``don_nod`` takes it.

        Raises:
            InputError: the update needs a state.
        """
        from donod_fast.kernels import SGD, AdamW, Sign

        if self.update == WARM:
            raise InputError(
                f"update {WARM} needs a state from a corpus: score into a folder, or call Scorer.warmed(corpus) first"
            )
        rules: dict[str, Update] = {"adamw": AdamW(eps=self.eps), "sgd": SGD(), "sign": Sign()}
        return rules[self.update]

    def rounding(self) -> torch.dtype | None:
        """The dtype that W′ is rounded to before the norms, as ``don_nod`` takes it."""
        import torch

        return None if self.storage_dtype is None else getattr(torch, self.storage_dtype)


@dataclass(frozen=True, slots=True)
class ComputeSettings:
    """How the device is used. No score depends on it beyond rounding.

    Attributes:
        token_budget: slots of a batch, padding included; None to find it from free memory.
        workspace: memory in MiB that the head computation may use.
        backend: kernels of the head.
        packing: whether samples are packed without padding.
        compile: whether the decoder is compiled; ``"auto"`` decides by device and rows.

    Raises:
        InputError: names the setting with a wrong value.
    """

    token_budget: int | None = option(
        None, help="Token slots of a batch, padding included.", panel=RUNNING, shown="from free memory"
    )
    workspace: int = option(256, help="Memory in MiB that the head computation may use.", panel=RUNNING)
    backend: str = option(
        "auto", help="Kernels of the head: auto, torch, inductor or triton.", panel=RUNNING, choices=BACKENDS
    )
    packing: str = option("auto", help="Pack samples without padding: auto, on or off.", panel=RUNNING, choices=SWITCH)
    compile: str = option(
        "auto", help="Compile the decoder first: auto (for large corpora), on or off.", panel=RUNNING, choices=SWITCH
    )

    def __post_init__(self) -> None:
        check_choices(self)

    @property
    def workspace_bytes(self) -> int:
        """Memory in bytes that the head computation may use."""
        return self.workspace * MIB


@dataclass(frozen=True, slots=True)
class ColumnSettings:
    """Further columns of the scores.

    Attributes:
        carry: names of record columns to keep in the scores, separated by commas.
        signals: names of further criteria, separated by commas.
        reference: reference sets of the criteria that compare with one: files, globs or hub ids.
        allow_overlap: score even if rows of a reference set are in the data.
        ifd_prefix: what stands before the lone answer of ``ifd``, see :mod:`donod_fast.criteria.ifd`.

    Raises:
        InputError: ``carry`` is not a list of distinct names, or a reference set is given without criteria.
    """

    carry: str | None = option(
        None,
        help="Record columns to keep in the scores, for select --by, for example source,lang.",
        panel=PANEL,
    )
    signals: str | None = option(
        None,
        help="Further criteria, as additional columns: perplexity, el2n, grand, ifd, embedding, length; with "
        "--reference also rds, bm25, less-head, less-head-max, influence, influence-max. A folder that is already "
        "scored gets the columns added.",
        panel=PANEL,
    )
    reference: tuple[str, ...] = option(
        (), help="Reference set to compare with: a file, glob or hub id; may be repeated.", panel=PANEL
    )
    allow_overlap: bool = option(False, help="Score even if rows of a reference set are in the data.", panel=PANEL)
    ifd_prefix: str | None = option(
        None, help="What stands before the lone answer of ifd: none, bos, header or response.", panel=PANEL,
        choices=("none", "bos", "header", "response"), shown="the row's own begin token, if it has one",
    )  # fmt: skip

    def __post_init__(self) -> None:
        names = self.carried
        if not all(names) or len(set(names)) < len(names):
            raise InputError(
                f"--carry takes distinct column names separated by commas, for example source,lang; got {self.carry!r}"
            )
        if self.carry is not None and hide(self.carry) != self.carry:
            raise InputError(f"--carry takes names of columns, not a URL: {hide(self.carry)}")
        if self.reference and self.signals is None:
            raise InputError("--reference needs a criterion that uses a reference set: add for example --signals rds")
        if self.ifd_prefix is not None and self.signals is None:
            raise InputError("--ifd-prefix is used only by the signal ifd: add --signals ifd")

    @property
    def carried(self) -> tuple[str, ...]:
        """The names in ``carry``."""
        return () if self.carry is None else tuple(name.strip() for name in self.carry.split(","))

    def criteria(self) -> tuple[Criterion, ...]:
        """The further criteria. Raises InputError, CorpusError: see ``criteria.registry.parse_signals``."""
        if self.signals is None:
            return ()
        from donod_fast.criteria.registry import SignalOptions, parse_signals

        return parse_signals(self.signals, SignalOptions(self.reference, self.ifd_prefix))


@dataclass(frozen=True, slots=True)
class CheckSettings:
    """What ``donod-fast check`` compares.

    Attributes:
        data: rows to check on, None for built-in sentences.
        rows: rows of ``data`` for the errors.
        against: dtype, or other model, whose ranking of ``data`` is compared; None for none.
        agreement_rows: rows of ``data`` for the ranks.
        min_spearman: smallest rank correlation of DON and NOD that passes.
        naive: whether to show the errors of the straightforward program as well.
        head_precision: what is checked, see :class:`UpdateSettings`.
    """

    data: str | None = option(None, help="Rows to check on.", panel="Input", shown="built-in sentences")
    rows: int = option(8, help="Rows of DATA for the errors.", panel=CHECKING, minimum=1)
    against: str | None = option(
        None, help="Compare the ranks of DATA with those of this dtype, or of this other model.", panel=CHECKING
    )
    agreement_rows: int = option(200, help="Rows of DATA for the ranks.", panel=CHECKING, minimum=3)
    min_spearman: float = option(0.99, help="Smallest rank correlation of DON and NOD that passes.", panel=CHECKING)
    naive: bool = option(True, help="Also show the errors of the straightforward program.", panel=CHECKING)
    head_precision: str = option(
        "full",
        help="Check the output layer's gradients in full precision, or in float8 (with DATA of long rows).",
        panel=CHECKING,
        choices=HEAD_PRECISIONS,
    )

    def __post_init__(self) -> None:
        check_choices(self)


__all__ = [
    "BACKENDS",
    "DEFAULT_NORMALISE",
    "HEAD_PRECISIONS",
    "NORMALISATIONS",
    "REDUCTIONS",
    "STORAGE_DTYPES",
    "UPDATES",
    "WARM",
    "CheckSettings",
    "ColumnSettings",
    "ComputeSettings",
    "UpdateSettings",
]
