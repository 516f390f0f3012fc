"""What a manifest may hold: types and bounds of every entry that a reader uses, checked when a manifest is read.

Entries that nothing here names are kept as they are: other releases may write more.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from donod_fast.data.reading.kinds import FILE_KINDS, needed_entries
from donod_fast.system.checked_json import DamagedError

_MOST_ROWS = 1 << 48
_MOST_PARTS = 10_000_000

_Count = Annotated[int, Field(ge=0, le=_MOST_ROWS)]
_Number = Annotated[float, Field(allow_inf_nan=False)]
_Hash = Annotated[str, Field(min_length=1, max_length=256)]
_Compression = Literal["gzip", "zstd"]


class _Section(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class _Input(_Section):
    """One input of the corpus."""

    kind: str
    name: str
    rows: _Count
    digest: _Hash
    path: str | None = None
    url: str | None = None
    id: str | None = None
    split: str | None = None
    revision: str | None = None
    compression: _Compression | None = None
    size: _Count | None = None
    stamp: str | None = None
    sha256: _Hash | None = None
    footer_sha256: _Hash | None = None
    row_groups: list[_Count] | None = None


class _Corpus(_Section):
    rows: _Count
    fingerprint: _Hash
    inputs: list[_Input] | None = None


class _Plan(_Section):
    file: Annotated[str, Field(pattern=r"^plan(-g[0-9]{1,9})?\.parquet$")]
    parts: _Count
    sha256: _Hash | None = None


class _Model(_Section):
    weight_norm: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    name: str | None = None
    fingerprint: str | None = None
    revision: str | None = None
    dtype: str | None = None
    precision: str | None = None


class _Update(_Section):
    storage_dtype: str | None
    update: str | None = None
    lr: _Number | None = None
    weight_decay: _Number | None = None
    eps: _Number | None = None
    reduction: Literal["mean", "sum"] | None = None
    warm_rows: _Count | None = None
    warm_seed: int | None = None
    warm_state: _Hash | None = None
    head_precision: Literal["full", "float8"] | None = None


class _Head(_Section):
    bias: bool = False
    logit_scale: _Number = 1.0
    softcap: _Number | None = None


class _Masks(_Section):
    format: str = "auto"
    columns: dict[str, Any] | None = None
    preference: Literal["chosen", "rejected"] | None = None
    text_only: bool | None = None
    template: str | None = None
    template_sha256: str | None = None
    train_on: Literal["all", "last"] | None = None
    max_length: _Count | None = None
    vocab_size: _Count | None = None
    like: str | None = None


class _Column(_Section):
    """A column of a criterion."""

    model_config = ConfigDict(strict=True, extra="forbid")

    name: Annotated[str, Field(min_length=1)]
    text: str
    better: Literal["high", "low"] | None = None
    kind: Literal["number", "flag", "vector"] = "number"
    size: Annotated[int, Field(ge=1, le=1 << 24)] = 1


class _Signal(_Section):
    model_config = ConfigDict(strict=True, extra="forbid")

    name: Annotated[str, Field(min_length=1)]
    settings: dict[str, Any]
    fingerprint: _Hash
    columns: list[_Column]


class _Before(_Section):
    """What a revision replaces."""

    input: _Corpus
    plan: _Plan
    generation: _Count | None = None


class _Manifest(_Section):
    version: int
    input: _Corpus
    part_rows: Annotated[int, Field(ge=1, le=_MOST_ROWS)]
    model: _Model
    update: _Update
    head: _Head | None = None
    masks: _Masks | None = None
    mask: str | None = None
    carry: list[str] | None = None
    signals: list[_Signal] | None = None
    plan: _Plan | None = None
    generation: _Count | None = None
    before: _Before | None = None
    token_budget: Annotated[int, Field(ge=1)] | None = None
    created: str | None = None
    versions: dict[str, str] | None = None
    options: dict[str, Any] | None = None
    token_losses: bool | None = None
    older_parts: bool | None = None


def check_manifest(content: dict[str, Any]) -> None:
    """Check the types and bounds of a manifest's entries.

    Raises:
        DamagedError: names the first entry that does not fit, and what it must be.
    """
    try:
        found = _Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise DamagedError(f"{'.'.join(map(str, first['loc']))}: {_plain(first)}") from None
    if found.plan is not None and found.input.inputs is None:
        raise DamagedError("input.inputs: it is missing")
    _check_rows("input", found.input)
    if found.before is not None:
        _check_rows("before.input", found.before.input)
    if found.plan is None and found.input.rows // found.part_rows > _MOST_PARTS:
        raise DamagedError(f"part_rows: {found.part_rows} gives more than {_MOST_PARTS:,} parts")


def _check_rows(name: str, corpus: _Corpus) -> None:
    if corpus.inputs is None:
        return
    rows = sum(entry.rows for entry in corpus.inputs)
    if rows != corpus.rows:
        raise DamagedError(f"{name}.rows: {corpus.rows:,}, but its inputs have {rows:,} rows")
    for at, entry in enumerate(corpus.inputs):
        if entry.kind not in _NEEDED:
            raise DamagedError(f"{name}.inputs.{at}.kind: known are {', '.join(_NEEDED)}, got {entry.kind!r}")
        lacking = [key for key in _NEEDED[entry.kind] if getattr(entry, key) is None]
        if lacking:
            raise DamagedError(f"{name}.inputs.{at}.{lacking[0]}: it is missing")
        if entry.kind in FILE_KINDS:
            if entry.path is None and entry.url is None:
                raise DamagedError(f"{name}.inputs.{at}.path: it is missing")
            if entry.sha256 is None and entry.footer_sha256 is None:
                raise DamagedError(f"{name}.inputs.{at}.sha256: it is missing")
        if entry.row_groups is not None and sum(entry.row_groups) not in (0, entry.rows):
            raise DamagedError(f"{name}.inputs.{at}.row_groups: they do not have its {entry.rows:,} rows")


_NEEDED = needed_entries()
"""Entries that each kind of input needs."""


def _plain(error: Any) -> str:
    """The reason in our words; pydantic's begin with a capital."""
    value = repr(error["input"])
    if error["type"] == "missing":
        return "it is missing"
    return f"{error['msg'][:1].lower()}{error['msg'][1:]}, got {value if len(value) <= 60 else value[:57] + '…'}"


__all__ = ["check_manifest"]
