"""What a file of tokens does not say itself: the type of its numbers, and the tokens between documents."""

from __future__ import annotations

from dataclasses import dataclass

from donod_fast.errors import InputError, suggest

DTYPES = ("uint8", "uint16", "uint32", "uint64")
"""Types of tokens: OLMo-core takes the smallest one that holds the vocabulary."""


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What a file of tokens does not say itself.

    Attributes:
        dtype: the type of its tokens, one of ``DTYPES``; None if only files with a header are read.
        end: the token that ends a document, for files without metadata.
        begin: the token that must follow, so that ``end`` ends a document; None if any may.

    Raises:
        InputError: an unknown type, a token below 0, or ``begin`` without ``end``.
    """

    dtype: str | None = None
    end: int | None = None
    begin: int | None = None

    def __post_init__(self) -> None:
        if self.dtype is not None and self.dtype not in DTYPES:
            raise InputError(
                f"--token-dtype is one of {', '.join(DTYPES)}, not {self.dtype!r}{suggest(self.dtype, DTYPES)}"
            )
        for option, token in (("--document-end", self.end), ("--document-begin", self.begin)):
            if token is not None and token < 0:
                raise InputError(f"{option} is the number of a token, not {token}")
        if self.begin is not None and self.end is None:
            raise InputError("--document-begin belongs to --document-end: name the token before it, too")


__all__ = ["DTYPES", "TokenRules"]
