"""Studies select by any criterion: they score what it needs and keep the rows that the scores imply."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from demo_parts import MODEL, clean_rows
from threshold_fakes import FakeParts, demo_recipe

from donod_fast.errors import InputError
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scoring.scorer import Scorer
from donod_fast.scoring.settings import UpdateSettings
from donod_fast.selection.keeping import keep
from donod_fast.selection.kmeans_ifd import KMEANS_IFD, choose, read_questions
from donod_fast.selection.ranking import ScoreColumns, rank
from donod_fast.studies.core.cells import CellStore
from donod_fast.studies.core.scored import ScoringCells
from donod_fast.studies.core.selecting import Selection, criteria_for, merits, selected_rows
from donod_fast.studies.stability.settings import StabilitySettings
from donod_fast.studies.threshold import run as threshold
from donod_fast.studies.threshold.plan import plan_threshold
from donod_fast.studies.threshold.run import Outcome, run_threshold, selections_of

ROWS = 40
METHODS = ["topsis", "el2n", "ifd", "loss@high", KMEANS_IFD]


def test_a_selection_may_name_any_column_and_no_nonsense() -> None:
    for method in ("el2n", "ifd", "loss@high", "tokens@low", KMEANS_IFD):
        Selection(method, keep=0.3)
    with pytest.raises(InputError, match="add --prefer high or --prefer low"):
        Selection("tokens", keep=0.3)
    with pytest.raises(InputError, match="method el2n takes keep"):
        Selection("el2n", don_quantile=0.3)


def test_the_signals_that_methods_need_are_asked_for_once() -> None:
    def names(*methods: str) -> list[str]:
        return [criterion.name for criterion in criteria_for(methods)]

    assert names("all", "topsis", "loss@high", "tokens@low") == []
    assert names("ifd", "el2n", KMEANS_IFD, "ifd_loss") == ["ifd", "el2n", "embedding"]


def test_rows_are_selected_by_further_columns() -> None:
    value = torch.tensor([0.3, float("nan"), 0.9, 0.1], dtype=torch.float64)
    one = torch.ones(4, dtype=torch.float64)
    columns = ScoreColumns(torch.arange(4), one, one, one, {"el2n": value})
    assert selected_rows(columns, Selection("el2n", keep=0.67)) == (0, 2)
    assert selected_rows(columns, Selection("el2n@low", keep=0.3)) == (3,)
    assert merits(columns, "el2n").nan_to_num(-1).tolist() == [0.3, -1, 0.9, 0.1]
    with pytest.raises(InputError, match="--signals grand"):
        selected_rows(columns, Selection("grand", keep=0.5))
    with pytest.raises(InputError, match="which this study does not make"):
        selected_rows(columns, Selection(KMEANS_IFD, keep=0.5))


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Path]:
    """A study by further criteria on the demonstration's corpus and model, with stand-ins for training."""
    folder = tmp_path_factory.mktemp("study")
    methods = f"study.methods=[{','.join(METHODS)}]"
    recipe = demo_recipe(folder, methods, "study.don_quantiles=[]", "study.seeds=[0]", "study.keeps=[0.5]", rows=ROWS)
    parts = FakeParts(ROWS, folder / "log")
    return run_threshold(recipe, folder / "out", make_parts=parts, jobs=1), folder / "out"


def test_the_threshold_study_scores_what_its_methods_need(ran: tuple[Outcome, Path]) -> None:
    outcome, out = ran
    (manifest,) = out.rglob(f"{threshold.SCORES}/manifest.json")
    folder = ScoresFolder.open(manifest.parent)
    assert [entry.name for entry in folder.signals] == ["el2n", "ifd", "embedding"]
    columns = ScoreColumns.from_table(folder.table())
    questions = read_questions(folder)
    for share in (0.5,):
        expected: dict[str, Any] = {
            method: sorted(keep(rank(columns, method), keep=share).tolist())
            for method in METHODS
            if method != KMEANS_IFD
        }
        found = choose(questions.rows, questions.embeddings, questions.ifd, keep=share)
        expected[KMEANS_IFD] = sorted(found.rows.tolist())
        for method, rows in expected.items():
            line = next(
                one
                for one in outcome.study.lines
                if one.selection is not None and one.selection == Selection(method, share)
            )
            assert line.rows == len(rows)
            assert line.tokens == 2 * 10 * len(rows)
            assert selected_rows(columns, Selection(method, share), questions=questions) == tuple(rows)
    scored = {one.score for one in outcome.study.separations}
    assert {"el2n", "ifd", "loss@high", "topsis"} <= scored and KMEANS_IFD not in scored


def test_a_study_without_further_methods_has_the_cells_that_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Mapping[str, Any]] = []

    def note(self: CellStore, kind: str, settings: Mapping[str, Any], work: Any) -> Any:
        asked.append(settings)
        raise KeyboardInterrupt

    monkeypatch.setattr(CellStore, "result", note)
    for methods in ("[topsis,loss]", "[topsis,el2n]"):
        recipe = demo_recipe(tmp_path, f"study.methods={methods}", rows=4)
        with pytest.raises(KeyboardInterrupt):
            run_threshold(recipe, tmp_path / "out", make_parts=FakeParts(4, tmp_path / "log"), jobs=1)
    plain, further = asked
    assert set(plain) == {"score", "model", "corpus"} and "references" not in plain["score"]
    assert set(further) == {*plain, "signals"} and set(further["signals"]) == {"el2n"}


def test_plan_says_that_the_rows_with_ifd_below_1_are_unknown(tmp_path: Path) -> None:
    recipe = demo_recipe(tmp_path, "study.methods=[all,ifd,don,don@low]", "study.keeps=[0.5,1.0]", rows=8)
    plan = plan_threshold(recipe)
    assert any(sentence.startswith("ifd: keeps 50 % of the rows with IFD < 1") for sentence in plan.unknown)
    trainings = {(one.selection.method, one.selection.amount): one.trainings for one in plan.selections}
    assert trainings["ifd", "100 %"] == trainings["don@low", "50 %"] == 3
    assert trainings["don", "100 %"] == 0, "it is all"
    assert len(selections_of(recipe)) == 1 + 3 * 2 + 2


def test_cells_keep_the_columns_of_further_criteria(tmp_path: Path) -> None:
    store, records = CellStore(tmp_path), clean_rows(6)
    cells = ScoringCells(store, MODEL, signals=criteria_for(["ifd", "el2n"]))
    scores = cells.score(records, UpdateSettings())
    table = Scorer(cells.loaded, signals=criteria_for(["ifd", "el2n"])).score_table(records)
    for name in ("el2n", "ifd_ppl", "ifd_loss", "answer_loss"):
        assert scores.more[name].tolist() == pytest.approx(table.column(name).to_pylist())
    again = ScoringCells(store, cells.loaded, signals=criteria_for(["ifd", "el2n"])).score(records, UpdateSettings())
    assert torch.equal(again.more["el2n"], scores.more["el2n"])
    columns = scores.columns()
    assert rank(columns, "el2n").order[0] == scores.more["el2n"].argmax()
    assert rank(columns, "entropy@low").order[0] == scores.entropy.argmin()
    picked = scores.picked([4, 2])
    assert picked.more["el2n"].tolist() == scores.more["el2n"][[4, 2]].tolist()
    replaced = scores.replaced([0, 1], picked)
    assert replaced.more["el2n"][:2].tolist() == picked.more["el2n"].tolist()
    plain = ScoringCells(store, cells.loaded).score(records, UpdateSettings())
    assert not plain.more
    # Scored with the criteria a row is in another batch, so the bound is that of the arithmetic: a share of NOD.
    assert ((plain.don - scores.don).abs() <= 1e-5 * scores.nod).all()


def test_a_study_that_embeds_no_questions_says_so() -> None:
    with pytest.raises(InputError, match="the threshold study does"):
        StabilitySettings(methods=[KMEANS_IFD])
