"""``DonodScorer``: a scorer of OpenDataArena's DataScorer, which its ``scores_info.json`` names as ``module``.

The host calls a scorer by its methods, so nothing of the host is imported. The host continues when a scorer raises,
merges the rows of the jobs that did not, and exits with code 0. So the process that the user started watches the jobs:
if one of them did not finish, or a row is missing in the result, it says so at its end and exits with code 1.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from donod_fast.adapters.columns import DON, NOD, TOPSIS
from donod_fast.adapters.lazy_scorer import LazyScorer
from donod_fast.adapters.options import scorer_spec
from donod_fast.errors import CorpusError, DonodError, InputError, SettingsMismatchError
from donod_fast.system.wording import plural

_log = logging.getLogger(__name__)

_HOST_KEYS = frozenset({"name", "sub_name", "num_gpu_per_job", "data_parallel", "resume", "batch_size"})
"""Keys of a scorer's configuration that the host reads; ``batch_size`` is that of its own scorers."""

_WATCH = "DONOD_FAST_ODA_WATCH"
"""Environment variable with the folder in which jobs note what they have done."""

_CHUNK = 512


class DonodScorer:
    """Scores the rows of a file of JSON Lines: one record each, with the row's ``id``.

    A record has ``score`` and the columns of a host's row (``donod_status``, ``donod_don_per_lr``, …). ``score`` is DON
    divided by the learning rate; with ``constants`` it is the closeness of TOPSIS in the corpus of the constants.
    A row that cannot be scored has the score null and a status.

    Args:
        config: the scorer's entry in the host's YAML file: ``name``, ``model``, the host's own keys, ``constants`` (a
            file of ``TopsisConstants.save``), and options of ``donod-fast score``.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = dict(config)
        self._validate_config()
        self._setup()

    def _validate_config(self) -> None:
        """Check the configuration.

        Raises:
            InputError: no model, an unknown option, or a wrong value.
            StoreError: the constants cannot be read.
        """
        given = {key: value for key, value in self.config.items() if key not in _HOST_KEYS}
        constants = given.pop("constants", None)
        self.lazy = LazyScorer(scorer_spec(given.pop("model", ""), given))
        self.constants = None
        if constants is not None:
            from donod_fast.selection.frozen_constants import load_constants

            self.constants = load_constants(str(constants))

    def _setup(self) -> None:
        """Load the model. The host makes the GPUs of this job visible, and no others.

        Raises:
            ModelError: it cannot be loaded or scored with.
            SettingsMismatchError: the constants belong to rows that were scored in another way.
        """
        scorer = self.lazy.scorer()
        if self.constants is not None and self.constants.settings is not None:
            self.constants.refuse_other(scorer.describe())

    def score_item(self, data_item: Mapping[str, Any]) -> float | None:
        """The score of one row, None if it cannot be scored."""
        [record] = self._records([data_item], 0)
        score: float | None = record["score"]
        return score

    def evaluate(self, dataset: str) -> list[dict[str, Any]]:
        """Score a file of JSON Lines, and give all records."""
        rows = list(_rows(Path(dataset)))
        return self._records([row for _, row in rows], 0)

    def evaluate_to_file(self, dataset: str, output_file: str, resume: bool = True) -> str:
        """Score a file of JSON Lines into another one.

        Args:
            dataset: rows with an ``id``.
            output_file: the records, in the order of the rows.
            resume: keep the records that are there already, by id.

        Returns:
            ``output_file``.

        Raises:
            CorpusError: a line is no object, or has no id, or the id of an earlier line; names the line.
            SettingsMismatchError: the records that are there were scored with other settings.
        """
        path = Path(output_file)
        path.parent.mkdir(parents=True, exist_ok=True)
        done = _resumed(path) if resume else set()
        if done:
            self._refuse_other(path)
        else:
            path.write_bytes(b"")
            _settings_file(path).write_text(json.dumps(self._described()), encoding="utf-8")
        total, chunk, seen = 0, [], set()
        with path.open("a", encoding="utf-8") as file:
            for line, row in _rows(Path(dataset)):
                key = _key(row.get("id"))
                if key is None or key in seen:
                    what = "has no id" if key is None else f"has the id of an earlier line, {row['id']!r}"
                    raise CorpusError(
                        f"{dataset}, line {line} {what}; the host joins scores by id: give each row its own, "
                        "or set data_with_id: false and leave the ids out"
                    )
                seen.add(key)
                total += 1
                if key in done:
                    continue
                chunk.append(row)
                if len(chunk) == _CHUNK:
                    self._write(file, chunk, total)
                    chunk = []
            self._write(file, chunk, total)
        _note(self.config, total)
        return output_file

    def _described(self) -> dict[str, Any]:
        from donod_fast.selection.frozen_constants import settings_of

        constants = None if self.constants is None else self.constants.as_dict()
        found: dict[str, Any] = json.loads(
            json.dumps({**settings_of(self.lazy.scorer().describe()), "topsis": constants})
        )
        return found

    def _refuse_other(self, path: Path) -> None:
        from donod_fast.scores.manifest import differences

        place = _settings_file(path)
        before = json.loads(place.read_text(encoding="utf-8")) if place.exists() else {}
        unlike = differences(before, self._described(), ("in the file", "now"))
        if unlike:
            raise SettingsMismatchError(
                f"the records in {path} were scored in another way:\n  "
                + "\n  ".join(unlike)
                + "\nUse the same settings, another output_path, or resume: false."
            )

    def _write(self, file: Any, rows: Sequence[Mapping[str, Any]], total: int) -> None:
        for record in self._records(rows, total - len(rows)):
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())

    def _records(self, rows: Sequence[Mapping[str, Any]], first: int) -> list[dict[str, Any]]:
        found = self.lazy.columns(rows, first=first)
        records = [
            {"id": row.get("id", ""), "score": scores[DON], **scores} for row, scores in zip(rows, found, strict=True)
        ]
        if self.constants is not None and records:
            don, nod = ([record[name] for record in records] for name in (DON, NOD))
            for record, value in zip(records, self.constants.apply(don, nod, per_lr=True), strict=True):
                record["score"] = record[TOPSIS] = None if value != value else float(value)
        return records


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file of JSON Lines with the numbers of their lines."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise CorpusError(f"{path}, line {number} is not JSON ({error}); mend or remove it") from None
            if not isinstance(row, dict):
                raise CorpusError(f"{path}, line {number} is no JSON object; mend or remove it")
            yield number, row


def _key(identity: Any) -> str | None:
    """An id as the host compares it."""
    return None if identity is None or identity == "" else str(identity)


def _resumed(path: Path) -> set[str]:
    """The ids of the records in a file; a last line that a killed job left incomplete is cut off."""
    if not path.exists():
        return set()
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        path.write_bytes(whole)
    return {key for _, record in _rows(path) if (key := _key(record.get("id"))) is not None}


def _settings_file(path: Path) -> Path:
    """Where the settings of the records in a file are kept; the host reads only ``*.jsonl``."""
    return path.with_name(path.name + ".settings.json")


def _note(config: Mapping[str, Any], rows: int) -> None:
    """Note for the process that watches that a job has finished this many rows."""
    if folder := os.environ.get(_WATCH):
        with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".json", delete=False) as file:
            json.dump({"name": str(config.get("sub_name", config.get("name"))), "rows": rows}, file)


def watch() -> None:
    """Watch the jobs of this process, if it is the host's: called at import."""
    if os.environ.get(_WATCH) or "scorers.scorer_factory" not in sys.modules:
        return
    folder = tempfile.mkdtemp(prefix="donod-fast-oda-")
    os.environ[_WATCH] = folder
    atexit.register(_judge, folder, Path.cwd(), list(sys.argv), os.getpid())


def _judge(folder: str, cwd: Path, words: list[str], pid: int) -> None:
    """At the end of the host: exit with code 1 if a row of its input has no record of ours."""
    if os.getpid() != pid:  # a fork inherits this function
        return
    problem = "the jobs of DonodScorer were not watched"
    try:
        problem = missing_rows(Path(folder), cwd, words)
    except (OSError, ValueError, KeyError, TypeError, DonodError) as error:
        problem = f"the result of DonodScorer cannot be checked: {error}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if problem:
            with suppress(OSError):
                sys.stdout.flush()
            _log.error("%s", DonodError(problem))  # the error takes secrets out
            logging.shutdown()
            os._exit(1)


def missing_rows(folder: Path, cwd: Path, words: list[str]) -> str:
    """What is missing in the result of the host's run, or an empty text.

    Args:
        folder: the notes of the jobs that have finished.
        cwd: working directory of the host.
        words: its command line.

    Raises:
        InputError: the command line names no configuration.
        CorpusError: the input or the result is damaged.
    """
    import yaml

    config = yaml.safe_load((cwd / _config_path(words)).read_text(encoding="utf-8"))
    # The name decides where the host puts a result; sub_name only how the file is called.
    ours = [one for one in config["scorers"] if one["name"] == DonodScorer.__name__]
    if not ours:
        return ""
    wanted = sum(1 for _ in _rows(cwd / config["input_path"]))
    notes = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")]
    done = sum(note["rows"] for note in notes)
    result = cwd / config["output_path"] / "pointwise_scores.jsonl"
    if done < wanted * len(ours):
        return (
            f"{done} of {plural(wanted * len(ours), 'row')} are scored, because a job failed or was killed; see its "
            f"message above. {result} is incomplete or old. Run again with resume: true to score the others"
        )
    there = sum(1 for _, record in _rows(result) if DonodScorer.__name__ in record.get("scores", {}))
    if there < wanted:
        return (
            f"{result} has scores of {there} of {plural(wanted, 'row')}: the host joins them by id, and some rows "
            "have the same; give each row its own"
        )
    return ""


def _config_path(words: list[str]) -> str:
    for at, word in enumerate(words):
        if word == "--config" and at + 1 < len(words):
            return words[at + 1]
        if word.startswith("--config="):
            return word.partition("=")[2]
    raise InputError("the command of the host has no --config FILE")


watch()

__all__ = ["DonodScorer", "missing_rows", "watch"]
