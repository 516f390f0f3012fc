"""IFEval's prompts (Zhou et al., arXiv 2311.07911): its file ``input_data.jsonl``, read and validated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from donod_fast.errors import CorpusError
from donod_fast.evaluation.harness.instructions.arguments import checked_arguments
from donod_fast.evaluation.harness.instructions.verdict import Instruction
from donod_fast.evaluation.harness.texts import is_text
from donod_fast.evaluation.records import read_records
from donod_fast.system.wording import shown

_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt with its verifiable instructions.

    Attributes:
        index: its place in the file, from 0.
        key: its number in the benchmark.
        text: the prompt.
        instructions: at least one.
        digest: SHA-256 of the record, in hex.
    """

    index: int
    key: int
    text: str
    instructions: tuple[Instruction, ...]
    digest: str


def read_prompts(path: Path) -> list[Prompt]:
    """The prompts, in the order of the file.

    Raises:
        CorpusError: the file cannot be read, or a record lacks a field or has a wrong one; names line and field.
    """
    if path.is_dir():
        raise CorpusError(f"{path} is a folder; --problems takes IFEval's file (input_data.jsonl)")
    return [_prompt(index, line.place, line.data, line.digest) for index, line in enumerate(read_records(path))]


def _prompt(index: int, place: str, data: Mapping[str, Any], digest: str) -> Prompt:
    for field in ("key", "prompt", "instruction_id_list", "kwargs"):
        if field not in data:
            raise CorpusError(f"{place}: {field} is missing; is it IFEval's input_data.jsonl?")
    key, text, kinds, arguments = (data[field] for field in ("key", "prompt", "instruction_id_list", "kwargs"))
    if type(key) is not int:
        raise CorpusError(f"{place}: key is {shown(key, _SHOWN)}, not a number; correct the file")
    if not is_text(text):
        raise CorpusError(f"{place}: prompt is {shown(text, _SHOWN)}, not a text; correct the file")
    if not isinstance(kinds, list) or not kinds:
        raise CorpusError(
            f"{place}: instruction_id_list is {shown(kinds, _SHOWN)}, not a list of names; correct the file"
        )
    if not isinstance(arguments, list) or len(arguments) != len(kinds):
        raise CorpusError(
            f"{place}: kwargs is {shown(arguments, _SHOWN)}, not a list of {len(kinds)} objects; correct the file"
        )
    instructions = tuple(
        Instruction(kind, checked_arguments(place, kind, given)) for kind, given in zip(kinds, arguments, strict=True)
    )
    return Prompt(index, key, text, instructions, digest)


__all__ = ["Prompt", "read_prompts"]
