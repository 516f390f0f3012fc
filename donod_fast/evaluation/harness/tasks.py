"""The benchmarks as tasks of lm-eval: prompts, requests, and a record of each item's outcome.

A task's data set holds the place and the texts of each item; what decides the outcome stays in our own, validated
objects. It is made in memory: nothing is looked up on the hub, and nothing is cached on disk.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from donod_fast.evaluation.harness.agieval import Question
from donod_fast.evaluation.harness.answers import named_letter
from donod_fast.evaluation.harness.groups import IFEVAL
from donod_fast.evaluation.harness.ifeval import Prompt
from donod_fast.evaluation.harness.instructions.verdict import loose, strict
from donod_fast.evaluation.harness.requirements import imported

LOGLIKELIHOOD, GENERATE = STYLES = ("loglikelihood", "generate")

_ITEM = "item"
_T = TypeVar("_T", Question, Prompt)

Chat = Callable[..., str]
"""Writes messages (``role``, ``content``) with a chat template: ``chat(messages, add_generation_prompt=True)``."""


@dataclass(frozen=True, slots=True)
class Task(Generic[_T]):
    """A set of questions or prompts as an lm-eval task.

    Attributes:
        name: name of the set.
        items: its questions or prompts.
        style: :data:`LOGLIKELIHOOD` or :data:`GENERATE`.
        harness: lm-eval's ``ConfigurableTask``.
        outcome: the record of an item from the model's answers to its requests.
    """

    name: str
    items: Sequence[_T]
    style: str
    harness: Any = field(repr=False)
    outcome: Callable[[_T, Sequence[Any]], dict[str, Any]] = field(repr=False)

    def requests(self, place: int, chat: Chat | None) -> list[Any]:
        """lm-eval's requests (``Instance``) for one item, as its evaluator makes them.

        Args:
            place: place of the item in :attr:`items`.
            chat: writes the prompt with a chat template; None: the bare text.
        """
        doc = self.harness.eval_docs[place]
        context = self.harness.fewshot_context(
            doc,
            num_fewshot=self.harness.config.num_fewshot or 0,
            apply_chat_template=chat is not None,
            fewshot_as_multiturn=chat is not None,
            chat_template=chat,
        )
        made = self.harness.construct_requests(
            doc=doc,
            ctx=context,
            metadata=(self.name, place, 1),
            apply_chat_template=chat is not None,
            chat_template=chat,
        )
        return made if isinstance(made, list) else [made]


def question_task(
    name: str,
    questions: Sequence[Question],
    shots: Sequence[Question],
    style: str,
    *,
    chat: bool,
    max_new_tokens: int,
) -> Task[Question]:
    """A set of AGIEval's questions, in the form of lm-eval's own task.

    With :data:`LOGLIKELIHOOD` each option's whole text is a continuation of the prompt. The likeliest is the answer:
    ``acc`` by the sum of its tokens' log-likelihoods, ``acc_norm`` by that sum for each character of the option. With
    :data:`GENERATE` the model writes an answer, and :func:`.answers.named_letter` finds the letter; without a chat
    template the answer ends at the first blank line.

    Args:
        name: the set.
        questions: its questions.
        shots: solved questions in front of each prompt, their answer being the right option, or its letter.
        style: one of :data:`STYLES`.
        chat: whether a chat template writes the prompts.
        max_new_tokens: longest generated answer, in tokens.
    """

    def doc(place: int, one: Question) -> dict[str, Any]:
        return {_ITEM: place, "query": one.prompt, "choices": list(one.options), "gold": one.gold}

    def letter(one: Mapping[str, Any]) -> str:
        every = shots if one[_ITEM] < 0 else questions
        found: Question = every[-1 - one[_ITEM] if one[_ITEM] < 0 else one[_ITEM]]
        return found.letters[found.gold]

    config: dict[str, Any] = {
        "task": f"agieval_{name}",
        "output_type": "multiple_choice" if style == LOGLIKELIHOOD else "generate_until",
        "doc_to_text": "query",
        "doc_to_target": "gold" if style == LOGLIKELIHOOD else letter,
        "num_fewshot": len(shots),
    }
    if shots:
        # Negative places tell solved questions from those of the set.
        config["fewshot_config"] = {
            "sampler": "first_n",
            "samples": [doc(-1 - place, one) for place, one in enumerate(shots)],
        }
    if style == LOGLIKELIHOOD:
        config["doc_to_choice"] = "choices"
    else:
        config["generation_kwargs"] = {
            "until": [] if chat else ["\n\n"],
            "do_sample": False,
            "max_gen_toks": max_new_tokens,
        }
    docs = [doc(place, one) for place, one in enumerate(questions)]
    outcome = _likeliest if style == LOGLIKELIHOOD else _written
    return Task(name, questions, style, _configurable(config, docs), outcome)


def _likeliest(question: Question, answers: Sequence[tuple[float, bool]]) -> dict[str, Any]:
    sums = [float(total) for total, _ in answers]
    shares = [total / len(option) for total, option in zip(sums, question.options, strict=True)]
    choice, choice_norm = (max(range(len(some)), key=some.__getitem__) for some in (sums, shares))
    return {
        "acc": int(choice == question.gold),
        "acc_norm": int(choice_norm == question.gold),
        "gold": question.letters[question.gold],
        "choice": question.letters[choice],
        "loglikelihoods": sums,
    }


def _written(question: Question, answers: Sequence[str]) -> dict[str, Any]:
    letter = named_letter(answers[0], question.letters)
    gold = question.letters[question.gold]
    return {"acc": int(letter == gold), "gold": gold, "choice": letter, "answer": answers[0]}


def prompt_task(prompts: Sequence[Prompt], *, max_new_tokens: int) -> Task[Prompt]:
    """IFEval's prompts, answered greedily, as in lm-eval's own task."""
    config = {
        "task": IFEVAL,
        "output_type": "generate_until",
        "doc_to_text": "query",
        "doc_to_target": 0,
        "num_fewshot": 0,
        "generation_kwargs": {"until": [], "do_sample": False, "max_gen_toks": max_new_tokens},
    }
    docs = [{_ITEM: place, "query": one.text} for place, one in enumerate(prompts)]
    return Task(IFEVAL, prompts, GENERATE, _configurable(config, docs), _followed)


def _followed(prompt: Prompt, answers: Sequence[str]) -> dict[str, Any]:
    return {
        "key": prompt.key,
        "kinds": [one.kind for one in prompt.instructions],
        "strict": [int(one) for one in strict(prompt.instructions, answers[0])],
        "loose": [int(one) for one in loose(prompt.instructions, answers[0])],
        "response": answers[0],
    }


def _configurable(config: Mapping[str, Any], docs: Sequence[Mapping[str, Any]]) -> Any:
    """lm-eval's task over rows in memory. Metrics are ours: see :attr:`Task.outcome`."""
    from datasets import Dataset

    rows = Dataset.from_list([dict(one) for one in docs])
    with quiet_harness():
        task = imported("lm_eval.api.task", "lm-eval")
        return task.ConfigurableTask(
            config={
                **config,
                "custom_dataset": lambda **_: {"test": rows},
                "test_split": "test",
                "process_results": _no_metrics,
                "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
            }
        )


def _no_metrics(_doc: Any, _results: Any) -> dict[str, Any]:
    return {}


@contextmanager
def quiet_harness() -> Iterator[None]:
    """Without lm-eval's log messages: what they say of cut prompts is counted and printed here."""
    log = logging.getLogger("lm_eval")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


__all__ = ["GENERATE", "LOGLIKELIHOOD", "STYLES", "Chat", "Task", "prompt_task", "question_task", "quiet_harness"]
