"""``study paper`` as a whole on a small model: every table has a statement, and a rerun computes nothing."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from demo_parts import MODEL
from paper_recipes import POOL_ROWS, paper_values, write_rows
from score_runs import invoke

from donod_fast.errors import InputError
from donod_fast.studies.core.cells import Cell
from donod_fast.studies.evidence.plan import ROWS
from donod_fast.studies.evidence.result import ALL, KEEP, RANDOM, UNTRAINED
from donod_fast.studies.paper.measures import ALL_GROUPS, NON_TARGET, benchmark_measures, measure_name
from donod_fast.studies.paper.plan import TRAINING, plan_paper
from donod_fast.studies.paper.published import ITEMS
from donod_fast.studies.paper.recipe import PaperRecipe, paper_recipe_from
from donod_fast.studies.paper.result import PaperStudy
from donod_fast.studies.paper.run import run_paper
from donod_fast.studies.paper.sections import BenchmarkSection

PARTS: dict[str, Any] = {
    "noise": {"rows": 10, "seeds": 2},
    "stability": {"rows": 8, "seeds": 2, "proportions": [0.5, 1.0]},
    "focus": {"train_rows": 4, "rows": 0},
    "ablation": {"rows": 12, "keeps": [0.25], "seeds": 1, "setting_seeds": 1, "tokens": 200},
}


class Ran(NamedTuple):
    """A finished study."""

    recipe: PaperRecipe
    study: PaperStudy
    out: Path
    cells: list[Cell]


def measured(loaded: Any, section: BenchmarkSection) -> Mapping[str, float]:
    """Numbers from 0 to 1 that depend on the weights alone."""
    size = float(loaded.model.get_output_embeddings().weight.double().norm())
    names = ("logic", "reading", "math") if section.benchmark == "agieval" else ("prompt_strict", "instruction_strict")
    return {name: (size * (at + 1)) % 1.0 for at, name in enumerate(names)}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("paper")
    problems = write_rows(folder / "problems.jsonl", [{"prompt": "Write a word."}])
    values = paper_values(folder, **PARTS, shares=[0.3])
    values["models"].append({"name": "twin", "model": str(MODEL)})
    values["pairs"].append({"score": "demo", "train": "twin"})
    values["benchmarks"] = [
        {"benchmark": "agieval", "problems": problems, "domains": ["logic", "reading", "math"]},
        {"benchmark": "ifeval", "problems": problems, "domains": ["instructions"], "limit": 1},
    ]
    recipe = paper_recipe_from(values)
    cells: list[Cell] = []
    study = run_paper(recipe, folder / "out", run_benchmark=measured, on_cell=cells.append, command="donod-fast …")
    return Ran(recipe, study, folder / "out", cells)


def test_a_rerun_computes_nothing_and_reports_the_same(ran: Ran) -> None:
    report = (ran.out / "report.md").read_text(encoding="utf-8")

    def refused(loaded: Any, section: BenchmarkSection) -> Mapping[str, float]:
        raise AssertionError("measured again")

    again: list[Cell] = []
    study = run_paper(ran.recipe, ran.out, run_benchmark=refused, on_cell=again.append, command="donod-fast …")
    assert again and all(cell.cached for cell in again)
    assert study.cached == study.cells == ran.study.cells
    assert (ran.out / "report.md").read_text(encoding="utf-8") == report


def test_each_table_and_figure_has_a_statement_in_its_section(ran: Ran) -> None:
    report = (ran.out / "report.md").read_text(encoding="utf-8")
    wanted = {*(f"Table {n}" for n in (1, 2, 3, 4, 5, 8)), *(f"Figure {n}" for n in (3, 4, 5)), "§4.4"}
    assert wanted <= {item.name for item in ITEMS}
    for item in ITEMS:
        section = report.split(f"\n## {item.section}\n")[1].split("\n## ")[0]
        lines = [line for line in section.splitlines() if line.startswith("- **")]
        own = [line for line in lines if item.name in line.split("**")[1].split(", ") or f"**{item.name}**" in line]
        assert len(own) == 1, item.name
        assert "comparable" in own[0] and "The paper:" in own[0]
        for fact in item.facts:
            assert fact.text in own[0] and fact.source in own[0]


def test_links_and_pictures_of_the_report_exist(ran: Ran) -> None:
    report = (ran.out / "report.md").read_text(encoding="utf-8")
    links = [part.split(")")[0] for part in report.split("](")[1:]]
    files = [link for link in links if not link.startswith("#")]
    assert len(files) > 6
    for link in files:
        assert (ran.out / link).is_file(), link


def test_the_grid_has_the_planned_trainings(ran: Ran) -> None:
    rows = [row for row in ran.study.grid.rows if row.method != UNTRAINED]
    planned = sum(one.cells for one in plan_paper(ran.recipe).costs if (one.part, one.stage) == ("grid", TRAINING))
    assert len(rows) == planned
    with (ran.out / "tables" / "grid.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == len(ran.study.grid.rows)


def test_differences_are_those_of_the_means(ran: Ran) -> None:
    for one in ran.study.comparisons:
        same = {"pair": one.pair, "pool": one.pool, "arm": KEEP}
        ours = [one.measure.of(row) for row in ran.study.grid.where(**same, method=one.method, share=one.share)]
        others = {"method": ALL} if one.against == ALL else {"method": RANDOM, "share": one.share, "kind": one.against}
        theirs = [one.measure.of(row) for row in ran.study.grid.where(**same, **others)]
        assert one.value == pytest.approx(sum(ours) / len(ours) - sum(theirs) / len(theirs), abs=1e-9)
        assert one.low <= one.value <= one.high
    random = [one for one in ran.study.comparisons if one.against == ROWS]
    measures = 2 + 3 + 2 + 2  # held-out sets, AGIEval's groups, IFEval's shares, averages
    assert len(random) == measures * len(ran.recipe.methods) * len(ran.recipe.pairs)
    assert all(one.adjusted >= one.p for one in random)


def test_losses_and_shares_are_adjusted_together(ran: Ran) -> None:
    random = [one for one in ran.study.comparisons if one.against == ROWS]
    distinct = {(one.pair, one.share, one.measure, one.value, one.p) for one in random}
    least = min(random, key=lambda one: one.p)
    assert least.adjusted == pytest.approx(min(1.0, len(distinct) * least.p))


def test_the_target_is_the_domain_of_the_corpus(ran: Ran) -> None:
    domains = {
        one.measure.name.partition("/")[2] or one.measure.name: one.measure.domain for one in ran.study.comparisons
    }
    inside = {name for name, domain in domains.items() if domain == "in"}
    assert inside == {"sums-test", "math"}


def test_averages_are_those_of_the_groups(ran: Ran) -> None:
    for row in ran.study.grid.rows:
        values = {name.rpartition("/")[2]: value for name, value in row.benchmarks.items() if "average" not in name}
        others = (values["logic"], values["reading"], values["prompt_strict"])
        assert row.benchmarks[NON_TARGET] == pytest.approx(sum(others) / 3)
        assert row.benchmarks[ALL_GROUPS] == pytest.approx((sum(others) + values["math"]) / 4)


def test_a_twin_of_the_scoring_model_shares_all_rows(ran: Ran) -> None:
    report = (ran.out / "report.md").read_text(encoding="utf-8")
    across = report.split("\n## Across architectures\n")[1].split("\n## ")[0]
    assert "demo → twin" in across
    chosen = ran.study.grid.selections
    assert chosen["demo", "sums", "topsis", 0.3] == chosen["demo → twin", "sums", "topsis", 0.3]


def test_both_ends_of_the_plane_are_the_ends_of_don_and_nod(ran: Ran) -> None:
    best, worst = ran.study.plane
    assert (best.method, worst.method) == ("topsis", "nodon")
    assert best.don_percentile > worst.don_percentile
    assert best.rows == worst.rows == round(0.2 * 24)


def test_the_json_result_names_what_is_not_comparable(ran: Ran) -> None:
    result = json.loads((ran.out / "result.json").read_text(encoding="utf-8"))
    assert set(result["comparable"]) == {item.name for item in ITEMS}
    assert not any(result["comparable"].values()) and all(result["reasons"].values())


def test_other_problems_or_settings_are_another_measure(tmp_path: Path) -> None:
    file = tmp_path / "problems.jsonl"
    file.write_text('{"prompt": "a"}\n', encoding="utf-8")
    section = BenchmarkSection(benchmark="ifeval", problems=str(file), domains=("instructions",))
    name = measure_name(section)
    assert measure_name(section.model_copy(update={"batch_size": 3})) == name
    for field, value in (("limit", 3), ("max_new_tokens", 9), ("chat_template", False)):
        assert measure_name(section.model_copy(update={field: value})) != name
    file.write_text('{"prompt": "b"}\n', encoding="utf-8")
    assert measure_name(section) != name


def test_missing_problems_are_refused_before_anything_runs(tmp_path: Path) -> None:
    values = paper_values(tmp_path)
    gone = {"benchmark": "ifeval", "problems": str(tmp_path / "none.jsonl"), "domains": ["instructions"]}
    recipe = paper_recipe_from({**values, "benchmarks": [gone]})
    with pytest.raises(InputError, match=r"none\.jsonl is not there.*benchmarks\.0\.problems"):
        benchmark_measures(recipe)
    with pytest.raises(InputError, match=r"is not there"):
        run_paper(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_held_out_rows_that_are_trained_on_are_refused_by_content(tmp_path: Path) -> None:
    values = paper_values(tmp_path)
    pool = Path(values["pools"][0]["data"][0])
    copied = tmp_path / "copied.jsonl"
    copied.write_text("".join(pool.read_text(encoding="utf-8").splitlines(keepends=True)[:4]), encoding="utf-8")
    values["heldouts"][0]["data"] = [str(copied)]
    with pytest.raises(InputError, match=r"sums-test.*the corpus sums.*or set allow_overlap to true"):
        run_paper(paper_recipe_from(values), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("part", ["noise", "stability", "ablation"])
def test_a_part_with_more_rows_than_its_corpus_is_refused_at_once(part: str, tmp_path: Path) -> None:
    recipe = paper_recipe_from(paper_values(tmp_path, **{part: {"rows": POOL_ROWS + 1}}))
    with pytest.raises(InputError, match=rf"{part}\.rows is 25, but sums has only 24 rows"):
        run_paper(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_runs_a_recipe_and_prints_its_report(tmp_path: Path) -> None:
    values = paper_values(tmp_path, methods=["nod"])
    recipe = tmp_path / "own.yaml"
    recipe.write_text(json.dumps(values), encoding="utf-8")
    out = tmp_path / "out"
    done = invoke("study", "paper", str(recipe), "--out", str(out))
    assert done.code == 0, done.err
    assert (out / "report.md").read_text(encoding="utf-8") in done.out
    again = invoke("study", "paper", str(recipe), "--out", str(out), "--json")
    assert again.code == 0, again.err
    result = json.loads(again.out)
    assert result["cached"] == result["cells"] > 0 and "cached" not in again.err
