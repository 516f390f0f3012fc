"""The stated limits on what is read: whatever an input says, memory and time stay within them.

Inputs come from other people. Each limit is far above what an honest file needs; two of them are options, for honest
files that need more. A row beyond a limit gets a status, a file beyond one is refused by name, each in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from donod_fast.errors import InputError

MIB = 1 << 20

RECORD_MIB = 32
"""Largest record in MiB: a line of JSON Lines, a row of CSV, an element of a JSON array. ``--max-record-size``."""

EXPANSION = 200
"""How many times its stored size a compressed file may give. ``--max-expansion``. Text gives 3 to 20 times its size."""

FREE_BYTES = 64 * MIB
"""What any compressed file may give, whatever its stored size."""

DOCUMENT_RECORDS = 16
"""A JSON file that is one object is loaded whole: it may be this many times the largest record (512 MiB)."""

SPARSE_BYTES = 16 << 30
"""Bytes of a file that may be holes, which were never written. They cost no disk, but time."""

FREE_ROWS = 1 << 26
"""Rows that any Parquet file may have, and as many for each of its bytes as ``--max-expansion`` says."""

PAGE_BYTES = 256 * MIB
"""Largest page of a Parquet file: a page is decompressed as a whole. Writers make pages of about 1 MiB."""

MESSAGES = 10_000
"""Most messages of one conversation, where the template marks what the assistant writes."""

UNMARKED_MESSAGES = 2000
"""The same where it does not: such a template writes the conversation again for each turn."""

TEMPLATE_CHARACTERS = MIB
"""Longest chat template, in characters."""

RENDER_STEPS = 250_000
"""Rounds of loops and calls of macros in which a chat template must write a conversation."""

STEPS_PER_MESSAGE = 1000
"""Further rounds for each message of the conversation."""

RENDER_CHARACTERS = 16 * MIB
"""Characters that a chat template may write for one conversation, and as many that it may make on the way."""

LENGTH_PER_CHARACTER = 16
"""Further characters that it may write for each one of the conversation."""

CHARACTERS_PER_CHARACTER = 1024
"""Further characters that it may make on the way for each one of the conversation."""

TOKENS_OF_A_LETTER = 4096
"""Most tokens that a tokenizer may make of one letter."""

SMALL_FILE_BYTES = 16 * MIB
"""Largest ``config.json`` or ``dataset_info.json``."""

YAML_BYTES = MIB
"""Largest recipe or file of options."""

YAML_NODES = 50_000
"""Values in a YAML file; one that is named again by an alias counts again."""

YAML_DEPTH = 50
"""Deepest nesting of a YAML file."""

BENCHMARK_BYTES = 1 << 30
"""Largest file of problems or samples, uncompressed; it is read whole."""


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """The limits on inputs that are options.

    Attributes:
        record_bytes: bytes of the largest record; a larger one is a row that cannot be parsed.
        expansion: how many times its stored size a compressed file may give; more is refused.

    Raises:
        InputError: a limit below 1.
    """

    record_bytes: int = RECORD_MIB * MIB
    expansion: int = EXPANSION

    DEFAULT: ClassVar[ReadLimits]

    def __post_init__(self) -> None:
        if self.record_bytes < 1 or self.expansion < 1:
            raise InputError("the limits on inputs must be at least 1")

    @property
    def document_bytes(self) -> int:
        """Bytes of the largest JSON file that is loaded whole."""
        return self.record_bytes * DOCUMENT_RECORDS

    def plain_bytes(self, stored: int) -> int:
        """Bytes that a compressed file may give."""
        return FREE_BYTES + self.expansion * stored

    def as_json(self) -> dict[str, Any]:
        """The limits that are not the usual ones."""
        usual = ReadLimits.DEFAULT
        return {
            name: getattr(self, name)
            for name in ("record_bytes", "expansion")
            if getattr(self, name) != getattr(usual, name)
        }

    @staticmethod
    def from_json(content: dict[str, Any] | None) -> ReadLimits:
        """Read the output of :meth:`as_json`."""
        return ReadLimits(**content) if content else ReadLimits.DEFAULT

    @property
    def too_large(self) -> str:
        """What to say of a record that is too large, after its size."""
        allowed = self.record_bytes / MIB
        return f"more than the {allowed:,.0f} MiB allowed; raise --max-record-size if it is wanted"


ReadLimits.DEFAULT = ReadLimits()

__all__ = [
    "BENCHMARK_BYTES",
    "CHARACTERS_PER_CHARACTER",
    "DOCUMENT_RECORDS",
    "EXPANSION",
    "FREE_BYTES",
    "FREE_ROWS",
    "LENGTH_PER_CHARACTER",
    "MESSAGES",
    "MIB",
    "PAGE_BYTES",
    "RECORD_MIB",
    "RENDER_CHARACTERS",
    "RENDER_STEPS",
    "SMALL_FILE_BYTES",
    "SPARSE_BYTES",
    "STEPS_PER_MESSAGE",
    "TEMPLATE_CHARACTERS",
    "TOKENS_OF_A_LETTER",
    "UNMARKED_MESSAGES",
    "YAML_BYTES",
    "YAML_DEPTH",
    "YAML_NODES",
    "ReadLimits",
]
