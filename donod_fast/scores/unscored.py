"""Why rows have no score: the commonest cause in a scores folder, with an example and a remedy."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from dataclasses import dataclass

from donod_fast.data.types import Status
from donod_fast.scores.folder import ScoresFolder

REMEDIES = {
    Status.NOT_PARSABLE: "repair or remove these rows; JSON Lines has one JSON object per line, in UTF-8",
    Status.UNKNOWN_FORMAT: "name the columns to read with --columns, or the format with --format",
    Status.EMPTY_RESPONSE: "add the missing responses, or remove these rows",
    Status.TEMPLATE_FAILED: "choose another chat template with --template",
    Status.REASONING_DROPPED: "choose a chat template that writes the reasoning, or remove it from the records",
    Status.TOKENIZER_FAILED: "remove the text that the tokenizer cannot read",
    Status.INVALID_TOKENS: "tokenize the rows with this model's tokenizer",
    Status.PROMPT_NOT_PREFIX: "move white space from the end of the prompt to the start of the response",
    Status.ALL_MASKED: "check that the rows have a response to score, and that no flag leaves it out (see --train-on)",
    Status.ALL_SCORED: "choose a chat template that writes the prompt (--template)",
    Status.TOO_LONG: "shorten the prompts, or raise --max-length if the model allows it",
    Status.NON_FINITE: "use a wider dtype (--dtype float32), or remove these rows",
    Status.OUT_OF_MEMORY: "lower --max-length, or use a device with more memory",
    Status.WORKER_LOST: "see `donod-fast status` for the cause, or remove these rows",
    Status.NOT_SEEN: "read the scores of an earlier epoch, or of all rows before training",
}
"""What to do about each status."""

_ORIGIN = re.compile(r"^.*?, (?:line|record|row|item) [\d,]+: ")
_NUMBER = re.compile(r"\d+")
_OWN_REMEDY = re.compile(r"[;:,] (?:so )?(?:--\w|choose |convert |give |let |raise |remove |split )")


@dataclass(frozen=True, slots=True)
class Cause:
    """The commonest reason why rows of a folder have no score.

    Attributes:
        status: the status that most of them have.
        rows: how many rows have it.
        example: the detail of a row with the commonest cause: file, place in the file, cause.
        remedy: what to do; ``""`` if the example says so itself.
        look: command that shows such rows; ``""`` if the rows were given from Python.
    """

    status: str
    rows: int
    example: str
    remedy: str
    look: str = ""

    def text(self) -> str:
        """As one line."""
        remedy = self.remedy and f"; {self.remedy}"
        look = self.look and f"; look at them: {self.look}"
        return f"{self.rows:,} {self.status}, for example {self.example}{remedy}{look}"


def commonest_cause(folder: ScoresFolder) -> Cause | None:
    """Find the commonest cause; it reads the footers of all parts and the rows of one part.

    Among the rows of the commonest status, causes are counted in the first part that has this status.

    Returns:
        The cause, None if every row has a score.

    Raises:
        StoreError: a part is damaged.
    """
    summaries = [summary for summary in folder.summaries() if summary is not None]
    counts: Counter[str] = Counter()
    for summary in summaries:
        counts.update({status: rows for status, rows in summary.counts.items() if status != Status.SCORED})
    if not counts:
        return None
    status, rows = max(counts.items(), key=lambda pair: (pair[1], pair[0]))
    first = next(summary.number for summary in summaries if summary.counts.get(status))
    table = folder.read_part(first)
    assert table is not None, "its summary was read just now"
    found = zip(table.column("status").to_pylist(), table.column("detail").to_pylist(), strict=True)
    details = [str(detail) for one, detail in found if one == status]
    kinds = Counter(map(kind_of, details))
    commonest = kinds.most_common(1)[0][0]
    example = next(detail for detail in details if kind_of(detail) == commonest)
    remedy = remedy_for(status, example)
    return Cause(status, rows, example, remedy, show_command(folder, status))


def show_command(folder: ScoresFolder, status: str | None = None) -> str:
    """The command that shows rows of a folder as the model sees them; ``""`` if the rows were given from Python."""
    inputs = folder.manifest["input"].get("inputs") or ()
    if not inputs or any(entry.get("kind") == "rows" for entry in inputs):
        return ""
    return f"donod-fast show --scores {shlex.quote(folder.name)}" + ("" if status is None else f" --status {status}")


def remedy_for(status: str, example: str) -> str:
    """What to do about rows of a status with this detail; ``""`` if the detail says so itself."""
    return "" if _OWN_REMEDY.search(example) else REMEDIES[Status(status)]


def kind_of(detail: str) -> str:
    """A detail without its place and its numbers: equal for rows that have the same cause."""
    return _NUMBER.sub("#", _ORIGIN.sub("", detail))


def place_in(detail: str) -> tuple[str, str]:
    """A detail in two parts: file and place in it, and the cause; the first is "" where the detail names no place."""
    found = _ORIGIN.match(detail)
    return ("", detail) if found is None else (found[0].removesuffix(": "), detail[found.end() :])


__all__ = ["REMEDIES", "Cause", "commonest_cause", "kind_of", "place_in", "remedy_for", "show_command"]
