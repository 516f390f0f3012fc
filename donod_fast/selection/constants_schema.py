"""What a file of TOPSIS's constants may hold: types and bounds, checked when it is read."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from donod_fast.kernels.topsis import NORMALISATIONS
from donod_fast.system.checked_json import DamagedError

_Count = Annotated[int, Field(ge=0, le=1 << 48)]
_Number = Annotated[float, Field(allow_inf_nan=False)]
_Size = Annotated[float, Field(allow_inf_nan=False, ge=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class _Summary(_Strict):
    nan: _Count
    low: _Number
    high: _Number
    scale: _Size
    squares: _Size
    total: _Number | None
    absolutes: _Size | None

    @model_validator(mode="after")
    def _in_order(self) -> _Summary:
        if self.low > self.high or max(abs(self.low), abs(self.high)) > self.scale * (1 + 1e-12):
            raise ValueError("low, high and scale contradict each other")
        return self


class _Cut(_Strict):
    keep: Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, le=1)]
    closeness: Annotated[float, Field(ge=0, le=1)]
    wanted: _Count
    rows: _Count


class _Constants(_Strict):
    format: str
    version: int
    don: _Summary
    nod: _Summary
    rows: Annotated[int, Field(ge=1, le=1 << 48)]
    weights: Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=2, max_length=2)]
    normalise: str
    per_lr: bool
    settings: dict[str, Any] | None
    cuts: list[_Cut]

    @model_validator(mode="after")
    def _usable(self) -> _Constants:
        if self.don.nan != self.nod.nan or self.don.nan >= self.rows:
            raise ValueError("the numbers of rows contradict each other")
        if self.normalise not in NORMALISATIONS:
            raise ValueError(f"normalise must be one of {', '.join(NORMALISATIONS)}")
        if sum(self.weights) == 0:
            raise ValueError("both weights are zero")
        if self.normalise == "sum" and None in (self.don.absolutes, self.nod.absolutes):
            raise ValueError("the sums of absolute values are missing")
        return self


def checked_constants(content: dict[str, Any]) -> dict[str, Any]:
    """The entries of a file of constants, without its format and version.

    Raises:
        DamagedError: an entry is missing, or has a wrong type or value; names the first.
    """
    try:
        found = _Constants.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise DamagedError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    return found.model_dump(exclude={"format", "version"})


__all__ = ["checked_constants"]
