"""Damage files at random and see what their readers do with them.

A reader of a damaged file must give what it gives for the whole file, or one of the package's own errors. Anything else
got through: another output (silent wrongness), or an exception that the command line would call an internal error.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from donod_fast.errors import DonodError

Reader = Callable[[], bytes]
"""Runs a consumer of the files and returns everything that it gives its user."""


@dataclass
class Outcomes:
    """What came of the trials.

    Attributes:
        tried: number of trials.
        errors: trials that ended with one of the package's own errors, by reader.
        through: one line for each trial that got through.
    """

    tried: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    through: list[str] = field(default_factory=list)


def damaged(content: bytes, draw: random.Random) -> tuple[str, bytes]:
    """The content with one random injury, and the injury's name."""
    size = len(content)
    at = draw.randrange(size) if size else 0
    match draw.choices(("bit", "byte", "cut", "longer", "swapped", "zeros"), (60, 14, 8, 4, 8, 6))[0] if size else "":
        case "bit":
            bit = draw.randrange(8)
            return f"bit {bit} of byte {at}", content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]
        case "byte":
            return f"byte {at}", content[:at] + bytes([draw.randrange(256)]) + content[at + 1 :]
        case "cut":
            return f"cut at {at}", content[:at]
        case "swapped":
            length = draw.randint(1, 16)
            a, b = sorted((at, draw.randrange(size)))
            b = max(b, a + length)
            pieces = content[:a], content[b : b + length], content[a + length : b], content[a : a + length]
            return f"{length} bytes at {a} and {b} swapped", b"".join(pieces) + content[b + length :]
        case "zeros":
            length = draw.randint(1, 64)
            return f"zeros at {at}", (content[:at] + bytes(length) + content[at + length :])[:size]
        case _:
            return "longer", content + draw.randbytes(draw.randint(1, 64))


@contextmanager
def injury(file: Path, content: bytes) -> Iterator[None]:
    """Give a file other content of the same time stamp, and put the old content back at the end."""
    before, stat = file.read_bytes(), file.stat()
    times = (stat.st_atime_ns, stat.st_mtime_ns)
    try:
        file.write_bytes(content)
        os.utime(file, ns=times)
        yield
    finally:
        file.write_bytes(before)
        os.utime(file, ns=times)


def attack_files(
    files: Callable[[], Sequence[Path]],
    readers: Mapping[str, tuple[Reader, int]],
    trials: int,
    seed: int,
    restore: Callable[[], None] | None = None,
    *,
    same_size: bool = False,
) -> Outcomes:
    """Damage one file a trial and let one reader read it.

    Args:
        files: lists the files; called for each trial. Each is hit equally often, whatever its size.
        readers: readers by name, each with its weight; called once before, for what they give of whole files.
        trials: number of trials.
        seed: decides everything.
        restore: puts the files back after readers that write.
        same_size: only injuries that keep the size.
    """
    draw = random.Random(seed)
    wanted = {name: reader() for name, (reader, _) in readers.items()}
    found = Outcomes()
    names, weights = list(readers), [weight for _, weight in readers.values()]
    while found.tried < trials:
        file = draw.choice(list(files()))
        whole = file.read_bytes()
        what, content = damaged(whole, draw)
        if content == whole or (same_size and len(content) != len(whole)):
            continue
        name = draw.choices(names, weights)[0]
        found.tried += 1
        with injury(file, content):
            outcome = outcome_of(readers[name][0], wanted[name])
            if restore is not None:
                restore()
        if outcome == "error":
            found.errors[name] += 1
        elif outcome:
            found.through.append(f"{file.name}, {what}: {name} {outcome}")
    return found


def outcome_of(reader: Reader, wanted: bytes) -> str:
    """Empty if the reader gives what is wanted, ``"error"`` for the package's own error, else what got through."""
    try:
        given = reader()
    except DonodError as error:
        return "error" if str(error).strip() else "gave an error without words"
    except Exception as error:
        return f"raised {type(error).__name__}: {error}"
    return "" if given == wanted else "gave another output in silence"
