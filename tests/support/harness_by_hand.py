"""AGIEval and IFEval as a user of lm-eval would run them by hand: YAML tasks on local files, and lm-eval's own model.

Nothing of ``donod_fast`` is imported here: this is what its numbers are compared with.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_FUNCTIONS = """\
import csv
import ast

def process_docs(rows):
    return rows.map(as_doc, remove_columns=rows.column_names)

def as_doc(row):
    options = row["options"]
    printed = [one[1:2] for one in options if one[:1] == "(" and one[2:3] == ")"]
    letters = printed if sorted(printed) == list("ABCDE"[: len(options)]) else list("ABCDE"[: len(options)])
    query = (row["passage"] or "") + "Q: " + row["question"] + " Answer Choices: " + " ".join(options)
    query += chr(10) + "A: Among A through " + "ABCDE"[len(options) - 1] + ", the answer is"
    return {"query": query, "choices": options, "gold": letters.index(row["label"])}

def shots():
    with open(SHOTS, newline="") as file:
        rows = list(csv.reader(file))
    place = rows[0].index(NAME)
    return [as_doc(ast.literal_eval(row[place])) for row in rows[1::2] if row[place]]
"""

_TASK = """\
task: by_hand_{name}
dataset_path: json
dataset_kwargs:
  data_files: {{test: {file}}}
test_split: test
output_type: multiple_choice
process_docs: !function {module}.process_docs
fewshot_config:
  sampler: first_n
  samples: !function {module}.shots
doc_to_text: query
doc_to_target: gold
doc_to_choice: choices
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
"""

_PROMPTS = """\
task: by_hand_ifeval
dataset_path: json
dataset_kwargs:
  data_files: {{test: {file}}}
test_split: test
output_type: generate_until
doc_to_text: prompt
doc_to_target: "0"
generation_kwargs: {{until: [], do_sample: false, max_gen_toks: {tokens}}}
metric_list:
  - {{metric: bypass, aggregation: bypass, higher_is_better: true}}
"""


def _first_rows(source: Path, target: Path, limit: int, *fields: str) -> Path:
    rows = [json.loads(line) for line in source.read_text().splitlines()[:limit]]
    target.write_text("".join(json.dumps({name: row[name] for name in fields}) + "\n" for row in rows))
    return target


def questions_by_hand(
    model: Any, data: Path, work: Path, name: str, *, limit: int, few_shot: int = 0, chat: bool = False
) -> dict[str, Any]:
    """The result of lm-eval's ``simple_evaluate`` on the first questions of a set: log-likelihoods and accuracies."""
    module = f"functions_{name.replace('-', '_')}"
    file = _first_rows(data / f"{name}.jsonl", work / f"{name}.jsonl", limit, "passage", "question", "options", "label")
    constants = f"SHOTS = {str(data / 'few_shot_prompts.csv')!r}\nNAME = {name!r}\n"
    (work / f"{module}.py").write_text(constants + _FUNCTIONS)
    (work / f"{name}.yaml").write_text(_TASK.format(name=name, file=file, module=module))
    found = _evaluated(model, work, f"by_hand_{name}", few_shot, chat)
    samples = sorted(found["samples"][f"by_hand_{name}"], key=lambda one: one["doc_id"])
    return {
        "loglikelihoods": [[float(answer[0]) for answer in one["filtered_resps"]] for one in samples],
        "acc": found["results"][f"by_hand_{name}"]["acc,none"],
        "acc_norm": found["results"][f"by_hand_{name}"]["acc_norm,none"],
    }


def responses_by_hand(model: Any, file: Path, work: Path, *, limit: int, tokens: int) -> list[str]:
    """The responses to the first prompts of IFEval, with the chat template."""
    some = _first_rows(file, work / "prompts.jsonl", limit, "key", "prompt")
    (work / "prompts.yaml").write_text(_PROMPTS.format(file=some, tokens=tokens))
    samples = _evaluated(model, work, "by_hand_ifeval", 0, True)["samples"]["by_hand_ifeval"]
    return [one["filtered_resps"][0] for one in sorted(samples, key=lambda one: one["doc_id"])]


def by_hand_model(folder: Path | str, batch_size: int = 4, **more: Any) -> Any:
    """lm-eval's model of a folder, loaded by lm-eval."""
    from lm_eval.models.huggingface import HFLM

    with _quiet():
        return HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=batch_size, **more)


def _evaluated(model: Any, work: Path, task: str, few_shot: int, chat: bool) -> Mapping[str, Any]:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    with _quiet():
        found: Mapping[str, Any] | None = simple_evaluate(
            model=model,
            tasks=[task],
            task_manager=TaskManager(include_path=str(work), include_defaults=False),
            num_fewshot=few_shot,
            bootstrap_iters=0,
            apply_chat_template=chat,
        )
    assert found is not None
    return found


@contextlib.contextmanager
def _quiet() -> Any:
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield


__all__ = ["by_hand_model", "questions_by_hand", "responses_by_hand"]
