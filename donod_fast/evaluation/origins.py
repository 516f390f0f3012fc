"""The origin of an evaluation's samples: a model, a file, or the benchmark's own solutions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from donod_fast.errors import InputError
from donod_fast.evaluation.generation_settings import GenerationSettings
from donod_fast.evaluation.problems import Problem
from donod_fast.evaluation.prompts import find_shots
from donod_fast.evaluation.records import file_digest
from donod_fast.evaluation.run import Source
from donod_fast.evaluation.samples import canonical_samples, read_samples

if TYPE_CHECKING:
    from donod_fast.models.loading import LoadedModel


@dataclass(frozen=True, slots=True)
class Origin:
    """Existing samples, or a way to generate them.

    Attributes:
        source: yields the samples that do not exist yet.
        total: number of all samples.
        settings: everything that decides them, for the folder and the result.
        recorded: further facts to record.
        others: number of samples in the file for tasks outside the split or beyond the limit.
    """

    source: Source
    total: int
    settings: Mapping[str, Any]
    recorded: Mapping[str, Any] = field(default_factory=dict)
    others: int = 0


def from_canonical(problems: Sequence[Problem]) -> Origin:
    """The reference solutions."""
    samples = canonical_samples(problems)
    return Origin(
        lambda done: [one for one in samples if (one.task_id, one.index) not in done],
        len(samples),
        {"samples": "canonical"},
    )


def from_file(path: Path, problems: Sequence[Problem], known: Sequence[Problem]) -> Origin:
    """The samples of a file in human-eval's or EvalPlus's format.

    Raises:
        CorpusError: see :func:`donod_fast.evaluation.samples.read_samples`.
    """
    given = read_samples(path, problems, known)
    return Origin(
        lambda done: [one for one in given.samples if (one.task_id, one.index) not in done],
        len(given.samples),
        {"samples": "file", "samples_sha256": file_digest(path)},
        {"samples_file": path.name, "samples_of_other_tasks": given.others},
        given.others,
    )


def from_model(
    loaded: LoadedModel, problems: Sequence[Problem], known: Sequence[Problem], settings: GenerationSettings
) -> Origin:
    """Samples that a loaded model will generate.

    Args:
        loaded: the model.
        problems: the tasks that are evaluated.
        known: all tasks of the file, from which the 3-shot prompt takes its examples.
        settings: how to generate.

    Raises:
        InputError: the file lacks the 3-shot prompt's tasks.
        ModelError: a chat prompt cannot be written.
    """
    import torch
    import transformers

    from donod_fast.evaluation.generation import generate, prompt_texts

    shots = find_shots(known) if settings.style == "3-shot" else []
    texts = prompt_texts(loaded.tokenizer, problems, settings, shots)
    return Origin(
        lambda done: generate(loaded.model, loaded.tokenizer, problems, settings, shots=shots, done=done),
        len(problems) * settings.samples_per_task,
        {
            "samples": "model",
            "model": model_settings(loaded),
            "generation": {**settings.as_dict(), "engine": "transformers"},
            "prompts_sha256": hashlib.sha256("\0".join(one.text for one in texts).encode()).hexdigest(),
        },
        {
            "model_name": loaded.name,
            "device": str(loaded.device),
            "batch_rows": settings.batch_rows or "auto",
            "engine_versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        },
    )


def model_settings(loaded: LoadedModel) -> dict[str, Any]:
    """What decides a loaded model's answers, for the settings of a folder."""
    return {
        "fingerprint": loaded.fingerprint,
        "revision": loaded.revision,
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "precision": loaded.precision,
    }


def from_vllm(
    name: str,
    problems: Sequence[Problem],
    known: Sequence[Problem],
    settings: GenerationSettings,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    trust_remote_code: bool = False,
) -> Origin:
    """Samples that a model will generate with vLLM, if it is installed.

    Raises:
        InputError: vLLM is not installed; see also :func:`from_model`.
    """
    from donod_fast.evaluation.vllm_engine import generate_with_vllm, vllm_version
    from donod_fast.models.fingerprint import folder_fingerprint, hub_fingerprint
    from donod_fast.models.folder_guard import check_model_folder
    from donod_fast.models.packaged import model_path

    version = vllm_version()
    shots = find_shots(known) if settings.style == "3-shot" else []
    folder = model_path(name)
    local = folder.is_dir()
    if local:
        check_model_folder(name, folder, trust_remote_code=trust_remote_code)
    fingerprint = folder_fingerprint(folder) if local else hub_fingerprint(name, revision or "main")
    return Origin(
        lambda done: generate_with_vllm(
            str(folder) if local else name, problems, settings, shots=shots, done=done, revision=revision, dtype=dtype,
            trust_remote_code=trust_remote_code,
        ),
        len(problems) * settings.samples_per_task,
        {
            "samples": "model",
            "model": {"fingerprint": fingerprint, "revision": revision, "dtype": dtype},
            "generation": {**settings.as_dict(), "engine": "vllm"},
            "shots": [one.task_id for one in shots],
        },
        {"model_name": name, "engine_versions": {"vllm": version}},
    )  # fmt: skip


def one_origin(given: Mapping[str, bool]) -> str:
    """The only option that was given.

    Raises:
        InputError: none was given, or more than one.
    """
    chosen = [name for name, is_given in given.items() if is_given]
    if len(chosen) != 1:
        what = "none was given" if not chosen else f"{' and '.join(chosen)} were given"
        raise InputError(f"programs come from one of {', '.join(given)}; {what}")
    return chosen[0]
