"""The folder of an evaluation: ``settings.json``, ``samples.jsonl``, ``verdicts.jsonl`` and finally ``result.json``.

Samples and verdicts are appended during the run, and a restarted run resumes from them. ``settings.json`` records the
settings that produced them; a run with different settings is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from donod_fast.errors import SettingsMismatchError, StoreError
from donod_fast.evaluation.lines import whole_lines
from donod_fast.evaluation.problems import Problem
from donod_fast.evaluation.samples import Sample, sample_line
from donod_fast.evaluation.verdicts import Judgement
from donod_fast.system.files import atomic_writer, read_regular, remove

SETTINGS, SAMPLES, VERDICTS, RESULT, PROBLEMS = (
    "settings.json",
    "samples.jsonl",
    "verdicts.jsonl",
    "result.json",
    "problems.jsonl",
)


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
            unlike = differences(folder.read(SETTINGS), wanted)
            if unlike:
                raise SettingsMismatchError(
                    f"{path} contains an evaluation made with different settings:\n  "
                    + "\n  ".join(unlike)
                    + "\nUse another --out folder, the same settings, or --overwrite to drop the old evaluation."
                )
            return folder
        if (path / SAMPLES).exists() or (path / VERDICTS).exists():
            raise StoreError(f"{path} contains {SAMPLES} or {VERDICTS} but no {SETTINGS}; use another folder")
        folder.write_json(SETTINGS, wanted)
        return folder

    def read(self, name: str) -> dict[str, Any]:
        """A JSON file of the folder.

        Raises:
            StoreError: it is missing or damaged.
        """
        file = self.path / name
        try:
            data = json.loads(read_regular(file).decode("utf-8"))
        except FileNotFoundError:
            raise StoreError(
                f"{self.path} contains no {name}: give the folder of a finished `donod-fast eval … --out`"
            ) from None
        except (OSError, ValueError) as error:
            raise StoreError(f"{file} cannot be read ({error}); evaluate again with --overwrite") from error
        if not isinstance(data, dict):
            raise StoreError(f"{file} is damaged; evaluate again with --overwrite")
        return data

    def samples(self) -> list[Sample]:
        """The stored samples, in no particular order; each task and number once."""
        found: dict[tuple[str, int], Sample] = {}
        for line in whole_lines(self.path / SAMPLES):
            try:
                sample = Sample.from_dict(line)
            except KeyError as error:
                raise StoreError(
                    f"{self.path / SAMPLES}: a line lacks {error}; evaluate again with --overwrite"
                ) from None
            found.setdefault((sample.task_id, sample.index), sample)
        return list(found.values())

    def finish(
        self,
        problems: Sequence[Problem],
        samples: Sequence[Sample],
        judgements: Sequence[Judgement],
        result: Mapping[str, Any],
    ) -> None:
        """Write samples and verdicts in the order of the tasks, the prompts for the browser, and the result last."""
        self._write(SAMPLES, b"".join(map(sample_line, samples)))
        lines = (json.dumps(one.as_dict()) + "\n" for one in judgements)
        self._write(VERDICTS, "".join(lines).encode())
        prompts = (json.dumps({"task_id": one.task_id, "prompt": one.prompt or one.text}) + "\n" for one in problems)
        self._write(PROBLEMS, "".join(prompts).encode())
        self.write_json(RESULT, result)

    def write_json(self, name: str, data: Mapping[str, Any]) -> None:
        """Write a JSON file atomically."""
        self._write(name, (json.dumps(data, indent=2) + "\n").encode())

    def _write(self, name: str, data: bytes) -> None:
        with atomic_writer(self.path / name) as file:
            file.write(data)


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
        elif a != b:
            lines.append(f"{prefix}{key}: {a!r} in the folder, {b!r} requested")
    return lines
