"""The trainers whose masks are known, by the names that ``--like`` accepts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class ProfileFacts:
    """What a trainer does besides its mask.

    Attributes:
        trainer: its name for messages.
        mask: its mask in words.
        max_length: its own length limit in tokens, used where none is given.
        has_last: whether it can train on the last reply alone.
        drops_long: whether it drops rows above the limit; otherwise it cuts them.
        reads_flags: whether it can leave out turns that the record's own flags leave out.
    """

    trainer: str
    mask: str
    max_length: int
    has_last: bool = False
    drops_long: bool = False
    reads_flags: bool = False


PROFILES: Mapping[str, ProfileFacts] = MappingProxyType(
    {
        "trl": ProfileFacts("TRL", "what TRL trains with assistant_only_loss=True", 1024),
        "trl-whole": ProfileFacts("TRL", "what TRL trains by default, whole conversations", 1024),
        "axolotl": ProfileFacts(
            "Axolotl", "what Axolotl's chat_template trains", 512, drops_long=True, reads_flags=True
        ),
        "llama-factory": ProfileFacts("LLaMA-Factory", "what LLaMA-Factory trains", 2048, has_last=True),
    }
)
"""The profiles by name."""

__all__ = ["PROFILES", "ProfileFacts"]
