"""Hostile and huge inputs through the real command line: one status or one clear error, within time and memory."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from attack_counts import Attacks
from costly_templates import COSTLY
from forked_runs import ForkServer, Run
from hostile_inputs import GOOD, HOSTILE, LETTERS, Hostile, gzip_of, line
from tiny_models import CHAT_TEMPLATE, save_tiny

PEAK = 1 << 30
"""Memory that a run may take beyond an ordinary one, in bytes; most take a tenth of it."""

SHARE = ("blank.jsonl.gz", "quote.csv", "odd.jsonl", "dictionary.parquet")
"""Inputs of the suite's share: those that cost the least."""

Attack = Callable[..., Run]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("llama", tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    folder = tmp_path_factory.mktemp("warm")
    good = folder / "good.jsonl"
    good.write_bytes(b"".join(map(line, GOOD)))
    with ForkServer(("score", good, "--model", model, "--out", folder / "out", "--device", "cpu", "-q")) as server:
        yield server


@pytest.fixture(scope="module")
def score(server: ForkServer, model: Path) -> Attack:
    def score(data: Path, out: Path, *options: object, of: Path | None = None) -> Run:
        return server.run("score", data, "--model", of or model, "--out", out, "--device", "cpu", *options)

    return score


def scores(out: Path) -> list[dict[str, Any]]:
    return [row for part in sorted(out.glob("part-*")) for row in pq.read_table(part).to_pylist()]


def numbers(rows: list[dict[str, Any]]) -> list[tuple[float, float]]:
    return [(row["don"], row["nod"]) for row in rows if row["status"] == "scored"]


@pytest.fixture(scope="module")
def wanted(score: Attack, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[float, float]]:
    """The scores of the good rows alone."""
    folder = tmp_path_factory.mktemp("wanted")
    (folder / "good.jsonl").write_bytes(b"".join(map(line, GOOD)))
    assert score(folder / "good.jsonl", folder / "out").code == 0
    return numbers(scores(folder / "out"))


def complaint(case: Hostile, done: Run, out: Path, wanted: list[tuple[float, float]]) -> str:
    """What is wrong with how a run ended; "" if nothing is."""
    if not done.is_clean or done.peak > PEAK:
        return f"code {done.code}, {done.peak >> 20} MiB: {done.err[-500:]}"
    rows = scores(out)
    told = done.err + "".join(row["detail"] for row in rows)
    if not all(part in told for part in (case.name, *case.told)):
        return f"the message does not say {case.told}: {told[-500:]}"
    if not case.rows:
        return "" if done.code else "it was scored"
    found = numbers(rows)
    same = len(found) == case.rows and set(found) >= set(wanted[: case.rows])
    return "" if done.code == 0 and same else f"{len(found)} rows are scored"


@pytest.mark.attack
def test_hostile_corpora_end_in_a_status_or_one_clear_error(
    attacks: Attacks, score: Attack, wanted: list[tuple[float, float]], tmp_path: Path
) -> None:
    cases = [case for case in HOSTILE if attacks.full or case.name in SHARE]
    wrong: dict[str, list[str]] = {case.kind: [] for case in cases}
    for number, case in enumerate(cases):
        data, out = tmp_path / f"{number}" / case.name, tmp_path / f"out{number}"
        data.parent.mkdir()
        case.write(data)
        if found := complaint(case, score(data, out), out, wanted):
            wrong[case.kind].append(f"{case.name}: {found}")
        data.unlink()
    for kind, those in wrong.items():
        tried = sum(case.kind == kind for case in cases)
        attacks.count("inputs", kind, tried=tried, got_through=len(those))
    assert not [one for those in wrong.values() for one in those]


@pytest.mark.attack
def test_costly_chat_templates_are_refused(attacks: Attacks, score: Attack, tmp_path: Path) -> None:
    names = list(COSTLY)[:: 1 if attacks.full else 9]
    (tmp_path / "good.jsonl").write_bytes(b"".join(map(line, GOOD)))
    wrong = []
    for name in names:
        template = tmp_path / "costly.jinja"
        template.write_text(COSTLY[name] + CHAT_TEMPLATE)
        done = score(tmp_path / "good.jsonl", tmp_path / "out", "--template", template)
        if not done.is_clean or done.code != 4 or "costly.jinja" not in done.err or done.peak > PEAK:
            wrong.append(f"{name}: {done.code} {done.err[-300:]}")
    attacks.count("inputs", "chat template", tried=len(names), got_through=len(wrong))
    assert not wrong


@pytest.mark.attack
def test_a_row_for_which_a_template_loops_does_not_stop_the_others(
    attacks: Attacks, score: Attack, wanted: list[tuple[float, float]], tmp_path: Path
) -> None:
    names = list(COSTLY)[:-4][:: 4 if attacks.full else 20]
    wrong = []
    data = tmp_path / "some.jsonl"
    data.write_bytes(b"".join(map(line, [*GOOD, {"question": "trigger", "answer": "a"}])))
    for number, name in enumerate(names):
        template, out = tmp_path / f"{number}.jinja", tmp_path / f"out{number}"
        condition = "{% if messages and messages[0].content == 'trigger' %}"
        template.write_text(condition + COSTLY[name] + "{% endif %}" + CHAT_TEMPLATE)
        done = score(data, out, "--template", template)
        statuses = [row["status"] for row in scores(out)]
        if not done.is_clean or statuses != ["scored"] * len(GOOD) + ["template_failed"]:
            wrong.append(f"{name}: {done.code} {statuses} {done.err[-300:]}")
        elif numbers(scores(out)) != wanted:
            wrong.append(f"{name}: other scores")
    attacks.count("inputs", "chat template, one row", tried=len(names), got_through=len(wrong))
    assert not wrong


ODD_VALUES = (0, -1, 10**9, 10**12, 10**30, 1.5, math.nan, math.inf, "a", [], {}, [1], {"a": {"b": 1}}, "x" * 10_000)
SIZES = ("num_hidden_layers", "hidden_size", "vocab_size", "num_attention_heads", "num_key_value_heads")
KEYS = (
    *("intermediate_size", "max_position_embeddings", "rope_scaling", "rope_parameters", "architectures", "model_type"),
    *("hidden_act", "rms_norm_eps", "layer_types", "head_dim", "torch_dtype", "quantization_config"),
    *SIZES,
)


@pytest.mark.attack
def test_absurd_model_configs_are_refused(attacks: Attacks, score: Attack, model: Path, tmp_path: Path) -> None:
    draw = random.Random(5)
    pairs = [(key, value) for key in KEYS for value in ODD_VALUES]
    must = [(key, value) for key in SIZES[:4] for value in (0, -1, 10**9, 10**12, 1.5, "a", {})]
    chosen = draw.sample(must, attacks.number(3, len(must))) + draw.sample(pairs, attacks.number(3, len(pairs)))
    folder, data = tmp_path / "model", tmp_path / "good.jsonl"
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    data.write_bytes(b"".join(map(line, GOOD)))
    plain = json.loads((model / "config.json").read_text())
    texts = {f"{key} = {value!r:.30}": json.dumps({**plain, key: value}) for key, value in chosen}
    texts |= {"deep": '{"a": ' * 10**5 + "1" + "}" * 10**5, "list": "[]", "text": "no", "empty": ""}
    wrong = []
    for name, text in texts.items():
        (folder / "config.json").write_text(text)
        done = score(data, tmp_path / "out", "--overwrite", of=folder)
        refused = done.code == 4 or not any(name == f"{key} = {value!r:.30}" for key, value in must)
        if not done.is_clean or not refused or done.peak > PEAK:
            wrong.append(f"{name}: {done.code} {done.peak >> 20} MiB {done.err[-300:]}")
    attacks.count("inputs", "model config", tried=len(texts), got_through=len(wrong))
    assert not wrong


LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))
YAML = {
    "aliases": LAUGHS,
    "itself": "train: &t\n  model: *t\n",
    "deep lists": "train: " + "[" * 100_000 + "]" * 100_000,
    "deep mappings": "".join(" " * n + f"a{n}:\n" for n in range(300)),
    "hyphens": "name: x\ntrain:\n  max-length: 5\n",
    "twice": "name: x\nname: y\n",
    "tabs": "train:\n\tmodel: x\n",
    "digits": "name: " + "9" * 100_000,
    "no such date": "name: 2024-13-45\n",
    "date as key": "2024-01-01: x\n",
    "list as key": "? [a, b]\n: x\n",
    "numbers as keys": "train: {1: 2}\n",
    "not a number": "train: {learning_rate: .nan}\n",
    "tag": "name: !!python/object/apply:os.system [true]\n",
    "large": "name: x\n" + "# comment\n" * 200_000,
    "several documents": "name: x\n---\nname: y\n",
    "set": "name: !!set {a, b}\n",
    "binary": "name: !!binary '//8='\n",
    "nothing": "",
    "text": "just words",
    "long key": "k" * 100_000 + ": 1\n",
}


@pytest.mark.attack
@pytest.mark.parametrize("command", ["recipe", "config", "damoc"])
def test_hostile_yaml_is_refused_by_file_and_key(
    attacks: Attacks, server: ForkServer, model: Path, tmp_path: Path, command: str
) -> None:
    names = list(YAML) if attacks.full else ["aliases", "itself", "hyphens", "digits"]
    data, file = tmp_path / "good.jsonl", tmp_path / "hostile.yaml"
    data.write_bytes(b"".join(map(line, GOOD)))
    arguments: dict[str, tuple[object, ...]] = {
        "recipe": ("train", file, "--out", tmp_path / "out"),
        "config": (
            "score",
            data,
            "--model",
            model,
            "--device",
            "cpu",
            "--dry-run",
            "--out",
            tmp_path,
            "--config",
            file,
        ),
        "damoc": ("damoc", file, "--out", tmp_path / "out"),
    }
    wrong = []
    for name in [*names, "not UTF-8"]:
        file.write_bytes(YAML[name].encode() if name in YAML else b"name: \xe9\n")
        done = server.run(*arguments[command])
        told = name != "hyphens" or command == "config" or "max-length" in done.err
        is_refused = done.code == 2 or (command == "config" and name in ("nothing", "large"))
        if not done.is_clean or not is_refused or not told or done.peak > PEAK or len(done.err) > 5000:
            wrong.append(f"{name}: {done.code} {done.peak >> 20} MiB {done.err[-300:]}")
    attacks.count("inputs", f"YAML of {command}", tried=len(names) + 1, got_through=len(wrong))
    assert not wrong


SAMPLES = {
    "bomb": None,
    "deep": b'{"task_id": "HumanEval/0", "completion": ' + b"[" * 10**6 + b"]" * 10**6 + b"}\n",
    "almost too deep": b'{"task_id": "HumanEval/0", "completion": ' + b"[" * 900 + b"]" * 900 + b"}\n",
    "digits": b'{"task_id": ' + b"9" * 10**5 + b"}\n",
    "long line": b'{"task_id": "HumanEval/0", "completion": "' + LETTERS * 40 + b'"}\n',
    "keys": b'{"task_id": "a", "task_id": 1e999}\n',
    "nothing": b"",
    "NUL": bytes(1 << 20),
}


@pytest.mark.attack
@pytest.mark.parametrize("option", ["--samples", "--problems"])
def test_hostile_files_of_benchmarks_are_refused(
    attacks: Attacks, server: ForkServer, tmp_path: Path, option: str
) -> None:
    names = list(SAMPLES) if attacks.full else ["bomb", "deep"]
    problem = {"task_id": "HumanEval/0", "prompt": "def f():\n", "entry_point": "f", "canonical_solution": "    pass\n",
               "test": "def check(f):\n    assert f() is None\n"}  # fmt: skip
    (tmp_path / "problems.jsonl").write_bytes(line(problem))
    (tmp_path / "samples.jsonl").write_bytes(line({"task_id": "HumanEval/0", "completion": "    pass\n"}))
    wrong = []
    for name in names:
        file = tmp_path / ("hostile.jsonl.gz" if name == "bomb" else "hostile.jsonl")
        content = SAMPLES[name]
        if content is None:
            gzip_of(file, (b'{"task_id": "', 1), (LETTERS, attacks.number(1, 20) * 1024))
        else:
            file.write_bytes(content)
        files = {"--samples": tmp_path / "samples.jsonl", "--problems": tmp_path / "problems.jsonl", option: file}
        done = server.run(
            "eval", "humaneval", *(one for pair in files.items() for one in pair), "--out", tmp_path / "o"
        )
        if not done.is_clean or done.code != 3 or file.name not in done.err or done.peak > PEAK:
            wrong.append(f"{name}: {done.code} {done.peak >> 20} MiB {done.err[-300:]}")
    attacks.count("inputs", f"benchmark's {option[2:]}", tried=len(names), got_through=len(wrong))
    assert not wrong


def test_a_row_that_is_too_large_is_not_read_again_on_resume(
    score: Attack, wanted: list[tuple[float, float]], tmp_path: Path
) -> None:
    data, out = tmp_path / "rows.jsonl", tmp_path / "out"
    big = line({"question": "a " * (1 << 20), "answer": "b"})
    data.write_bytes(b"".join(map(line, GOOD[:3])) + big + b"".join(map(line, GOOD[3:])))
    assert score(data, out, "--max-record-size", 1).code == 0
    rows = scores(out)
    assert [row["status"] for row in rows].count("not_parsable") == 1 and len(numbers(rows)) == len(GOOD)
    entry = json.loads((out / "manifest.json").read_text())["input"]["inputs"][0]
    assert entry["longest"] == len(big) - 1
    changed = score(data, out)
    assert changed.code == 5 and "--rescore-changed" in changed.err
    assert score(data, out, "--max-record-size", 1).code == 0
    assert score(data, out, "--rescore-changed").code == 0
    assert [row["status"] for row in scores(out)].count("not_parsable") == 0


def test_arrow_values_beyond_the_file_are_refused(score: Attack, tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_list(GOOD).save_to_disk(tmp_path / "saved")
    (file,) = (tmp_path / "saved").glob("*.arrow")
    content = bytearray(file.read_bytes())
    offsets = b"".join(length.to_bytes(4, "little") for length in (0, 13, 26, 39))
    at = content.index(offsets)
    content[at + 8 : at + 12] = (1 << 30).to_bytes(4, "little")
    file.write_bytes(bytes(content))
    done = score(tmp_path / "saved", tmp_path / "out")
    assert done.code == 3 and done.is_clean and "cannot be read" in done.err, done


def test_nothing_is_lost_of_a_table_with_a_large_dictionary(tmp_path: Path) -> None:
    from donod_fast.data.reading import open_corpus

    # Text without repetitions: as a file it has more than the hundredth part of its bytes.
    texts = [random.Random(1).randbytes(1 << 20).hex(), "b"]
    column = pa.DictionaryArray.from_arrays(pa.array([0, 1] * 20, pa.int32()), pa.array(texts))
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet", store_schema=False)
    records = open_corpus([str(tmp_path / "a.parquet")]).records()
    assert [len(record.data["text"]) for record in records if record.data] == [2 << 20, 1] * 20
