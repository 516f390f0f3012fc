"""Generation: a sample does not depend on its batch, stops where it should, and keeps all white space."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from eval_cases import DEMO_MODEL, code_tokenizer, human_eval_record, mbpp_record, write_records
from tiny_models import tiny_model
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from donod_fast.errors import InputError, ModelError
from donod_fast.evaluation import GenerationSettings, Problem, Sample, generate, load_problems
from donod_fast.evaluation.generation import continuation, prompt_ids
from donod_fast.evaluation.prompts import STOPS, Prompt, cut_at_stop
from donod_fast.evaluation.sampling import nucleus, uniforms
from donod_fast.evaluation.vllm_engine import generate_with_vllm, vllm_version


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def problems(tmp_path: Path) -> list[Problem]:
    records = []
    for at in range(6):
        record = human_eval_record(at)
        record["prompt"] = f'def add_{at}(x):\n    """{"Add. " * (at * at % 7)}"""\n'  # of several lengths
        records.append(record)
    return load_problems("humaneval", write_records(tmp_path / "p.jsonl", records))


def llama(**options: Any) -> Any:
    return tiny_model("llama", max_position_embeddings=256, **options)


def one_by_one(model: Any, tokenizer: Any, problems: list[Problem], settings: GenerationSettings) -> list[Sample]:
    return [sample for one in problems for sample in generate(model, tokenizer, [one], settings)]


def by_task(samples: list[Sample]) -> list[Sample]:
    return sorted(samples, key=lambda one: (one.task_id, one.index))


def greedy_by_hand(model: Any, ids: list[int], count: int, ends: set[int]) -> list[int]:
    """The likeliest token after the whole prefix, again and again: no cache, no batch, no padding."""
    new: list[int] = []
    for _ in range(count):
        with torch.no_grad():
            token = int(model(torch.tensor([ids + new])).logits[0, -1].argmax())
        if token in ends:
            break
        new.append(token)
    return new


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_batch_gives_what_plain_greedy_decoding_gives(problems: list[Problem], kind: str) -> None:
    model, tokenizer = tiny_model(kind, max_position_embeddings=256), code_tokenizer()
    settings = GenerationSettings(max_new_tokens=20)
    found = by_task(list(generate(model, tokenizer, problems, settings)))
    ends = {tokenizer.eos_token_id, tokenizer.pad_token_id}
    for sample, problem in zip(found, problems, strict=True):
        new = greedy_by_hand(model, prompt_ids(tokenizer, [Prompt(problem.prompt, False)])[0], 20, ends)
        assert sample.text == cut_at_stop(tokenizer.decode(new, skip_special_tokens=True), settings.stop_texts)


def test_samples_do_not_depend_on_the_batch(problems: list[Problem]) -> None:
    model, tokenizer = llama(), code_tokenizer()
    for settings in (
        GenerationSettings(max_new_tokens=24),
        GenerationSettings(max_new_tokens=24, temperature=0.9, top_p=0.9, samples_per_task=3, seed=5),
    ):
        alone = by_task(one_by_one(model, tokenizer, problems, settings))
        assert by_task(list(generate(model, tokenizer, problems, settings))) == alone
        assert len({one.text for one in alone}) > 3


def test_draws_depend_on_seed_task_and_number_alone(problems: list[Problem]) -> None:
    model, tokenizer = llama(), code_tokenizer()

    def texts(seed: int) -> list[str | None]:
        settings = GenerationSettings(max_new_tokens=16, temperature=1.0, samples_per_task=2, seed=seed)
        return [one.text for one in by_task(list(generate(model, tokenizer, problems, settings)))]

    assert texts(1) == texts(1) != texts(2)
    assert texts(1)[0] != texts(1)[1]
    torch.manual_seed(0)
    state = torch.get_rng_state()
    texts(1)
    assert torch.equal(torch.get_rng_state(), state)  # the caller's random numbers are its own


def test_the_nucleus_is_drawn_from_by_its_probabilities() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    draws = torch.from_numpy(uniforms(0, "t", 0, 20_000))
    logits = probabilities.log()[[2, 0, 3, 1]].expand(len(draws), -1)  # not in order
    tokens = nucleus(logits, draws, 1.0, 0.75).numpy()
    shares = np.bincount(tokens, minlength=4) / len(tokens)
    # 0.5 alone is not 0.75 of the mass, with 0.3 it is: the set is those two.
    assert shares == pytest.approx([0.0, 0.625, 0.0, 0.375], abs=0.015)
    colder = nucleus(logits, draws, 0.5, 1.0).numpy()
    squares = np.array([0.15, 0.5, 0.05, 0.3]) ** 2
    assert np.bincount(colder, minlength=4) / len(colder) == pytest.approx(squares / squares.sum(), abs=0.015)
    edge = nucleus(logits[:2], torch.tensor([0.0, np.nextafter(1.0, 0.0)]), 1.0, 1.0)
    assert edge.tolist() == [1, 2]  # the likeliest and the last


class Script:
    """Makes a tiny model say given texts after its prompt: the logits of what comes next are one-hot."""

    def __init__(self, tokenizer: Any, says: Callable[[str], str]) -> None:
        self.model = llama()
        self.steps = 0
        self._tokenizer, self._says = tokenizer, says
        forward = self.model.forward

        def scripted(input_ids: Any = None, attention_mask: Any = None, **others: Any) -> Any:
            out = forward(input_ids=input_ids, attention_mask=attention_mask, **others)
            if input_ids.shape[1] > 1:
                self._seen = [row[mask.bool()].tolist() for row, mask in zip(input_ids, attention_mask, strict=True)]
                self._plans = [self._plan(row) for row in self._seen]
                self.steps = 0
            wanted = [plan[min(self.steps, len(plan) - 1)] for plan in self._plans]
            out.logits = torch.full_like(out.logits, -50.0)
            out.logits[torch.arange(len(wanted)), -1, torch.tensor(wanted)] = 50.0
            self.steps += 1
            return out

        self.model.forward = scripted

    def _plan(self, ids: list[int]) -> list[int]:
        text = self._says(self._tokenizer.decode(ids, skip_special_tokens=True))
        return [*self._tokenizer(text, add_special_tokens=False)["input_ids"], self._tokenizer.eos_token_id]


def test_a_row_ends_at_its_stop_at_its_end_token_or_at_the_limit(problems: list[Problem]) -> None:
    tokenizer = code_tokenizer()
    texts = {0: "    return 1\nclass A:\n  pass", 1: "    return 2", 2: "    return " + "3" * 80}
    script = Script(tokenizer, lambda prompt: texts[int(prompt.split("add_")[1][0])])
    settings = GenerationSettings(max_new_tokens=40)
    found = by_task(list(generate(script.model, tokenizer, problems[:3], settings)))
    assert [one.text for one in found] == ["    return 1", "    return 2", "    return " + "3" * 29]
    assert [one.ended for one in found] == ["stop", "end", "length"]
    assert found[0].program == problems[0].prompt + "    return 1"


def test_a_batch_ends_a_few_tokens_after_its_last_row_stops(problems: list[Problem]) -> None:
    tokenizer = code_tokenizer()
    script = Script(tokenizer, lambda _: "    return 1\ndef f():\n" + "    pass\n" * 30)
    found = list(generate(script.model, tokenizer, problems, GenerationSettings(max_new_tokens=200)))
    assert {one.text for one in found} == {"    return 1"}
    assert script.steps <= len("    return 1\ndef") + 4


# The tiny tokenizer has no backtick.
@pytest.mark.parametrize("stop", [one for one in STOPS["completion"] if "`" not in one])
def test_every_stop_is_seen_while_generating(problems: list[Problem], stop: str) -> None:
    tokenizer = code_tokenizer()
    script = Script(tokenizer, lambda _: "    pass" + stop + " x" * 90)
    found = list(generate(script.model, tokenizer, problems[:2], GenerationSettings(max_new_tokens=150)))
    assert {one.text for one in found} == {"    pass"} and script.steps < 30


def test_a_prompt_that_fills_the_context_gives_an_empty_sample(problems: list[Problem]) -> None:
    model, tokenizer = tiny_model("llama", max_position_embeddings=40), code_tokenizer()
    settings = GenerationSettings(max_new_tokens=30)
    found = by_task(list(generate(model, tokenizer, problems, settings)))
    lengths = [len(prompt_ids(tokenizer, [Prompt(one.prompt, False)])[0]) for one in problems]
    assert max(lengths) > 40 > min(lengths)
    for sample, length in zip(found, lengths, strict=True):
        assert (sample.ended == "prompt_too_long") == (length >= 40)
        assert sample.tokens <= max(0, 40 - length)


def test_only_the_end_tokens_of_the_models_generation_settings_apply(problems: list[Problem]) -> None:
    tokenizer = code_tokenizer()
    settings = GenerationSettings(max_new_tokens=24, stops=("@@@",))
    plain = by_task(list(generate(llama(), tokenizer, problems, settings)))
    model = llama()
    model.generation_config.repetition_penalty = 3.0
    model.generation_config.do_sample = True
    model.generation_config.temperature = 5.0
    model.train()
    own = model.generation_config
    assert by_task(list(generate(model, tokenizer, problems, settings))) == plain
    assert model.generation_config is own and model.training  # all given back
    seen = next(one.text for one in plain if one.text and len(one.text) > 3)
    ends_there = tokenizer(seen[2], add_special_tokens=False)["input_ids"][0]
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, ends_there]
    cut = by_task(list(generate(model, tokenizer, problems, settings)))
    assert [one.text for one in cut] == [(one.text or "").split(seen[2])[0] for one in plain]


def test_samples_that_are_there_are_not_made_again(problems: list[Problem]) -> None:
    settings = GenerationSettings(max_new_tokens=4, temperature=1.0, samples_per_task=2)
    found = list(generate(llama(), code_tokenizer(), problems, settings, done=[("Fam/0", 1), ("Fam/3", 0)]))
    assert len(found) == 10 and not {("Fam/0", 1), ("Fam/3", 0)} & {(one.task_id, one.index) for one in found}


def test_a_batch_that_does_not_fit_is_halved(problems: list[Problem]) -> None:
    model, tokenizer = llama(), code_tokenizer()
    settings = GenerationSettings(max_new_tokens=8)
    plain = by_task(list(generate(model, tokenizer, problems, settings)))
    inner, sizes = model.generate, []

    def small(ids: Any, **options: Any) -> Any:
        sizes.append(len(ids))
        if len(ids) > 2:
            raise torch.OutOfMemoryError
        return inner(ids, **options)

    with mock.patch.object(model, "generate", small):
        assert by_task(list(generate(model, tokenizer, problems, settings))) == plain
    assert sizes == [6, 3, 1, 1, 1, 1, 1, 1]
    with (
        mock.patch.object(model, "generate", side_effect=torch.OutOfMemoryError),
        pytest.raises(ModelError, match="not enough memory"),
    ):
        list(generate(model, tokenizer, problems[:1], settings))


def test_chat_prompts_end_with_the_templates_generation_prompt(problems: list[Problem]) -> None:
    model, tokenizer = tiny_model("llama", max_position_embeddings=1024), code_tokenizer()
    seen = []
    inner = model.generate

    def spy(ids: Any, **options: Any) -> Any:
        seen.append(tokenizer.decode(ids[0]))
        return inner(ids, **options)

    with mock.patch.object(model, "generate", spy):
        list(generate(model, tokenizer, problems[:1], GenerationSettings(style="chat", max_new_tokens=2)))
    assert seen[0].startswith("<|user|>Complete the following") and seen[0].endswith("<|end|><|assistant|>")


def test_leading_spaces_of_a_completion_are_kept() -> None:
    # As tokenizers of SentencePiece's kind do (Llama 2): a text that begins with a space loses it.
    vocabulary = {"<unk>": 0, **{one: at for at, one in enumerate("\n▁abcdefghijklmnopqrstuvwxyz():", start=1)}}
    plain = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    plain.normalizer = normalizers.Replace(" ", "▁")
    plain.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="<unk>")
    before, new = (tokenizer(text)["input_ids"] for text in ("def f(x):\n", "    return x\n"))
    assert tokenizer.decode(new) == "   return x\n"
    assert continuation(tokenizer, before, new) == "    return x\n"
    assert continuation(tokenizer, before[:0], new) == "   return x\n"  # nothing before it that could tell


def test_settings_that_cannot_be_are_refused_by_name(problems: list[Problem], tmp_path: Path) -> None:
    for options in (
        {"style": "5-shot"}, {"samples_per_task": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"max_new_tokens": 0},
        {"samples_per_task": 2}, {"stops": ("",)}, {"batch_rows": 0},
    ):  # fmt: skip
        with pytest.raises(InputError, match=next(iter(options)).rstrip("s").replace("_", ".")):
            GenerationSettings(**options)  # type: ignore[arg-type]
    mbpp = load_problems("mbpp", write_records(tmp_path / "m.jsonl", [mbpp_record(11)]))
    with pytest.raises(InputError, match="shots=find_shots"):
        list(generate(llama(), code_tokenizer(), mbpp, GenerationSettings(style="3-shot")))


def test_vllm_is_asked_for_the_same_prompts_and_stops(problems: list[Problem]) -> None:
    asked: list[Any] = []

    class Engine:
        def __init__(self, **options: Any) -> None:
            asked.append(options)

        def get_tokenizer(self) -> Any:
            return code_tokenizer()

        def generate(self, prompts: list[Any], parameters: list[Any], use_tqdm: bool) -> list[Any]:
            asked.append((prompts, parameters))
            one = SimpleNamespace(text="    return 1\ndef", token_ids=[1, 2], finish_reason="stop", stop_reason="\ndef")
            return [SimpleNamespace(outputs=[one]) for _ in prompts]

    fake = SimpleNamespace(__version__="9", LLM=Engine, SamplingParams=lambda **options: options)
    settings = GenerationSettings(temperature=0.2, top_p=0.95, samples_per_task=2, max_new_tokens=7)
    with mock.patch.dict("sys.modules", {"vllm": fake}):
        found = list(generate_with_vllm("some/model", problems[:2], settings, done=[("Fam/0", 0)]))
    assert [(one.task_id, one.index) for one in found] == [("Fam/0", 1), ("Fam/1", 0), ("Fam/1", 1)]
    assert {(one.text, one.ended) for one in found} == {("    return 1", "stop")}
    prompts, parameters = asked[1]
    assert prompts[0]["prompt_token_ids"] == prompt_ids(code_tokenizer(), [Prompt(problems[0].prompt, False)])[0]
    assert parameters[0]["stop"] == list(STOPS["completion"]) and parameters[0]["max_tokens"] == 7
    assert parameters[1]["seed"] != parameters[2]["seed"]


def test_without_vllm_the_error_says_so() -> None:
    with mock.patch.dict("sys.modules", {"vllm": None}), pytest.raises(InputError, match="--engine vllm needs vLLM"):
        vllm_version()


def test_the_embedded_model_writes_programs(problems: list[Problem]) -> None:
    from donod_fast.models.loading import load_model

    loaded = load_model(DEMO_MODEL, device="cpu")
    found = list(generate(loaded.model, loaded.tokenizer, problems, GenerationSettings(max_new_tokens=8)))
    assert len(found) == 6 and all(one.tokens <= 8 for one in found)
