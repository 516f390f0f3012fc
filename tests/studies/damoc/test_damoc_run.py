"""``donod-fast damoc``: candidates of a known order, failing candidates, and a killed run that resumes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer import Typer
from typer.testing import CliRunner

pytest.importorskip("trl", reason="the extra `train` is not installed")
from score_runs import invoke
from tiny_models import save_tiny

from donod_fast.cli.damoc import damoc
from donod_fast.data.formats import to_sample
from donod_fast.data.reading import open_corpus
from donod_fast.data.types import Conversation, Record
from donod_fast.demo.corpus import CORPUS_FILE, MODEL_FOLDER
from donod_fast.errors import InputError, ModelError, StoreError
from donod_fast.models.loading import load_model
from donod_fast.studies.core.cells import CellStore
from donod_fast.studies.damoc.candidates import Way
from donod_fast.studies.damoc.preparation import prepare
from donod_fast.studies.damoc.recipe import DamocRecipe, damoc_recipe_from, load_damoc_recipe
from donod_fast.studies.damoc.report import agreement, rank_candidates
from donod_fast.studies.damoc.run import run_damoc
from donod_fast.studies.family import BASE_MODEL, FamilyFiles, write_family

NOISE = {"much": 1.0, "none": 0.0, "some": 0.5, "little": 0.25}
"""The candidates: the family's base model with noise added to its matrices, in units of their standard deviation."""

TRAIN = {"learning_rate": 1e-3, "global_batch": 4, "micro_batch": 4, "template": "alpaca"}


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> FamilyFiles:
    return write_family(tmp_path_factory.mktemp("family"), seed=1, rows=48, tasks=16, corrupted={})


def damaged(level: float, folder: Path) -> str:
    """The same noise for every level, so that more of it is further away in one direction."""
    loaded = load_model(BASE_MODEL)
    generator = torch.Generator().manual_seed(0)
    for parameter in loaded.model.parameters():
        if parameter.dim() == 2:
            parameter.data += level * parameter.data.std() * torch.randn(parameter.shape, generator=generator)
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return str(folder)


def recipe(family: FamilyFiles, candidates: list[dict[str, Any]], **given: Any) -> DamocRecipe:
    files = {"data": [str(family.train)], "heldout": [str(family.heldout)]}
    return damoc_recipe_from({"name": "test", "candidates": candidates, **files, "train": TRAIN, **given})


def cells(root: Path) -> dict[str, int]:
    """Finished cells, with the time at which each was written."""
    return {file.parent.name: file.stat().st_mtime_ns for file in sorted((root / "cells").glob("*/result.json"))}


class Killed(Exception):
    """In place of a signal."""


@pytest.fixture(scope="module")
def four(family: FamilyFiles, tmp_path_factory: pytest.TempPathFactory) -> tuple[DamocRecipe, Path, dict[str, int]]:
    """Four candidates of known order and one that is not there; the run was killed before full fine-tuning's second."""
    root = tmp_path_factory.mktemp("four")
    some = [
        {"name": name, "model": damaged(level, root / name), "base": str(BASE_MODEL)} for name, level in NOISE.items()
    ]
    some.insert(2, {"name": "absent", "model": str(root / "nowhere")})
    chosen = recipe(
        family,
        some,
        filter={"method": "random", "share": 0.25},
        prune={"method": "similarity", "threshold": 0.5, "max_share": 0.25, "rows": 8},
        compare=True,
    )

    def kill(step: str, done: int, total: int, detail: str) -> None:
        if (step, done) == ("full", 1):
            raise Killed

    with pytest.raises(Killed):
        run_damoc(chosen, root / "out", progress=kill)
    before = cells(root / "out")
    run_damoc(chosen, root / "out")
    return chosen, root / "out", before


def test_candidates_of_known_order_are_ranked_in_that_order(
    four: tuple[DamocRecipe, Path, dict[str, int]],
) -> None:
    chosen, out, _ = four
    found = run_damoc(chosen, out)
    assert [one.name for one in found.ranking] == ["none", "little", "some", "much", "absent"]
    assert [one.rank for one in found.ranking] == [1, 2, 3, 4, None]
    assert [one.full_rank for one in found.ranking] == [1, 2, 3, 4, None]
    assert found.agreement is not None
    assert (found.agreement.candidates, found.agreement.kendall, found.agreement.spearman) == (4, 1.0, 1.0)
    assert found.agreement.top_1
    for one in found.ranking[:4]:
        pruning = one.way.pruning
        assert pruning is not None and len(pruning["dropped"]) == 1 and pruning["merged"]
        assert one.way.training["rows"] == 12 and one.full is not None and one.full.training["rows"] == 48
        assert one.way.training["tokens"] < one.full.training["tokens"]
        assert set(one.way.seconds) == {"prune", "train", "evaluate"} and min(one.way.seconds.values()) > 0


def test_a_missing_candidate_is_listed_with_its_reason_others_continue(
    four: tuple[DamocRecipe, Path, dict[str, int]],
) -> None:
    chosen, out, _ = four
    last = run_damoc(chosen, out).ranking[-1]
    assert last.way.failed_at == "load" and "there is no such folder" in last.way.reason
    text = (out / "report.md").read_text(encoding="utf-8")
    assert "absent: failed to load" in text and "12 of 48 rows by random" in text
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert [one["rank"] for one in report["ranking"]] == [1, 2, 3, 4, None]
    assert report["agreement"]["top_1"] is True


def test_a_killed_run_goes_on_from_its_cells_and_leaves_no_model(
    four: tuple[DamocRecipe, Path, dict[str, int]],
) -> None:
    _, out, before = four
    # The filter; prune, train and measure of four; train and measure of the first in full.
    assert len(before) == 1 + 4 * 3 + 2
    after = cells(out)
    assert len(after) == 1 + 4 * 3 + 4 * 2
    assert {name: after[name] for name in before} == before
    assert not list(out.rglob("*.safetensors"))


def test_measuring_something_else_later_repeats_the_same_training(family: FamilyFiles, tmp_path: Path) -> None:
    candidates = [{"name": "base", "model": str(BASE_MODEL)}]
    given = {"filter": {"method": "random", "share": 0.25}, "prune": {"method": "similarity", "threshold": 0.5}}
    first = run_damoc(recipe(family, candidates, **given), tmp_path).ranking[0]
    assert "names no base" in first.notes[0]
    benchmark = {"benchmark": "humaneval", "problems": str(family.problems), "limit": 3, "max_new_tokens": 24}
    found = run_damoc(recipe(family, candidates, **given, eval=benchmark), tmp_path, unsafe=True)
    again = found.ranking[0]
    assert found.measure == "humaneval" and list(again.way.measures) == ["humaneval", "heldout"]
    assert len(again.way.measures["humaneval"]["tasks"]) == 3
    assert 0 <= again.way.measures["humaneval"]["score"] <= 1
    assert again.way.measures["heldout"] == first.way.measures["heldout"]
    assert again.way.pruning == first.way.pruning


def test_the_command_fails_with_all_reasons_if_no_candidate_works(family: FamilyFiles, tmp_path: Path) -> None:
    other = save_tiny("gpt2", tmp_path / "gpt2")
    broken = save_tiny("llama", tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    file = tmp_path / "recipe.yaml"
    file.write_text(
        f"""
name: failing
candidates:
  - {{name: other, model: {other.name}}}
  - {{name: broken, model: broken}}
data: ["{family.train}"]
heldout: ["{family.heldout}"]
prune: {{method: similarity}}
""",
        encoding="utf-8",
    )
    app = Typer()
    app.command()(damoc)
    done = CliRunner().invoke(app, [str(file), "--out", str(tmp_path / "out"), "--quiet"])
    assert isinstance(done.exception, ModelError) and "no candidate worked" in str(done.exception)
    assert "other: failed to prune" in done.output and "has no list of decoder layers" in done.output
    assert "broken: failed to prune" in done.output and "damaged or cut short" in done.output
    assert (tmp_path / "out" / "report.md").exists()


def test_what_is_wrong_for_all_candidates_ends_the_run(family: FamilyFiles, tmp_path: Path) -> None:
    candidates = [{"name": "base", "model": str(BASE_MODEL)}]
    with pytest.raises(InputError, match="holds scores of other data"):
        run_damoc(_quality(family, candidates, _scored(family.heldout, tmp_path / "scores"), "don"), tmp_path / "a")
    (tmp_path / "b").write_text("a file")
    with pytest.raises(StoreError):
        run_damoc(recipe(family, candidates), tmp_path / "b")


def test_a_quality_filter_takes_the_best_by_a_column(family: FamilyFiles, tmp_path: Path) -> None:
    candidates = [{"name": "base", "model": str(BASE_MODEL)}]
    corpus, store = open_corpus([str(family.train)]), CellStore(tmp_path / "out")
    scores = _scored(family.train, tmp_path / "scores")
    by_loss = prepare(_quality(family, candidates, scores, "loss"), corpus, store)
    losses = _column(scores, "loss")
    assert by_loss.rows == tuple(sorted(sorted(range(48), key=lambda row: (-losses[row], row))[:12]))


def test_compression_shortens_instructions_alone_and_is_done_once(family: FamilyFiles, tmp_path: Path) -> None:
    prose, store = open_corpus([str(CORPUS_FILE)]), CellStore(tmp_path / "out")
    few = {"filter": {"method": "random", "share": 12 / prose.rows, "seed": 3}, "data": [str(CORPUS_FILE)]}
    short = {"method": "perplexity", "model": str(MODEL_FOLDER), "ratio": 0.5}
    one = [{"name": "base", "model": str(BASE_MODEL)}]
    before = prepare(recipe(family, one, **few), prose, store).records()
    done = prepare(recipe(family, one, **few, compress=short), prose, store)
    after = done.records()
    assert len(after) == len(before) == 12 and done.summary["compress"]["ratio"] < 0.9
    assert [_asked(one)[1:] for one in after] == [_asked(one)[1:] for one in before]
    assert sum(len(_asked(one)[0]) for one in after) < sum(len(_asked(one)[0]) for one in before)
    written = cells(tmp_path / "out")
    assert prepare(recipe(family, one, **few, compress=short), prose, store).records(3) == after[:3]
    assert cells(tmp_path / "out") == written


def test_graph_cut_leaves_rows_out_that_ask_nothing(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers", reason="the extra `criteria` is not installed")
    data = tmp_path / "data.jsonl"
    rows: list[Any] = [{"question": f"Return the sum of {i} and x.", "answer": "x"} for i in range(6)]
    data.write_text("\n".join(["{broken", json.dumps({"odd": 1}), *map(json.dumps, rows)]) + "\n", encoding="utf-8")
    chosen = damoc_recipe_from(
        {
            "name": "test",
            "candidates": [{"name": "base", "model": str(BASE_MODEL)}],
            "data": [str(data)],
            "heldout": [str(data)],
            "filter": {"method": "graph_cut", "share": 0.5, "embeddings": str(BASE_MODEL)},
        }
    )
    found = prepare(chosen, open_corpus([str(data)]), CellStore(tmp_path / "out"))
    assert found.rows is not None and len(found.rows) == 4 and min(found.rows) >= 2


def test_so_few_rows_that_nothing_is_learned_are_refused(family: FamilyFiles, tmp_path: Path) -> None:
    few = {**TRAIN, "global_batch": 16}
    one = [{"name": "base", "model": str(BASE_MODEL)}]
    chosen = recipe(family, one, filter={"method": "random", "share": 0.1}, train=few)
    found = run_damoc(chosen, tmp_path).ranking[0]
    assert found.way.failed_at == "train" and "5 rows is one optimizer step" in found.way.reason
    assert found.rank is None


def test_ranks_and_agreement_are_those_of_a_hand_computation() -> None:
    def way(score: float, seconds: float = 1.0, rows: int = 9) -> Way:
        held = {"score": score, "rows": rows}
        return Way(measures={"heldout": held}, seconds={"train": seconds, "evaluate": 1.0})

    ways = {"a": way(3.0), "b": way(1.0), "c": way(2.0), "d": way(2.0), "e": way(0.5, rows=8)}
    fulls = {"a": way(3.0, 9.0), "b": way(2.0, 9.0), "c": way(1.0, 9.0), "d": way(2.5, 9.0), "e": way(0.1)}
    ranking = rank_candidates(ways, fulls)
    assert [(one.name, one.rank, one.full_rank) for one in ranking] == [
        ("b", 1, 3),
        ("c", 2, 2),
        ("d", 2, 4),
        ("a", 4, 5),
        ("e", None, 1),  # its loss after DaMoC is over fewer rows
    ]
    assert "only 8 of 9 held-out rows" in ranking[-1].way.reason
    found = agreement(ranking, shared_seconds=2.0)
    # Of the six pairs of a, b, c, d one is a tie after DaMoC (c, d), one turned round (b, c): τ-b = (4 − 1)/√(5 · 6).
    assert found.kendall == pytest.approx(3 / (5 * 6) ** 0.5)
    assert not found.top_1
    assert (found.damoc_seconds, found.full_seconds) == (4 * 2.0 + 2.0, 4 * 10.0)
    assert found.speed_up == pytest.approx(4.0) and found.speed_up_without_evaluation == pytest.approx(36 / 6)


def test_a_benchmark_ranks_first_and_held_out_loss_breaks_its_ties() -> None:
    def way(passed: float, loss: float) -> Way:
        return Way(measures={"humaneval": {"score": passed}, "heldout": {"score": loss, "rows": 5}})

    ranking = rank_candidates({"a": way(0.2, 3.0), "b": way(0.5, 9.0), "c": way(0.2, 2.0)}, None)
    assert [(one.name, one.rank) for one in ranking] == [("b", 1), ("c", 2), ("a", 3)]
    assert all(one.full is None for one in ranking)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"heldout": []}, "nothing ranks the candidates"),
        ({"candidates": [{"name": "a", "model": "m"}] * 2}, "two candidates are named a"),
        ({"candidates": [{"name": "a", "modl": "m"}]}, r"candidates\.0\.modl is not a known key; did you mean model"),
        ({"filter": {"method": "graph_cut"}}, "filter: graph_cut needs embeddings"),
        ({"filter": {"method": "graph_cut", "embeddings": "m", "trade_off": 0.5}}, r"filter\.trade_off"),
        ({"compress": {"method": "perplexity"}}, "compress: perplexity needs model"),
        ({"prune": {"treshold": 0.9}}, r"prune\.treshold is not a known key; did you mean threshold"),
        ({"train": {"model": "m"}}, r"train\.model: input should be 'candidate'"),
    ],
)
def test_a_wrong_recipe_is_refused_with_the_place(change: dict[str, Any], words: str) -> None:
    right = {"name": "x", "candidates": [{"name": "a", "model": "m"}], "data": ["d.jsonl"], "heldout": ["h.jsonl"]}
    assert damoc_recipe_from(right, ["filter.share=0.1"]).filter.share == 0.1
    with pytest.raises(InputError, match=words):
        damoc_recipe_from({**right, **change})


def test_paths_of_a_recipe_are_relative_to_its_folder(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    file = tmp_path / "r.yaml"
    file.write_text(
        "name: x\ncandidates: [{name: a, model: m, base: 'package:studies/family/data/model'}]\ndata: d.jsonl\n"
        "heldout: [h.jsonl]\n".replace("data: d.jsonl", "data: [d.jsonl]"),
        encoding="utf-8",
    )
    found = load_damoc_recipe(file)
    assert found.data == (str(tmp_path / "d.jsonl"),) and found.heldout == (str(tmp_path / "h.jsonl"),)
    assert found.candidates[0].model == str(tmp_path / "m") and found.candidates[0].base == str(BASE_MODEL)
    with pytest.raises(InputError, match="no such recipe file"):
        load_damoc_recipe(tmp_path / "other.yaml")


def _asked(record: dict[str, Any]) -> tuple[str, str]:
    """Instruction and answer of a row of the demonstration's corpus."""
    sample, _ = to_sample(Record(0, "-", "-", record))
    assert isinstance(sample, Conversation)
    user, assistant = sample.messages
    return user.content, assistant.content


def _scored(data: Path, out: Path) -> str:
    done = invoke("score", data, "--model", BASE_MODEL, "--out", out, "--template", "alpaca", "--quiet")
    assert done.code == 0, done.err
    return str(out)


def _column(scores: str, name: str) -> dict[int, float]:
    from donod_fast.scores.folder import ScoresFolder

    table = ScoresFolder.open(scores).table()
    return dict(zip(table.column("row").to_pylist(), table.column(name).to_pylist(), strict=True))


def _quality(family: FamilyFiles, candidates: list[dict[str, Any]], scores: str, column: str) -> DamocRecipe:
    how = {"method": "quality", "share": 0.25, "scores": scores, "column": column}
    return recipe(family, candidates, filter=how)
