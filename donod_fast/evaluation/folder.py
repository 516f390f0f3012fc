"""The folder of an evaluation: ``settings.json``, ``samples.jsonl``, ``verdicts.jsonl`` and finally ``result.json``.

Samples and verdicts are appended during the run, and a restarted run resumes from them. ``settings.json`` records the
settings that produced them; a run with different settings is refused.

Every line and every JSON file has a checksum, and ``result.json`` has one of each other file. A folder of an earlier
release has none: its ``settings.json`` has no version.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from donod_fast.errors import SettingsMismatchError, StoreError
from donod_fast.evaluation.judging import Verdict
from donod_fast.evaluation.lines import checked_lines, drop_torn_line
from donod_fast.evaluation.problems import Problem
from donod_fast.evaluation.samples import Sample, sample_line
from donod_fast.evaluation.stored import sample_of, verdict_of
from donod_fast.evaluation.verdicts import Judgement
from donod_fast.system.checked_files import file_digest
from donod_fast.system.checked_json import DamagedError, checked_line, parsed, verified, with_checksum
from donod_fast.system.files import atomic_writer, read_regular, remove
from donod_fast.system.fingerprints import is_same_model

SETTINGS, SAMPLES, VERDICTS, RESULT, PROBLEMS = (
    "settings.json",
    "samples.jsonl",
    "verdicts.jsonl",
    "result.json",
    "problems.jsonl",
)


VERSION = 2
"""Version of the files; earlier releases wrote none, and no checksums."""

_VERSION, _FILES = "version", "files"
_REMEDY = {
    SAMPLES: "remove this line and evaluate again, which makes this sample again",
    VERDICTS: "remove this line and evaluate again, which judges this sample again",
    PROBLEMS: "evaluate again, which writes the file again",
}

_T = TypeVar("_T")


class EvalFolder:
    """A folder with a complete or partial evaluation.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @staticmethod
    def open_or_create(path: Path, settings: Mapping[str, Any], *, overwrite: bool = False) -> EvalFolder:
        """Open a folder that was made with the same settings, or initialise an empty one. The caller holds its lock.

        Args:
            path: the folder, which exists.
            settings: everything that decides samples and verdicts; must be JSON-serialisable.
            overwrite: first delete the files of an earlier evaluation.

        Raises:
            SettingsMismatchError: it was made with different settings; the message lists each difference.
            StoreError: it cannot be read or written.
        """
        folder = EvalFolder(path)
        wanted = json.loads(json.dumps(settings))
        if overwrite:
            # Delete the settings last: if we are killed here, the rest is still recognised as an evaluation.
            for name in (RESULT, VERDICTS, SAMPLES, PROBLEMS, SETTINGS):
                remove(path / name)
        if (path / SETTINGS).exists():
            unlike = differences(folder.settings(), wanted)
            if unlike:
                raise SettingsMismatchError(
                    f"{path} contains an evaluation made with different settings:\n  "
                    + "\n  ".join(unlike)
                    + "\nUse another --out folder, the same settings, or --overwrite to drop the old evaluation."
                )
            if folder.has_checksums:
                for name in (SAMPLES, VERDICTS):
                    drop_torn_line(path / name)
            return folder
        if (path / SAMPLES).exists() or (path / VERDICTS).exists():
            raise StoreError(f"{path} contains {SAMPLES} or {VERDICTS} but no {SETTINGS}; use another folder")
        folder.write_json(SETTINGS, {**wanted, _VERSION: VERSION})
        return folder

    @property
    def has_checksums(self) -> bool:
        """Whether all lines of the files have checksums. Raises StoreError: the settings cannot be read."""
        return _VERSION in self.read(SETTINGS)

    def settings(self) -> dict[str, Any]:
        """The settings of the evaluation. Raises StoreError: they are missing or damaged."""
        return {name: value for name, value in self.read(SETTINGS).items() if name != _VERSION}

    def read(self, name: str) -> dict[str, Any]:
        """A JSON file of the folder, without its checksum, which is verified.

        Raises:
            StoreError: it is missing or damaged.
        """
        file = self.path / name
        try:
            content = parsed(read_regular(file))
            if not isinstance(content, dict):
                raise DamagedError(f"it holds a {type(content).__name__}, not an object")
            checked = _VERSION in content if name == SETTINGS else self.has_checksums
            return verified(content, needs_checksum=checked)
        except FileNotFoundError:
            raise StoreError(
                f"{self.path} contains no {name}: give the folder of a finished `donod-fast eval … --out`"
            ) from None
        except OSError as error:
            raise StoreError(f"{file} cannot be read ({error}); evaluate again with --overwrite") from error
        except DamagedError as error:
            raise StoreError(
                f"{file} is damaged ({error}); restore it from a copy, or evaluate again with --overwrite"
            ) from error

    def samples(self) -> list[Sample]:
        """The stored samples, in no particular order; each task and number once. Raises StoreError."""
        found: dict[tuple[str, int], Sample] = {}
        for sample in self._lines(SAMPLES, sample_of):
            found.setdefault((sample.task_id, sample.index), sample)
        return list(found.values())

    def verdicts(self) -> list[tuple[tuple[str, int] | None, Verdict]]:
        """The stored verdicts, each with task and number; None in an unfinished evaluation. Raises StoreError."""
        return self._lines(VERDICTS, _placed_verdict)

    def prompts(self) -> dict[str, str]:
        """The prompts by task; empty in an unfinished evaluation. Raises StoreError."""
        return dict(self._lines(PROBLEMS, _prompt_of))

    def _lines(self, name: str, of: Callable[[Mapping[str, Any]], _T]) -> list[_T]:
        file = self.path / name
        lines = checked_lines(file, _REMEDY[name], needs_checksums=self.has_checksums)
        found = []
        for number, line in enumerate(lines, start=1):
            try:
                found.append(of(line))
            except DamagedError as error:
                raise StoreError(f"{file}, record {number} is damaged ({error}); {_REMEDY[name]}") from error
        return found

    def check_finished(self) -> None:
        """Compare the files of a finished evaluation with the checksums in its result.

        Raises:
            StoreError: a file was changed after the evaluation finished.
        """
        if not (self.path / RESULT).exists():
            return
        for name, wanted in self.read(RESULT).get(_FILES, {}).items():
            if _file_digest(self.path / name) != wanted:
                raise StoreError(
                    f"{self.path / name} is not the file that the evaluation wrote: it was changed or cut afterwards; "
                    "evaluate again with the same settings, which writes what is missing"
                )

    def finish(
        self,
        problems: Sequence[Problem],
        samples: Sequence[Sample],
        judgements: Sequence[Judgement],
        result: Mapping[str, Any],
    ) -> None:
        """Write samples and verdicts in the order of the tasks, the prompts for the browser, and the result last."""
        prompts = ({"task_id": one.task_id, "prompt": one.prompt or one.text} for one in problems)
        files = {
            SAMPLES: b"".join(map(sample_line, samples)),
            VERDICTS: b"".join(checked_line(one.as_dict()) for one in judgements),
            PROBLEMS: b"".join(map(checked_line, prompts)),
        }
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        settings = _file_digest(self.path / SETTINGS)  # a result belongs to one evaluation
        if any(_file_digest(self.path / name) != digest for name, digest in digests.items()):
            remove(self.path / RESULT)  # one of an earlier run would not agree with them
        for name, content in files.items():
            self._write(name, content)
        self.write_json(RESULT, {**result, _FILES: {**digests, SETTINGS: settings}})

    def write_json(self, name: str, data: Mapping[str, Any]) -> None:
        """Write a JSON file with its checksum atomically."""
        self._write(name, (json.dumps(with_checksum(data), indent=2) + "\n").encode())

    def _write(self, name: str, data: bytes) -> None:
        with atomic_writer(self.path / name) as file:
            file.write(data)


def _placed_verdict(line: Mapping[str, Any]) -> tuple[tuple[str, int] | None, Verdict]:
    """A verdict with its task and number. Raises DamagedError."""
    _, verdict = verdict_of(line)
    place = line.get("task_id"), line.get("sample")
    if place == (None, None):
        return None, verdict
    if not isinstance(place[0], str) or type(place[1]) is not int:
        raise DamagedError(f"task_id, sample: {place} is no sample")
    return (place[0], place[1]), verdict


def _prompt_of(line: Mapping[str, Any]) -> tuple[str, str]:
    """A task and its prompt. Raises DamagedError."""
    for name in ("task_id", "prompt"):
        if not isinstance(line.get(name), str):
            raise DamagedError(f"{name}: it is no text")
    return line["task_id"], line["prompt"]


def _file_digest(path: Path) -> str | None:
    try:
        return file_digest(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error})") from error


def in_order(problems: Sequence[Problem], samples: Sequence[Sample]) -> list[Sample]:
    """Samples sorted by task order, then by number."""
    place = {one.task_id: at for at, one in enumerate(problems)}
    return sorted(samples, key=lambda one: (place[one.task_id], one.index))


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """One line per differing setting, named as ``section.key``."""
    lines = []
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            lines += differences(a, b, f"{prefix}{key}.")
        elif a != b and not (key == "fingerprint" and is_same_model(a, b)):
            lines.append(f"{prefix}{key}: {a!r} in the folder, {b!r} requested")
    return lines
