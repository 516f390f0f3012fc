"""A small tokenizer and chat templates, short enough to read in the tests.

The templates imitate those of well-known model families, in our own words. They differ in where they put generation
marks, what they refuse, and how they treat a turn that is not the last.
"""

from __future__ import annotations

from functools import cache
from typing import Any
from unittest.mock import patch

from donod_fast.data.formats import Reading
from donod_fast.data.masking import Masker, MaskSettings
from donod_fast.data.types import Conversation, Message, Record, Sample, TokenizedSample

SENTENCES = [
    "How many apples are left when she gives two of them to a friend?",
    "She has 3 apples left, because 5 - 2 = 3.\n\n#### 3",
    "Write a short poem about the sea and its waves.",
    "The weather in Paris is sunny today, with a light wind.",
    "User: hello\n\nAssistant: hello, how can I help you?",
    "### Instruction:\nList three colours.\n\n### Response:\nRed, green, blue.",
    'call the function {"name": "weather", "arguments": {"city": "Paris"}}',
]
SPECIALS = ["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]

# No marks at all, as stock templates of Llama 3.1, Qwen3 and Gemma 3 have none.
UNMARKED = """\
{% for m in messages %}<|im_start|>{{ m['role'] }}
{{ m['content'] }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

MARKED = """\
{% for m in messages %}<|im_start|>{{ m['role'] }}
{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}
{% else %}{{ m['content'] }}<|im_end|>{% endif %}
{{ '\n' }}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

# Thinking of earlier turns is dropped, and the last turn gets an (empty) thinking block: Qwen3's habit.
THINKING = """\
{% for m in messages %}<|im_start|>{{ m['role'] }}
{% if m['role'] == 'assistant' %}
{%- set answer = m['content'].split('</think>')[-1].lstrip() %}
{%- set thoughts = '' %}
{%- if '</think>' in m['content'] %}
{%- set thoughts = m['content'].split('</think>')[0].split('<think>')[-1].strip() %}
{%- endif %}
{%- if loop.last %}{{ '<think>\n' + thoughts + '\n</think>\n\n' }}{% endif %}{{ answer }}
{%- for c in m['tool_calls'] or [] %}
{{- '<call>' + (c['function'] | tojson) + '</call>' }}
{%- endfor %}
{%- else %}{{ m['content'] }}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

# Strict turns, another name for the assistant, no system role: Gemma's habit.
STRICT = """\
{% for m in messages %}
{% if m['role'] not in ('user', 'assistant') %}{{ raise_exception('role not supported') }}{% endif %}
{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('must alternate') }}{% endif %}
<|im_start|>{{ 'model' if m['role'] == 'assistant' else 'user' }}
{{ m['content'] | trim }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>model
{% endif %}"""

# Tools and one call a turn, whose content is then left out: Llama 3.1's habit.
WITH_TOOLS = """\
{% if tools %}<|im_start|>system
{{ tools | tojson }}<|im_end|>
{% endif %}
{% for m in messages %}<|im_start|>{{ m['role'] }}
{% if m['tool_calls'] %}
{% if m['tool_calls'] | length != 1 %}{{ raise_exception('one call at a time') }}{% endif %}
{{ m['tool_calls'][0]['function'] | tojson }}<|im_end|>
{% else %}{{ m['content'] }}<|im_end|>
{% endif %}
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


@cache
def tiny_tokenizer() -> Any:
    """A byte-level BPE with BOS, EOS and padding, 600 tokens, no chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        SENTENCES * 3,
        trainers.BpeTrainer(vocab_size=600, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        model_max_length=64,
        clean_up_tokenization_spaces=False,
    )


@cache
def tokenizer_with(template: str) -> Any:
    """The tiny tokenizer with a chat template of its own."""
    from copy import deepcopy

    tokenizer = deepcopy(tiny_tokenizer())
    tokenizer.chat_template = template
    return tokenizer


def masker(own: str | None = None, /, *, tokenizer: Any = None, **settings: Any) -> Masker:
    """A masker whose tokenizer has the template text ``own``, if any, and with these settings."""
    if tokenizer is None:
        tokenizer = tiny_tokenizer() if own is None else tokenizer_with(own)
    return Masker(tokenizer, MaskSettings(**settings), vocab_size=len(tokenizer))


def chat(*turns: tuple[str, str] | Message, tools: tuple[dict[str, Any], ...] = ()) -> Conversation:
    """A conversation from (role, content) pairs and messages."""
    return Conversation(tuple(t if isinstance(t, Message) else Message(*t) for t in turns), tools)


def scored_runs(row: TokenizedSample, tokenizer: Any) -> list[str]:
    """The text of every run of scored tokens."""
    runs: list[list[int]] = []
    previous = False
    for token, flag in zip(row.input_ids, row.scored, strict=True):
        if flag and not previous:
            runs.append([])
        if flag:
            runs[-1].append(token)
        previous = flag
    return [tokenizer.decode(run) for run in runs]


TURNS = (
    ("system", "Be kind."),
    ("user", "First?"),
    ("assistant", "One."),
    ("user", "Then?"),
    ("assistant", "Two."),
)
"""Two questions and answers under a system message."""


def row_of(sample: Sample, own: str | None = None, /, **given: Any) -> TokenizedSample:
    """One sample through a masker, whose tokenizer has the template ``own``."""
    return tokenize_sample(masker(own, **given), sample)


def tokenize_sample(masker: Masker, sample: Sample) -> TokenizedSample:
    """One sample through a masker, as if a record had held it."""
    with patch("donod_fast.data.masking.read_record", return_value=Reading(sample)):
        return masker.tokenize(Record(row=0, file="-", place="sample", data={}))


def record(data: dict[str, Any], row: int = 0) -> Record:
    """A record as line ``row + 1`` of a file."""
    return Record(row=row, file="data.jsonl", place=f"line {row + 1}", data=data)
