"""What is read, and how its rows become tokens and masks: settings as options."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from donod_fast.data.column_map import ColumnMap
from donod_fast.data.mask_profiles.names import PROFILES
from donod_fast.data.read_rules import ReadRules
from donod_fast.data.token_rules import DTYPES, TokenRules
from donod_fast.errors import InputError, suggest
from donod_fast.system.limits import EXPANSION, MIB, RECORD_MIB, ReadLimits
from donod_fast.system.options import option, python_only
from donod_fast.system.places import hidden_names

PANEL = "Input"
STDIN = "-"
"""Name of standard input among the inputs."""


@dataclass(frozen=True, slots=True)
class CorpusSettings:
    """Which rows are read.

    Attributes:
        data: files, globs, URLs, saved datasets, hub ids, or ``-`` for standard input; in this order. Empty for the
            file of ``MaskSettings.dataset``, see :func:`with_data`.
        split: split of saved and hub datasets.
        data_revision: revision of hub datasets, version or tag of Lance datasets; None for the newest.
        token_dtype: type of the numbers in files of tokens without a header.
        document_end, document_begin: tokens between two documents, for files of tokens without metadata.
        path_columns: names of the levels of folders in a tree of Parquet files, with commas between; see
            :mod:`donod_fast.data.reading.trees`.
        max_record_size: largest record in MiB; a larger one gets a status.
        max_expansion: how many times its stored size a compressed file may give.
    """

    data: tuple[str, ...] = option(
        (),
        help="Files, globs, URLs (s3://…), saved datasets, folders of Parquet, a hub id, or - for standard input.",
        panel=PANEL,
        is_argument=True,
    )
    split: str = option("train", help="Split of a saved or hub dataset.", panel=PANEL)
    data_revision: str | None = option(
        None, help="Revision of a hub dataset; version or tag of a Lance dataset, latest for the newest.", panel=PANEL
    )
    token_dtype: str | None = option(
        None, help="Type of tokens in .npy files without a header.", panel=PANEL, choices=DTYPES
    )
    document_end: int | None = option(
        None, help="Token that ends a document in .npy files without metadata.", panel=PANEL, minimum=0
    )
    document_begin: int | None = option(
        None, help="Token that must follow --document-end, so that a document ends there.", panel=PANEL, minimum=0
    )
    path_columns: str | None = option(
        None,
        help="Name the levels of folders in a tree of Parquet files for `select --by`: category,language.",
        panel=PANEL,
    )

    max_record_size: int = option(
        RECORD_MIB, help="Largest record in MiB; a larger one is not scored.", panel=PANEL, minimum=1
    )
    max_expansion: int = option(
        EXPANSION, help="Refuse a compressed file that gives more times its size.", panel=PANEL, minimum=1
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", hidden_names(self.data))
        _ = self.tokens  # refuses wrong ones

    @property
    def tokens(self) -> TokenRules:
        """What files of tokens do not say themselves. Raises InputError: names the wrong option."""
        return TokenRules(self.token_dtype, self.document_end, self.document_begin)

    @property
    def limits(self) -> ReadLimits:
        """The limits on records and files."""
        return ReadLimits(self.max_record_size * MIB, self.max_expansion)

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
        columns: the columns to read, as ``prompt=question,response=answer``; None finds them by their names.
        dataset_info: LLaMA-Factory's ``dataset_info.json``, which names the columns of ``dataset``.
        dataset: the name of an entry in it.
        preference: which of two answers to score, ``"chosen"`` or ``"rejected"``; None refuses records that have two.
        text_only: score the text of records with images, audio or video; otherwise they are refused.
        like: the trainer whose masks are used, a name of :data:`donod_fast.data.mask_profiles.names.PROFILES`; None for
            our own.
        mapping: what ``columns`` or ``dataset`` name, read already; see :meth:`resolved`.

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

    columns: str | None = option(
        None, help="Columns to read, as prompt=question,response=answer,system=sys.", panel=PANEL,
        shown="found by their names",
    )  # fmt: skip
    dataset_info: Path | None = option(
        None, help="LLaMA-Factory's dataset_info.json, to read the columns of --dataset.", panel=PANEL
    )
    dataset: str | None = option(None, help="Name of the data set in --dataset-info.", panel=PANEL)
    preference: str | None = option(
        None, help="Answer to score where a record has two: chosen or rejected.", panel=PANEL,
        choices=("chosen", "rejected"),
    )  # fmt: skip
    text_only: bool = option(
        False, help="Score the text of records with images, audio or video, which are refused otherwise.", panel=PANEL
    )
    like: str | None = option(
        None, help="Score the tokens that this trainer trains on: " + ", ".join(PROFILES) + ".", panel=PANEL,
        choices=tuple(PROFILES), shown="our own masks",
    )  # fmt: skip
    mapping: ColumnMap | None = python_only(lambda: None)

    def __post_init__(self) -> None:
        if self.like is not None and self.like not in PROFILES:
            raise InputError(f"--like is one of {', '.join(PROFILES)}, not {self.like!r}{suggest(self.like, PROFILES)}")
        if self.like is not None and self.train_on == "last" and not PROFILES[self.like].has_last:
            raise InputError(
                f"--like {self.like} excludes --train-on last: {PROFILES[self.like].trainer} has no such option"
            )
        if self.train_on not in ("all", "last"):
            raise InputError(f"train_on is 'all' or 'last', not {self.train_on!r}")
        if self.max_length is not None and not isinstance(self.max_length, int):
            raise InputError(f"max_length must be a whole number of tokens, not {self.max_length!r}")
        if self.max_length is not None and self.max_length < 2:
            raise InputError(f"max_length must be at least 2 (a token and its target), not {self.max_length}")
        if self.preference not in (None, "chosen", "rejected"):
            raise InputError(f"preference is 'chosen' or 'rejected', not {self.preference!r}")
        if (self.dataset_info is None) != (self.dataset is None):
            raise InputError("--dataset-info and --dataset belong together: name the file, and the data set in it")
        maps = {"--columns": self.columns, "--dataset": self.dataset, "a mapping": self.mapping}
        given = [name for name, value in maps.items() if value is not None]
        if len(given) > 1:
            raise InputError(f"{given[0]} excludes {given[1]}")
        if given and self.format != "auto":
            raise InputError(f"{given[0]} excludes --format: it names the columns to read")
        if self.columns is not None:
            ColumnMap.parse(self.columns)

    def resolved(self) -> MaskSettings:
        """The same with the columns read from where they are named, to be sent to processes elsewhere.

        Raises:
            InputError: the ``dataset_info.json`` cannot be read, or has no such data set.
        """
        if self.columns is not None:
            mapping = ColumnMap.parse(self.columns)
        elif self.dataset_info is not None and self.dataset is not None:
            from donod_fast.data.dataset_info import read_dataset_info

            mapping = read_dataset_info(self.dataset_info, self.dataset)
        else:
            return self
        return replace(self, columns=None, dataset_info=None, dataset=None, mapping=mapping)

    def limited(self, model_length: int | None) -> MaskSettings:
        """The same with a length limit: the given one, else that of the trainer in ``like``, and of the model.

        Args:
            model_length: positions of the model, None if it has no limit.

        Raises:
            InputError: the given limit is more than the model's.
        """
        if self.max_length is None:
            own = None if self.like is None else PROFILES[self.like].max_length
            known = [length for length in (own, model_length) if length is not None]
            return replace(self, max_length=min(known, default=None))
        if model_length is not None and self.max_length > model_length:
            raise InputError(f"max length {self.max_length} is more than the model's own {model_length} positions")
        return self

    def as_key(self) -> dict[str, Any]:
        """What decides tokens and masks, as JSON values; settings of no effect are left out.

        Raises:
            InputError: as :meth:`resolved`.
        """
        further = {"template": self.template, "train_on": self.train_on, "max_length": self.max_length}
        like = {} if self.like is None else {"like": self.like}
        return {**self.rules.as_json(), **further, **like}

    @property
    def rules(self) -> ReadRules:
        """How records are read. Raises InputError as :meth:`resolved`."""
        return ReadRules(self.format, self.resolved().mapping, self.preference, self.text_only)


def with_data(corpus: CorpusSettings, masks: MaskSettings) -> CorpusSettings:
    """The rows to read: those that are named, else the file of the data set in ``dataset_info``.

    Raises:
        InputError: neither is given, or the data set has no file.
    """
    if corpus.data:
        return corpus
    if masks.dataset_info is None or masks.dataset is None:
        raise InputError("name the rows to read as DATA, or a data set with --dataset-info and --dataset")
    from donod_fast.data.dataset_info import data_file

    return replace(corpus, data=(str(data_file(masks.dataset_info, masks.dataset)),))


__all__ = ["STDIN", "CorpusSettings", "MaskSettings", "with_data"]
