"""What is read, and how its rows become tokens and masks: settings as options."""

from __future__ import annotations

from dataclasses import dataclass

from donod_fast.errors import InputError
from donod_fast.system.options import option

PANEL = "Input"
STDIN = "-"
"""Name of standard input among the inputs."""


@dataclass(frozen=True, slots=True)
class CorpusSettings:
    """Which rows are read.

    Attributes:
        data: files, globs, URLs, saved datasets, hub ids, or ``-`` for standard input; in this order.
        split: split of saved and hub datasets.
        data_revision: revision of hub datasets, None for the newest.
    """

    data: tuple[str, ...] = option(
        help="Files, globs, URLs (s3://…), saved datasets, a hub id, or - for standard input.",
        panel=PANEL,
        is_argument=True,
    )
    split: str = option("train", help="Split of a saved or hub dataset.", panel=PANEL)
    data_revision: str | None = option(None, help="Revision of a hub dataset.", panel=PANEL)

    @property
    def reads_stdin(self) -> bool:
        """Whether rows come from standard input."""
        return STDIN in self.data


@dataclass(frozen=True, slots=True)
class MaskSettings:
    """How rows are read and masked.

    Attributes:
        format: a format name of :mod:`donod_fast.data.formats`, or ``"auto"``.
        template: see :func:`donod_fast.data.templates.resolve_template`.
        train_on: ``"all"`` assistant turns of a conversation, or only the ``"last"`` one.
        max_length: tokens kept of a row, from its start; None keeps all.

    Raises:
        InputError: names the setting with a wrong value.
    """

    format: str = option("auto", help="Record format; auto finds it from the columns of each record.", panel=PANEL)
    template: str = option(
        "auto", help="Chat template: auto, tokenizer, alpaca, chatml, llama2, vicuna, plain, or a .jinja file.",
        panel=PANEL,
    )  # fmt: skip
    train_on: str = option(
        "all", help="Score all assistant turns (all) or only the last one (last).", panel=PANEL, choices=("all", "last")
    )
    max_length: int | None = option(
        None, help="Truncate rows to this many tokens.", panel=PANEL, shown="the model's limit"
    )

    def __post_init__(self) -> None:
        if self.train_on not in ("all", "last"):
            raise InputError(f"train_on is 'all' or 'last', not {self.train_on!r}")
        if self.max_length is not None and self.max_length < 2:
            raise InputError(f"max_length must be at least 2 (a token and its target), not {self.max_length}")


__all__ = ["STDIN", "CorpusSettings", "MaskSettings"]
