"""Small files of AGIEval and IFEval, and models without weights that answer their questions."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ifeval_cases import following

from donod_fast.evaluation.harness.agieval import SETS, SHOTS_FILE, Question
from donod_fast.evaluation.harness.tasks import LOGLIKELIHOOD

Record = dict[str, Any]


def question(number: int, options: int = 4) -> Record:
    """A question in the form of AGIEval's files."""
    letters = "ABCDE"[:options]
    return {
        "passage": f"{number} birds sit on a tree." if number % 2 else None,
        "question": f"How many birds are {number} and one?",
        "options": [f"({letter}){number + at} birds" for at, letter in enumerate(letters)],
        "label": letters[number % options],
        "answer": None,
        "other": None,
    }


def write_agieval(folder: Path, number: int = 5, shots: int = 3) -> Path:
    """A folder with all seven sets and the solved questions."""
    folder.mkdir(exist_ok=True)
    for name in SETS:
        write_set(folder, name, [question(at) for at in range(number)])
    rows: list[list[str]] = [["", *SETS]]
    for shot in range(shots):
        rows.append([f"sample {shot + 1}", *(repr(question(90 + shot)) for _ in SETS)])
        rows.append([f"explanation {shot + 1}", *("It is so." for _ in SETS)])
    with (folder / SHOTS_FILE).open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


def write_set(folder: Path, name: str, records: Sequence[Mapping[str, Any]]) -> None:
    """The file of a set."""
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))


INSTRUCTIONS: Sequence[tuple[str, Record]] = (
    ("punctuation:no_comma", {}),
    ("keywords:existence", {"keywords": ["bird"]}),
    ("length_constraints:number_words", {"relation": "at least", "num_words": 5}),
    ("detectable_format:title", {}),
)


def write_ifeval(path: Path, number: int = 4) -> Path:
    """A file of prompts with one instruction each."""
    some = [INSTRUCTIONS[at % len(INSTRUCTIONS)] for at in range(number)]
    records = [
        {"key": 1000 + at, "prompt": f"Write text {at}.", "instruction_id_list": [kind], "kwargs": [arguments]}
        for at, (kind, arguments) in enumerate(some)
    ]
    path.write_text("".join(json.dumps(one) + "\n" for one in records))
    return path


class Oracle:
    """A model that gives the right answers, and counts what it is asked.

    Attributes:
        asked: places of the items that were asked, by task, in order.
    """

    def __init__(self, right: Callable[[Any], bool] = lambda item: True, stop_after: int | None = None) -> None:
        self.asked: list[tuple[str, int]] = []
        self._right, self._left = right, stop_after
        self.tasks: dict[str, Any] = {}

    def size(self, requests: Sequence[Any], style: str) -> tuple[int, bool]:
        """As many tokens as characters; prompts of items at odd places are cut."""
        return len(requests[0].args[0]), requests[0].doc_id % 2 == 1

    def together(self, style: str, longest: int) -> int:
        """As on a CPU."""
        return 16

    def answers(self, requests: Sequence[Any], style: str, longest: int) -> list[Any]:
        """The right option is the likeliest; the letter, or a response that follows the instructions, is written."""
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise KeyboardInterrupt
        return [self._answer(one, style) for one in requests]

    def _answer(self, request: Any, style: str) -> Any:
        item = self.tasks[request.task_name].items[request.doc_id]
        key = (request.task_name, request.doc_id)
        if key not in self.asked:
            self.asked.append(key)
        right = self._right(item)
        if isinstance(item, Question):
            if style == LOGLIKELIHOOD:
                return (-1.0 if (request.idx == item.gold) == right else -50.0, False)
            return f"({item.letters[item.gold if right else item.gold - 1]})"
        only = item.instructions[0]
        return following(only.kind, only.arguments) if right else " "


__all__ = ["INSTRUCTIONS", "Oracle", "question", "write_agieval", "write_ifeval", "write_set"]
