"""A loaded model behind lm-eval's interface for models of transformers (``HFLM``), on any device."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from donod_fast.data.rendering import Renderer
from donod_fast.data.templates import resolve_template
from donod_fast.data.types import Conversation, Message, SampleError
from donod_fast.errors import InputError, ModelError
from donod_fast.evaluation.generation import rows_by_cache
from donod_fast.evaluation.harness.requirements import imported
from donod_fast.evaluation.harness.tasks import GENERATE, LOGLIKELIHOOD, Chat, quiet_harness
from donod_fast.models.loading import quiet, text_config
from donod_fast.system.memory import is_out_of_memory

if TYPE_CHECKING:
    from donod_fast.models.loading import LoadedModel

_LOGITS_BYTES = {"cpu": 1 << 30, "cuda": 16 << 30}
"""Memory of the logits of a batch; lm-eval keeps them for every token, and twice."""

_MOST_ROWS = 64
_ITEMS = 16


class Answering(Protocol):
    """What a run needs of a model; a test may use another object."""

    def size(self, requests: Sequence[Any], style: str) -> tuple[int, bool]:
        """Tokens of an item's longest request, and whether its prompt is cut on the left to fit into the context."""

    def together(self, style: str, longest: int) -> int:
        """How many items are answered and stored together; a killed run loses at most so many."""

    def answers(self, requests: Sequence[Any], style: str, longest: int) -> list[Any]:
        """The answers to requests: (log-likelihood, is greedy) or a text, in their order."""


class HarnessModel:
    """A model that answers lm-eval's requests.

    Model and tokenizer stay as they are: lm-eval sets a padding token, on a copy of the tokenizer.

    Attributes:
        lm: lm-eval's ``HFLM``.
        max_length: longest sequence in tokens.
    """

    def __init__(self, loaded: LoadedModel, batch_rows: int | None = None) -> None:
        """Wrap a model.

        Args:
            loaded: the model.
            batch_rows: sequences per batch; None chooses by the memory that their logits, or keys and values, need.

        Raises:
            InputError: lm-eval is not installed.
            ModelError: lm-eval cannot use the tokenizer.
        """
        module = imported("lm_eval.models.huggingface", "lm-eval")
        tokenizer: Any = copy.deepcopy(loaded.tokenizer)
        if tokenizer.eos_token_id is None:
            raise ModelError(f"{loaded.name}: the tokenizer has no end token (eos_token), which lm-eval needs")
        try:
            with quiet(), quiet_harness():
                self.lm: Any = module.HFLM(
                    pretrained=loaded.model,
                    tokenizer=tokenizer,
                    backend="causal",
                    max_length=loaded.max_length,
                    batch_size=batch_rows or 1,
                )
        except AssertionError as error:
            raise ModelError(
                f"{loaded.name}: lm-eval needs a tokenizer of transformers, not a {type(tokenizer).__name__}"
            ) from error
        self.lm._device = loaded.device  # of an off-loaded model, `model.device` is not where token ids belong
        self.max_length: int = self.lm.max_length
        self._loaded, self._rows = loaded, batch_rows

    def chat(self, template: str) -> Chat:
        """Writes messages with a chat template (as ``donod-fast score --template``), within the project's bounds.

        Raises:
            ModelError: the model has no chat template and none is named, or it cannot write a prompt (when called).
            InputError: the template is unknown.
        """
        if template == "auto" and not getattr(self._loaded.tokenizer, "chat_template", None):
            raise ModelError(
                f"{self._loaded.name} has no chat template; name one with --template (alpaca, chatml or another), "
                "or send the bare prompts"
            )
        renderer = Renderer(self._loaded.tokenizer, resolve_template(self._loaded.tokenizer, template))

        def write(messages: Sequence[dict[str, str]], add_generation_prompt: bool = True) -> str:
            turns = Conversation(tuple(Message(one["role"], one["content"]) for one in messages))
            try:
                return renderer.render(renderer.recast(turns), add_generation_prompt=add_generation_prompt).text
            except SampleError as error:
                raise ModelError(
                    f"the chat template cannot write a prompt: {error.detail}; choose another --template"
                ) from error

        return write

    def check_room(self, max_new_tokens: int) -> None:
        """Refuse answers that leave no room for a prompt. Raises InputError."""
        if max_new_tokens >= self.max_length:
            raise InputError(
                f"--max-new-tokens {max_new_tokens} leaves no room for a prompt: {self._loaded.name} reads at most "
                f"{self.max_length:,} tokens; use fewer, for example {max(1, self.max_length // 2)}"
            )

    def size(self, requests: Sequence[Any], style: str) -> tuple[int, bool]:
        """See :class:`Answering`."""
        with quiet():  # transformers warns of sequences that are too long
            return self._size(requests, style)

    def _size(self, requests: Sequence[Any], style: str) -> tuple[int, bool]:
        if style == LOGLIKELIHOOD:
            pairs = [self.lm._encode_pair(*one.args) for one in requests]
            if not all(options and len(options) <= self.max_length for _, options in pairs):
                raise ModelError(
                    f"{self._loaded.name}: an option of {requests[0].task_name} has no token of its own, or more than "
                    f"the {self.max_length:,} that the model reads; use another model or leave the set out (--sets)"
                )
            longest = max(len(context) + len(options) - 1 for context, options in pairs)
            return min(longest, self.max_length), longest > self.max_length
        prompt, settings = requests[0].args
        tokens, room = len(self.lm.tok_encode(prompt)), settings["max_gen_toks"]
        return min(tokens, self.max_length - room) + room, tokens > self.max_length - room

    def together(self, style: str, longest: int) -> int:
        """See :class:`Answering`. An accelerator gets full batches; on the CPU they would take long."""
        rows = 0 if self._loaded.device.type == "cpu" else self._rows or self._fitting_rows(style, longest)
        return max(_ITEMS, rows)

    def answers(self, requests: Sequence[Any], style: str, longest: int) -> list[Any]:
        """See :class:`Answering`. Batches are halved if memory runs out.

        Raises:
            ModelError: there is not enough memory for one sequence.
        """
        rows = self._rows or self._fitting_rows(style, longest)
        while True:
            self.lm.batch_size_per_gpu = rows
            ask = self.lm.loglikelihood if style == LOGLIKELIHOOD else self.lm.generate_until
            try:
                with quiet(), quiet_harness():
                    return list(ask(list(requests), disable_tqdm=True))
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if rows == 1:
                    raise ModelError(
                        "there is not enough memory for one prompt; use a smaller dtype, --max-new-tokens or model"
                    ) from None
                rows //= 2

    def _fitting_rows(self, style: str, longest: int) -> int:
        model = self._loaded.model
        if style == GENERATE:
            return rows_by_cache(model, longest)
        weight = model.get_input_embeddings().weight
        row: int = 2 * longest * text_config(model.config).vocab_size * weight.element_size()
        return max(1, min(_MOST_ROWS, _LOGITS_BYTES.get(self._loaded.device.type, 4 << 30) // row))


__all__ = ["Answering", "HarnessModel"]
