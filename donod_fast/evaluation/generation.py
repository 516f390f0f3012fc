"""Generate programs with a model: prompts in batches, longest first, each row cut at its own stop."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from donod_fast.data.rendering import Renderer
from donod_fast.data.templates import ResolvedTemplate, resolve_template
from donod_fast.data.tokenizing import TextEncoder
from donod_fast.data.types import Conversation, Message, SampleError
from donod_fast.errors import InputError, ModelError
from donod_fast.evaluation.generation_settings import GenerationSettings
from donod_fast.evaluation.problems import Problem
from donod_fast.evaluation.prompts import Prompt, cut_at_stop, make_program, make_prompt
from donod_fast.evaluation.samples import Sample
from donod_fast.evaluation.sampling import NucleusSampler, uniforms
from donod_fast.evaluation.stopping import RowStops
from donod_fast.models.loading import quiet, text_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Progress = Callable[[int], None]
"""Called with the number of newly generated samples."""

_CACHE_BYTES = {"cpu": 1 << 30, "cuda": 16 << 30}
_MOST_ROWS = 256
_CONTEXT = 6  # prompt tokens that are decoded together with a generation, to keep its first space


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    settings: GenerationSettings,
    *,
    shots: Sequence[Problem] = (),
    done: Collection[tuple[str, int]] = (),
    progress: Progress | None = None,
) -> Iterator[Sample]:
    """Generate programs; samples are yielded as their batches finish, longest prompts first.

    Prompts are padded on the left and begin with the tokenizer's own front tokens (BOS), as in scoring.
    The model's own generation settings (temperature, penalties) do not apply, only its end tokens. A sample does not
    depend on its batch except through rounding, which can decide a near tie in half precision.

    Args:
        model: a causal language model of transformers, on its device. Its training mode is restored.
        tokenizer: its tokenizer.
        problems: the tasks.
        settings: how to generate.
        shots: solved tasks of the 3-shot prompt; see :func:`donod_fast.evaluation.prompts.find_shots`.
        done: (task, number) of samples that exist already.
        progress: called with the number of samples of each batch.

    Raises:
        InputError: a 3-shot prompt without its shots.
        ModelError: a prompt cannot be written or tokenised.
    """
    if settings.style == "3-shot" and not shots:
        raise InputError("the 3-shot prompt needs its solved tasks: shots=find_shots(problems of the whole file)")
    rows = _rows(tokenizer, problems, settings, shots, done)
    ends = _end_ids(model, tokenizer)
    limit = _length_limit(model)
    start = 0
    size = _batch_rows(model, rows, settings)
    while start < len(rows):
        batch = rows[start : start + size]
        try:
            samples = _generate_batch(model, tokenizer, batch, settings, ends, limit)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise ModelError(
                    "there is not enough memory for one prompt; use a smaller dtype or --max-new-tokens"
                ) from None
            size = len(batch) // 2
            continue
        start += len(batch)
        if progress is not None:
            progress(len(samples))
        yield from samples


@dataclass(frozen=True, slots=True)
class _Row:
    problem: Problem
    index: int
    ids: list[int] = field(repr=False)


def prompt_texts(
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    settings: GenerationSettings,
    shots: Sequence[Problem],
) -> list[Prompt]:
    """The prompts as the model reads them, without special tokens in front; chat is rendered by its template."""
    prompts = [make_prompt(one, settings.style, shots) for one in problems]
    if settings.style != "chat":
        return prompts
    renderer = Renderer(tokenizer, resolve_template(tokenizer, settings.template))
    written = []
    for problem, prompt in zip(problems, prompts, strict=True):
        try:
            turns = renderer.recast(Conversation((Message("user", prompt.text),)))
            written.append(Prompt(renderer.render(turns, add_generation_prompt=True).text, chat=True))
        except SampleError as error:
            raise ModelError(f"{problem.task_id}: {error.detail}; choose another --template") from error
    return written


def chat_template(tokenizer: PreTrainedTokenizerBase, settings: GenerationSettings) -> ResolvedTemplate | None:
    """The template of the style ``chat``; None for other styles."""
    return resolve_template(tokenizer, settings.template) if settings.style == "chat" else None


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt]) -> list[list[int]]:
    """Token ids of prompts. The tokenizer's own front tokens (BOS) are added unless a template wrote the prompt.

    Raises:
        ModelError: a text cannot be tokenised.
    """
    encoder = TextEncoder(tokenizer)
    encoded = encoder.encode(prompt.text for prompt in prompts)
    found = []
    for prompt in prompts:
        one = encoded[prompt.text]
        if isinstance(one, SampleError):
            raise ModelError(f"a prompt cannot be tokenised: {one.detail}")
        front = () if prompt.chat else encoder.framed(prompt.text, one.ids)[0]
        found.append([*front, *one.ids])
    return found


def _rows(
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    settings: GenerationSettings,
    shots: Sequence[Problem],
    done: Collection[tuple[str, int]],
) -> list[_Row]:
    ids = prompt_ids(tokenizer, prompt_texts(tokenizer, problems, settings, shots))
    there = set(done)
    rows = [
        _Row(problem, index, some)
        for problem, some in zip(problems, ids, strict=True)
        for index in range(settings.samples_per_task)
        if (problem.task_id, index) not in there
    ]
    return sorted(rows, key=lambda row: -len(row.ids))


def _generate_batch(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    batch: Sequence[_Row],
    settings: GenerationSettings,
    ends: Sequence[int],
    limit: int | None,
) -> list[Sample]:
    from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

    longest = settings.max_new_tokens
    limits = [longest if limit is None else max(0, min(longest, limit - len(row.ids))) for row in batch]
    live = [place for place, most in enumerate(limits) if most > 0 and batch[place].ids]
    generated: dict[int, list[int]] = {}
    if live:
        some = [batch[place] for place in live]
        width = max(len(row.ids) for row in some)
        pad = _pad_id(tokenizer, ends)
        device = model.get_input_embeddings().weight.device
        ids = torch.tensor([[pad] * (width - len(row.ids)) + row.ids for row in some], device=device)
        mask = torch.tensor([[0] * (width - len(row.ids)) + [1] * len(row.ids) for row in some], device=device)
        most = max(limits[place] for place in live)
        stops = RowStops(tokenizer, settings.stop_texts, ends, width, [limits[place] for place in live])
        processors = LogitsProcessorList()
        if settings.temperature > 0.0:
            draws = [uniforms(settings.seed, row.problem.task_id, row.index, most) for row in some]
            processors.append(NucleusSampler(draws, width, settings.temperature, settings.top_p))
        config = GenerationConfig(
            max_new_tokens=most, do_sample=False, num_beams=1, pad_token_id=pad, eos_token_id=list(ends) or None,
            use_cache=True, return_dict_in_generate=False,
        )  # fmt: skip
        with _for_generation(model), torch.inference_mode():
            out = model.generate(
                ids, attention_mask=mask, generation_config=config, logits_processor=processors,
                stopping_criteria=StoppingCriteriaList([stops]),
            )  # fmt: skip
        for place, new in zip(live, out[:, width:].tolist(), strict=True):
            generated[place] = new[: limits[place]]
    return [
        _sample(tokenizer, row, generated.get(place), limits[place], settings, ends) for place, row in enumerate(batch)
    ]


def _sample(
    tokenizer: PreTrainedTokenizerBase,
    row: _Row,
    new: list[int] | None,
    limit: int,
    settings: GenerationSettings,
    ends: Sequence[int],
) -> Sample:
    task_id, problem = row.problem.task_id, row.problem
    if new is None:
        return Sample(task_id, row.index, make_program(problem, settings.style, ""), "", 0, "prompt_too_long")
    # A row that finishes before its batch is filled with padding.
    last = {*ends, tokenizer.pad_token_id}
    end = next((place for place, token in enumerate(new) if token in last), None)
    kept = new if end is None else new[:end]
    whole = continuation(tokenizer, row.ids, kept)
    text = cut_at_stop(whole, settings.stop_texts)
    ended = "stop" if len(text) < len(whole) else "end" if end is not None else "length"
    return Sample(task_id, row.index, make_program(problem, settings.style, text), text, len(kept), ended)


def continuation(tokenizer: PreTrainedTokenizerBase, before: Sequence[int], new: Sequence[int]) -> str:
    """The text of generated tokens, its first space included (SentencePiece drops a leading space)."""

    def decode(ids: list[int]) -> str:
        return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    context = list(before[-_CONTEXT:])
    head, whole = decode(context), decode([*context, *new])
    return whole[len(head) :] if whole.startswith(head) else decode(list(new))


@contextmanager
def _for_generation(model: Any) -> Iterator[None]:
    """Evaluation mode, without the model's own generation settings."""
    from transformers import GenerationConfig

    own, training = model.generation_config, model.training
    model.generation_config = GenerationConfig()
    model.eval()
    try:
        with quiet():
            yield
    finally:
        model.generation_config = own
        model.train(training)


def _end_ids(model: Any, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    own = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    found = [own] if isinstance(own, int) else list(own or ())
    return sorted({*found, *([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id])})


def _pad_id(tokenizer: PreTrainedTokenizerBase, ends: Sequence[int]) -> int:
    return tokenizer.pad_token_id if tokenizer.pad_token_id is not None else ends[0] if ends else 0


def _length_limit(model: Any) -> int | None:
    limit = getattr(text_config(model.config), "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit > 0 else None


def _batch_rows(model: Any, rows: Sequence[_Row], settings: GenerationSettings) -> int:
    if settings.batch_rows is not None or not rows:
        return settings.batch_rows or 1
    return rows_by_cache(model, len(rows[0].ids) + settings.max_new_tokens)


def rows_by_cache(model: Any, tokens: int) -> int:
    """How many sequences of so many tokens are generated at once, by the memory that their keys and values need."""
    config = text_config(model.config)
    heads = getattr(config, "num_attention_heads", 1)
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    keys = getattr(config, "num_key_value_heads", None) or heads
    weight = model.get_input_embeddings().weight
    token = 2 * config.num_hidden_layers * keys * width * weight.element_size()
    memory = _CACHE_BYTES.get(weight.device.type, 4 << 30)
    return max(1, min(_MOST_ROWS, memory // int(token * tokens)))
