"""Settings of a benchmark, validated."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from donod_fast.benchmark.corpus import LENGTHS
from donod_fast.errors import InputError
from donod_fast.models.settings import DTYPE_NAMES
from donod_fast.models.shapes import SHAPES
from donod_fast.system.options import option

if TYPE_CHECKING:
    import torch

# A few batches of every kind, so that a round of all programs takes less than a minute on either device.
_TOKENS = {"cuda": 262144, "cpu": 32768}


def _names(given: list[str]) -> tuple[str, ...]:
    """Names that were given one by one, or several at once with commas."""
    return tuple(name for text in given for name in text.split(","))


@dataclass(frozen=True, slots=True)
class BenchmarkSettings:
    """Settings of a benchmark.

    Attributes:
        shapes: names of random-weight models; empty: those that suit the device.
        lengths: names of length profiles, one table for each shape and profile.
        model, data: a user's own model and corpus instead: a folder or hub id, and any input of ``score``.
        rows: rows of the corpus; None: as many as ``tokens`` requires (random), or all (a user's own).
        tokens: tokens of a random corpus; None: 262,144 on an accelerator, 32,768 on a CPU.
        rounds: timed turns of every program.
        seconds: no further round of a table is started after this time.
        loop_seconds: time limit for one turn of the paper's loop or the padded loop; it then processes only the first
            samples, and is compared per token.
        out: folder for the CSV file and the picture.
        device: None: CUDA if available, else the CPU.
        dtype: dtype of the model; ``"auto"`` is float32 on a CPU, else bfloat16 or the dtype of the user's model.

    Raises:
        InputError: a setting has an invalid value; the message names it.
    """

    shapes: tuple[str, ...] = option(
        text=[],
        parse=_names,
        name="shape",
        help=f"Model shapes with random weights: {', '.join(SHAPES)}; a,b for several.",
        panel="Model",
        shown="by device",
    )
    lengths: tuple[str, ...] = option(
        text=[], parse=lambda given: _names(given) or tuple(LENGTHS), help="Row lengths: gsm8k, code.", panel="Input",
        shown="both",
    )  # fmt: skip
    model: str | None = option(None, help="Your own model instead of a shape; needs --data.", panel="Model")
    data: str | None = option(None, help="Your own corpus; needs --model.", panel="Input")
    rows: int | None = option(None, help="Rows of the corpus.", panel="Input")
    tokens: int | None = option(
        None, help="Tokens of a random corpus.", panel="Input", shown="262,144 on a GPU, 32,768 on a CPU"
    )
    rounds: int = option(5, help="Timed runs of each program.", panel="Running")
    seconds: float = option(240.0, help="Start no further round of a table after this many seconds.", panel="Running")
    loop_seconds: float = option(
        15.0, help="Time limit in seconds for one run of the paper's loop or the padded loop.", panel="Running"
    )
    out: Path = option(Path("donod-fast-bench"), help="Folder for the CSV file and the picture.", panel="Output")
    device: str | None = option(
        None, help="Device, for example cuda:1 or cpu.", panel="Model", shown="cuda if available, else cpu"
    )
    dtype: str = option(
        "auto", help="Data type of the weights: auto, float32, bfloat16 or float16.", panel="Model", choices=DTYPE_NAMES
    )

    def __post_init__(self) -> None:
        for what, names, known in (
            ("shape", self.shapes, tuple(SHAPES)),
            ("lengths", self.lengths, tuple(LENGTHS)),
            ("dtype", (self.dtype,), DTYPE_NAMES),
        ):
            for name in names:
                if name not in known:
                    raise InputError(f"{what} must be one of {', '.join(known)}, got {name!r}")
        if (self.model is None) != (self.data is None):
            raise InputError("model and data go together: your own model is timed on your own corpus")
        if self.model is not None and (self.shapes or self.tokens is not None):
            raise InputError("your own model and corpus determine shape and tokens: omit these two settings")
        if self.rows is not None and self.tokens is not None:
            raise InputError("rows and tokens both say how much to score: give one of them")
        for what, number in (("rows", self.rows), ("tokens", self.tokens), ("rounds", self.rounds)):
            if number is not None and number < 1:
                raise InputError(f"{what} must be at least 1, got {number}")

    def place(self) -> torch.device:
        """The device.

        Raises:
            InputError: the device does not exist.
        """
        from donod_fast.models.placement import one_device

        return one_device(self.device)

    def shape_names(self) -> tuple[str, ...]:
        """Shapes to time: the requested ones, else those that suit the device."""
        on_cpu = self.place().type == "cpu"
        return self.shapes or tuple(shape.name for shape in SHAPES.values() if shape.small == on_cpu)

    def corpus_tokens(self) -> int | None:
        """Tokens of a random corpus; None if ``rows`` is given."""
        if self.rows is not None:
            return None
        return self.tokens or _TOKENS["cpu" if self.place().type == "cpu" else "cuda"]


DEFAULTS = BenchmarkSettings()
