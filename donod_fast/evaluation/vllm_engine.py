"""Generation with vLLM, if installed, with the same prompts and stops."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from donod_fast.errors import InputError
from donod_fast.evaluation.generation import prompt_ids, prompt_texts
from donod_fast.evaluation.generation_settings import GenerationSettings
from donod_fast.evaluation.problems import Problem
from donod_fast.evaluation.prompts import cut_at_stop, make_program
from donod_fast.evaluation.samples import Sample

_AT_ONCE = 512  # samples per call; a killed run loses at most one call


def vllm_version() -> str:
    """The version of vLLM.

    Raises:
        InputError: it is not installed.
    """
    try:
        import vllm
    except ImportError as error:
        raise InputError(
            f"--engine vllm needs vLLM, which cannot be imported ({error}); install it, or omit --engine"
        ) from error
    return str(vllm.__version__)


def generate_with_vllm(
    name: str,
    problems: Sequence[Problem],
    settings: GenerationSettings,
    *,
    shots: Sequence[Problem] = (),
    done: Collection[tuple[str, int]] = (),
    revision: str | None = None,
    dtype: str = "auto",
    trust_remote_code: bool = False,
) -> Iterator[Sample]:
    """Like :func:`donod_fast.evaluation.generation.generate`, with vLLM. Draws are vLLM's own, seeded per sample.

    Raises:
        InputError: vLLM is not installed.
        ModelError: a prompt cannot be written or tokenised.
    """
    vllm_version()
    there = set(done)
    wanted = [
        (place, index)
        for place, one in enumerate(problems)
        for index in range(settings.samples_per_task)
        if (one.task_id, index) not in there
    ]
    if not wanted:
        return
    from vllm import LLM, SamplingParams

    engine: Any = LLM(model=name, revision=revision, dtype=dtype, trust_remote_code=trust_remote_code)
    tokenizer = engine.get_tokenizer()
    ids = prompt_ids(tokenizer, prompt_texts(tokenizer, problems, settings, shots))
    for start in range(0, len(wanted), _AT_ONCE):
        some = wanted[start : start + _AT_ONCE]
        parameters = [
            SamplingParams(
                temperature=settings.temperature,
                top_p=settings.top_p,
                max_tokens=settings.max_new_tokens,
                stop=list(settings.stop_texts),
                seed=_seed(settings.seed, problems[place].task_id, index),
            )
            for place, index in some
        ]
        prompts = [{"prompt_token_ids": ids[place]} for place, _ in some]
        for (place, index), found in zip(some, engine.generate(prompts, parameters, use_tqdm=False), strict=True):
            output, problem = found.outputs[0], problems[place]
            text = cut_at_stop(output.text, settings.stop_texts)
            stopped = output.finish_reason == "stop"
            ended = "length" if not stopped else "end" if output.stop_reason is None else "stop"
            program = make_program(problem, settings.style, text)
            yield Sample(problem.task_id, index, program, text, len(output.token_ids), ended)


def _seed(seed: int, task_id: str, index: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}\0{task_id}\0{index}".encode()).digest()[:4], "little")
