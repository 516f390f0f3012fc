"""``donod-fast bench``: operation counts, drawn lengths, and a table with the reason for each program not run."""

from __future__ import annotations

import csv
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import mean, quantiles
from typing import Any

import pytest
import torch
import typer
from score_runs import write_lines
from tiny_models import save_tiny, tiny_model, tiny_tokenizer
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from donod_fast.benchmark import programs, record, run, table, timing
from donod_fast.benchmark.corpus import LENGTHS, QUANTILES, random_samples, write_tokens
from donod_fast.benchmark.models import random_model
from donod_fast.benchmark.paper_loop import score_sample
from donod_fast.benchmark.picture import PICTURE_NAME
from donod_fast.benchmark.programs import Program, Step
from donod_fast.benchmark.run import run_benchmark
from donod_fast.benchmark.settings import DEFAULTS, BenchmarkSettings
from donod_fast.benchmark.table import Measured, table_rows
from donod_fast.benchmark.work import Work, work_of
from donod_fast.cli.bench import bench
from donod_fast.data.masking import MaskSettings
from donod_fast.data.reading import open_corpus
from donod_fast.data.types import Status, TokenizedSample
from donod_fast.errors import InputError, ModelError
from donod_fast.models.batching import used_tokens
from donod_fast.models.loading import wrap_model
from donod_fast.models.shapes import SHAPES, ModelShape
from donod_fast.models.trunk import Trunk
from donod_fast.scoring.scorer import Scorer

CPU = torch.device("cpu")
SMALL = ModelShape("tiny", "llama", 300, 32, 2, 48, 4, 2, 1024, small=True)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shape ``tiny`` is smaller still, and nothing can be compiled (which would take most of a minute)."""
    monkeypatch.setitem(SHAPES, "tiny", SMALL)
    monkeypatch.setattr("donod_fast.models.compiled_trunk.why_not_inductor", lambda: "there is no C++ compiler")


def sample_of(ids: tuple[int, ...], prompt: int, row: int = 0) -> TokenizedSample:
    scored = tuple(place >= prompt for place in range(len(ids)))
    return TokenizedSample(row, f"row{row}", Status.SCORED, "", ids, scored, len(ids), False, "tokenized", "labels")


# --- shapes and operations


@pytest.mark.parametrize(
    ("name", "published"),
    [("llama-2-7b", 6_738_415_616), ("llama-3.1-8b", 8_030_261_248), ("qwen2.5-7b", 7_615_616_512)],
)
def test_a_shape_has_as_many_parameters_as_its_model(name: str, published: int) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(SHAPES[name].config(), dtype=torch.bfloat16)
    assert sum(parameter.numel() for parameter in model.parameters()) == published
    assert tuple(model.lm_head.weight.shape) == (SHAPES[name].vocab, SHAPES[name].dim)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "gpt2", "phi"])
def test_operations_are_those_that_pytorch_counts(kind: str) -> None:
    # The fused attention of a CPU is one that PyTorch does not count.
    loaded = wrap_model(tiny_model(kind, attn_implementation="eager"), tiny_tokenizer())
    trunk = Trunk(loaded)
    weight = loaded.model.get_output_embeddings().weight
    work = work_of(loaded, trunk.decoder, weight)
    length = 24
    with FlopCounterMode(display=False) as counter:
        hidden = trunk(torch.arange(length)[None] + 5)
    # PyTorch also counts attention to later tokens: all length² pairs.
    # To a thousandth: some releases of transformers also compute the angles of rotary positions by a product.
    assert counter.get_total_flops() == pytest.approx(work.linear * length + work.attention * length**2, rel=1e-3)
    with FlopCounterMode(display=False) as counter:
        torch.nn.functional.linear(hidden[0, :7], weight.detach())
    assert counter.get_total_flops() == 7 * work.head


def test_the_large_shapes_cost_what_is_known_of_them() -> None:
    for name, giga in (("llama-2-7b", 12.95), ("llama-3.1-8b", 13.96), ("qwen2.5-7b", 13.05)):
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(SHAPES[name].config(), dtype=torch.bfloat16)
        loaded = wrap_model(model, tiny_tokenizer())
        work = work_of(loaded, model.model, model.lm_head.weight)
        assert work.linear / 1e9 == pytest.approx(giga, abs=0.01)
        assert sum(count for _, count in work.matrices) == 7 * SHAPES[name].layers


def test_only_needed_tokens_and_pairs_within_a_sample_are_counted() -> None:
    work = Work(linear=1000, attention=10, head=7, matrices=())
    # 5 tokens of which the last two are scored: 4 are run, with 1 + 2 + 3 + 4 pairs.
    one = sample_of((1, 2, 3, 4, 5), prompt=3)
    assert work.trunk([one]) == 4 * 1000 + 10 * 10
    assert work.both([one, one]) == 2 * (4 * 1000 + 10 * 10 + 2 * 7)


def test_experts_are_not_counted_wrongly() -> None:
    loaded = wrap_model(tiny_model("mixtral"), tiny_tokenizer())
    with pytest.raises(ModelError, match="not counted"):
        work_of(loaded, Trunk(loaded).decoder, loaded.model.get_output_embeddings().weight)


# --- corpora


@pytest.mark.parametrize("name", LENGTHS)
def test_lengths_follow_their_profile(name: str) -> None:
    lengths, draw = LENGTHS[name], random.Random(1)
    drawn = [lengths.draw(draw) for _ in range(20_000)]
    for known, found in zip((lengths.prompt, lengths.answer), zip(*drawn, strict=True), strict=True):
        assert min(found) >= known[0] and max(found) <= known[-1]
        percentiles = quantiles(found, n=100, method="inclusive")
        for share, value in zip(QUANTILES[1:-1], known[1:-1], strict=True):
            assert percentiles[round(100 * share) - 1] == pytest.approx(value, rel=0.05, abs=1.5), share
    total = {"gsm8k": 204.4, "code": 136.3}[name]  # means of the data
    assert mean(map(sum, drawn)) == pytest.approx(total, rel=0.03)


def test_the_file_holds_the_samples_that_the_other_programs_get(tmp_path: Path) -> None:
    scorer = Scorer(random_model(SMALL, device=CPU, dtype=torch.float32), masks=MaskSettings("tokenized", "plain"))
    samples = random_samples(LENGTHS["code"], SMALL.vocab, tokens=2000)
    assert 2000 <= sum(len(sample.input_ids) for sample in samples) < 2000 + 623
    write_tokens(tmp_path / "rows.jsonl", samples)
    found = scorer.masker.tokenize_many(list(open_corpus([str(tmp_path / "rows.jsonl")]).records()))
    assert [replace(one, hash=b"") for one in found] == [replace(sample, unused=("id",)) for sample in samples]
    assert random_samples(LENGTHS["code"], SMALL.vocab, rows=3) == samples[:3]


# --- programs and the table


def test_the_papers_loop_computes_what_ours_does() -> None:
    scorer = Scorer(random_model(SMALL, device=CPU, dtype=torch.float32), masks=MaskSettings("tokenized", "plain"))
    sample = random_samples(LENGTHS["code"], SMALL.vocab, rows=1)[0]
    row = scorer.sample_scorer.score([sample])[0]
    ids, labels = programs._ids_and_labels(sample)
    weight = scorer.head.weight.double()  # in float32 the difference of two norms would be noise
    decoder = scorer.trunk.decoder.double()
    don, nod = score_sample(decoder, weight, ids[None], labels, "adamw")
    scorer.trunk.decoder.float()
    assert nod == pytest.approx(row.nod, rel=1e-3)
    assert don == pytest.approx(row.don, abs=1e-3 * row.nod)


def test_a_loop_that_runs_out_of_time_records_its_number_of_samples() -> None:
    reached: list[int] = []
    samples = [sample_of((1, 2, 3), 1, row) for row in range(5)]
    steps = [Step(lambda row=row: reached.append(row), [sample], 4) for row, sample in enumerate(samples)]
    whole = Program("a", steps, operations=lambda some: 10 * len(some))
    whole()
    assert whole.measured([1.0], None).note == "" and whole.measured([1.0], None).samples == 5
    reached.clear()
    cut = Program("a", steps, seconds=0.0, operations=lambda some: 10 * len(some), note="more")
    cut()
    cut()
    assert reached == [0, 0]
    found = cut.measured([1.0], 7)
    assert (found.samples, found.tokens, found.slots, found.operations) == (1, 3, 4, 10)
    assert found.note == "the first 1 of 5 samples; more"


def test_a_program_that_fails_drops_out_and_the_others_go_on() -> None:
    log: list[str] = []

    def sometimes() -> None:
        log.append("b")
        if log.count("b") == 2:
            raise RuntimeError("out of luck")

    failed: list[str] = []
    times = timing.interleaved(
        {"a": lambda: log.append("a"), "b": sometimes},
        rounds=3,
        before=lambda name: log.append(f"before {name}"),
        failed=lambda name, error: failed.append(f"{name}: {error}"),
    )
    assert list(times) == ["a"] and len(times["a"]) == 3
    assert failed == ["b: out of luck"]
    assert log[:4] == ["before a", "a", "before b", "b"] and log.count("a") == 4 and log.count("b") == 2
    with pytest.raises(RuntimeError, match="out of luck"):
        log.clear()
        timing.interleaved({"b": sometimes}, rounds=3)


def test_speeds_and_ratios_are_those_of_the_medians() -> None:
    def measured(name: str, *seconds: float, operations: int = 6 * 10**12, **more: Any) -> Measured:
        return Measured(name, seconds, samples=10, tokens=2000, needed=1900, slots=2000, operations=operations, **more)

    rows = table_rows(
        {"shape": "s"},
        [
            Measured(table.RATE, (9.0, 2.0, 1.0), operations=20 * 10**12),
            Measured(table.PAPER, (4.0, 4.0, 4.0), samples=5, tokens=1000, needed=1000, slots=1000),
            measured(table.TRUNK, 1.0, 1.0, 9.0, operations=5 * 10**12),
            measured(table.spanned(table.OURS, table.FILE_TO_FOLDER), 1.1, 1.2, 1.3, device_idle=0.0, head_share=0.05),
            Measured(table.FLOAT8, note="why not"),
        ],
    )
    rate, paper, trunk, ours, float8 = rows
    assert rate["tflops"] == 10.0 and rate["mfu"] == "" and rate["tokens_per_s"] == ""
    assert paper["tokens_per_s"] == 250.0 and paper["samples_per_s"] == 1.25 and paper["speed_over_paper_loop"] == 1.0
    assert trunk["mfu"] == 0.5 and trunk["time_over_bare_trunk"] == 1.0 and trunk["speed_over_paper_loop"] == 8.0
    assert ours["row"] == "ours: file to folder" and ours["median_ms"] == 1200.0
    assert (ours["p20_ms"], ours["p80_ms"], ours["rounds"]) == (1100.0, 1300.0, 3)
    assert ours["mfu"] == 0.5 and ours["time_over_bare_trunk"] == 1.2 and ours["packing_efficiency"] == 0.95
    assert ours["device_idle"] == 0.0 and ours["head_share"] == 0.05
    assert float8["note"] == "why not" and float8["median_ms"] == "" and float8["tokens_per_s"] == ""
    assert [list(row) for row in rows] == [list(rate)] * 5


# --- the whole


def test_every_row_is_there_with_its_numbers_or_its_reason(small: None, tmp_path: Path) -> None:
    said: list[str] = []
    settings = BenchmarkSettings(("tiny",), ("code",), rows=12, rounds=2, out=tmp_path / "out", device="cpu")
    rows = run_benchmark(settings, said.append)
    by_name = {table.program_of(row["row"]): row for row in rows}
    wanted = [name for name in table.ROWS if name != table.TRUNK_TOGETHER]  # with a single thread there is no such row
    assert list(by_name) == wanted
    assert "no C++ compiler" in by_name[table.COMPILED]["note"]
    assert "CUDA" in by_name[table.FLOAT8]["note"]
    samples = random_samples(LENGTHS["code"], SMALL.vocab, rows=12)
    tokens = sum(len(sample.input_ids) for sample in samples)
    for name in (table.PAPER, table.PADDED, table.TRUNK, table.OURS):
        row = by_name[name]
        assert row["tokens_timed"] == row["tokens"] == tokens and row["samples_timed"] == 12 and row["rounds"] == 2
        seconds = row["median_ms"] / 1e3
        assert row["tokens_per_s"] == pytest.approx(tokens / seconds, rel=1e-4)
        assert row["samples_per_s"] == pytest.approx(12 / seconds, rel=1e-4)
        assert row["p20_ms"] <= row["median_ms"] <= row["p80_ms"]
        assert row["mfu"] == pytest.approx(row["tflops"] / by_name[table.RATE]["tflops"], rel=1e-4)
        assert row["speed_over_paper_loop"] == pytest.approx(by_name[table.PAPER]["median_ms"] / row["median_ms"], 1e-3)
        assert row["time_over_bare_trunk"] == pytest.approx(row["median_ms"] / by_name[table.TRUNK]["median_ms"], 1e-3)
        assert row["peak_mib"] == "" or row["peak_mib"] > 0
    needed = sum(map(used_tokens, samples))
    longest = max(len(sample.input_ids) for sample in samples)
    assert by_name[table.PADDED]["packing_efficiency"] == pytest.approx(needed / (12 * longest), rel=1e-4)
    assert by_name[table.PADDED]["packing_efficiency"] < by_name[table.OURS]["packing_efficiency"] <= 1
    ours = by_name[table.OURS]
    assert ours["row"] == "ours: file to folder"
    assert 0 <= ours["device_idle"] < 1 and 0 < ours["head_share"] < 1
    with (tmp_path / "out" / table.CSV_NAME).open(newline="") as file:
        assert list(csv.DictReader(file)) == [{key: str(value) for key, value in row.items()} for row in rows]
    assert (tmp_path / "out" / PICTURE_NAME).read_bytes().startswith(b"\x89PNG")
    assert "ours: file to folder" in "\n".join(said)

    run_benchmark(settings, said.append)  # once more: rows are added, under the same header
    assert len(record.read_rows(tmp_path / "out" / table.CSV_NAME)) == 2 * len(rows)


def test_without_pyarrow_ours_goes_from_tokens_to_rows(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    said: list[str] = []
    settings = BenchmarkSettings(("tiny",), ("code",), rows=3, rounds=1, out=tmp_path, device="cpu")
    names = [row["row"] for row in run_benchmark(settings, said.append)]
    assert "ours: tokens to rows" in names and "ours: file to folder" not in names
    assert "matplotlib is not installed" in said[-1] and not (tmp_path / PICTURE_NAME).exists()


def test_concurrent_batches_are_a_row_on_a_cpu_with_several_threads(small: None, tmp_path: Path) -> None:
    torch.set_num_threads(2)
    settings = BenchmarkSettings(("tiny",), ("code",), rows=3, rounds=1, out=tmp_path, device="cpu")
    rows = {row["row"]: row for row in run_benchmark(settings, lambda text: None)}
    assert list(rows)[:5] == list(table.ROWS[:5])
    assert rows[table.TRUNK_TOGETHER]["tokens_timed"] == rows[table.TRUNK]["tokens_timed"]
    assert "2 at a time" in rows[table.TRUNK_TOGETHER]["note"]


@pytest.mark.parametrize("when", ["made", "run"])
def test_a_program_without_memory_is_a_row_with_the_reason(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def refuse(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 80 GiB\nmore")

    def padded(*_: Any) -> Program:
        return refuse() if when == "made" else Program(table.PADDED, [Step(refuse)], operations=len)

    monkeypatch.setattr(programs, "padded_loop", padded)
    settings = BenchmarkSettings(("tiny",), ("code",), rows=3, rounds=1, out=tmp_path, device="cpu")
    rows = {table.program_of(row["row"]): row for row in run_benchmark(settings, lambda text: None)}
    assert rows[table.PADDED]["note"] == "OutOfMemoryError: CUDA out of memory. Tried to allocate 80 GiB"
    assert rows[table.PADDED]["median_ms"] == "" and rows[table.OURS]["median_ms"] > 0


def test_a_model_without_memory_is_rows_with_the_reason(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("donod_fast.benchmark.variants.random_model", refuse)
    said: list[str] = []
    rows = run_benchmark(BenchmarkSettings(("tiny",), ("code",), out=tmp_path, device="cpu"), said.append)
    assert [row["row"] for row in rows] == list(table.ROWS)
    assert all("out of memory" in row["note"] for row in rows)
    assert "no picture" in said[-1]


@pytest.fixture
def command() -> Iterator[Callable[..., Any]]:
    """``donod-fast bench …``."""
    app = typer.Typer()
    app.command()(bench)
    yield lambda *arguments: CliRunner().invoke(app, list(map(str, arguments)))


def test_a_model_and_a_corpus_of_ones_own(small: None, tmp_path: Path, command: Callable[..., Any]) -> None:
    model = save_tiny("llama", tmp_path / "own-model")
    rows = [{"question": "red or blue?" * (1 + i % 3), "answer": " " if i == 1 else "red " * (i + 1)} for i in range(8)]
    data = write_lines(tmp_path / "own.jsonl", rows)
    done = command("--model", model, "--data", data, "--rows", 5, "--rounds", 1, "--out", tmp_path, "--device", "cpu")
    assert done.exit_code == 0, done
    found = record.read_rows(tmp_path / table.CSV_NAME)
    ours = next(row for row in found if row["row"] == "ours: file to folder")
    assert (ours["shape"], ours["lengths"], ours["samples"]) == ("own-model", "own.jsonl", "4")  # one answer is empty
    assert float(ours["tokens_per_s"]) > 0 and float(ours["mfu"]) > 0


def test_a_model_of_ones_own_that_is_not_there_is_an_error(tmp_path: Path, command: Callable[..., Any]) -> None:
    done = command("--model", tmp_path / "none", "--data", tmp_path / "none.jsonl", "--out", tmp_path / "out")
    assert isinstance(done.exception, ModelError)
    assert not (tmp_path / "out").exists()


def test_the_command_line_has_the_settings_defaults(
    command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[BenchmarkSettings] = []
    monkeypatch.setattr(run, "run_benchmark", lambda settings, say: given.append(settings))
    assert command().exit_code == 0
    assert command("--shape", "tiny,small", "--lengths", "code", "--tokens", "9").exit_code == 0
    assert given == [DEFAULTS, BenchmarkSettings(("tiny", "small"), ("code",), tokens=9)]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"shapes": ("llama",)}, "shape must be one of llama-2-7b"),
        ({"lengths": ("long",)}, "lengths must be one of gsm8k, code"),
        ({"dtype": "int3"}, "dtype must be one of"),
        ({"model": "m"}, "model and data go together"),
        ({"model": "m", "data": "d", "shapes": ("tiny",)}, "omit these two settings"),
        ({"rows": 3, "tokens": 3}, "give one of them"),
        ({"rounds": 0}, "rounds must be at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        BenchmarkSettings(**settings)


def test_the_commit_is_that_of_a_repository_that_holds_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, copied = tmp_path / "own.py", tmp_path / "installed.py"
    for file in (own, copied):
        file.write_text("")
    git = ("git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b")
    for arguments in (("init", "-q"), ("add", own.name), ("commit", "-q", "-m", "own")):
        subprocess.run([*git, *arguments], check=True)
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    monkeypatch.delenv("DONOD_FAST_COMMIT", raising=False)
    assert record.circumstances(source=own)["commit"] == head.stdout.strip()
    # A package installed within the user's repository is not part of it.
    assert record.circumstances(source=copied)["commit"] == "none"
    monkeypatch.setenv("DONOD_FAST_COMMIT", "abc1234")
    assert record.circumstances(source=copied)["commit"] == "abc1234"
    own.write_text("changed")
    assert record.circumstances(source=own)["commit"] == head.stdout.strip() + "+changes"


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["/usr/local/bin/donod-fast", "bench", "--rows", "3"], "donod-fast bench --rows 3"),
        (["/somewhere/donod_fast/benchmark/__main__.py", "--out", "a b"], "python -m donod_fast.benchmark --out 'a b'"),
        (["bench/head.py", "--shape", "tiny"], "python bench/head.py --shape tiny"),
    ],
)
def test_the_recorded_command_has_no_path_of_the_machine(
    argv: list[str], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    assert record.command_line() == command
