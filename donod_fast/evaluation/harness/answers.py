"""The letter that a generated answer to a multiple-choice question names.

In this order, and only letters of the question's options count:

1. the last ``answer is X``, ``answer: X`` or ``answer is therefore X``, where X may be in brackets, bold or boxed;
2. the first letter in brackets: ``(C)``;
3. a letter that the text begins with, alone or before a sign: ``C``, ``C.``, ``C)``, ``**C**``;
4. the first letter that stands alone, except the article A.

An answer that names none counts as wrong, and the result says how many did so.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_LONGEST = 20_000
"""Characters of an answer that are looked at."""


def named_letter(answer: str, letters: Sequence[str]) -> str | None:
    """The letter that an answer names, None if it names none."""
    # Runs of white space would make the patterns slow.
    lines = (" ".join(line.split()) for line in answer[:_LONGEST].splitlines())
    text = "\n".join(line for line in lines if line)
    some = "".join(letters)
    decorated = rf"(?:\\boxed\{{)?[\s(*$\"'\[]*([{some}])\b(?!')"
    concluded = re.findall(
        rf"(?i:answer)\s*(?:(?i:is|:|would\s+be)\s*)+(?:(?i:therefore|option|choice)\s*:?\s*)*{decorated}", text
    )
    if concluded:
        return str(concluded[-1])
    for pattern in (rf"\(([{some}])\)", rf"^\W*([{some}])(?:\W*$|[.):,*\n])", rf"\b([{some}])\b(?! [a-z])(?!')"):
        found = re.search(pattern, text)
        if found is not None:
            return found[1]
    return None


__all__ = ["named_letter"]
