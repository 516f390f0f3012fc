"""A scores folder of release 0.1.0 is read, ranked, selected from and resumed.

``data/release-0.1.0`` holds 20 rows of the demonstration's corpus and the folder that release 0.1.0 (commit fcc143d)
wrote for them with the demonstration's model, in parts of 8 rows. Its manifest names ``/tmp/corpus`` as their place.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from score_runs import invoke

from donod_fast.data.reading import open_corpus
from donod_fast.demo.corpus import MODEL_FOLDER
from donod_fast.engines.local import score_corpus
from donod_fast.errors import SettingsMismatchError
from donod_fast.kernels.topsis import NORMALISATIONS
from donod_fast.scores.folder import ScoresFolder, locked
from donod_fast.scores.rows import SCORE_COLUMNS
from donod_fast.scoring.scorer import Scorer
from donod_fast.scoring.settings import UpdateSettings
from donod_fast.selection.out_of_core import rank_parts
from donod_fast.selection.ranking import ScoreColumns, rank

KEPT = Path(__file__).parent / "data" / "release-0.1.0"
ROWS = 20


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return Path(shutil.copy(KEPT / "rows.jsonl", tmp_path / "rows.jsonl"))


@pytest.fixture
def old(rows: Path) -> Path:
    """The folder, as if its rows had been scored where they lie now."""
    out = Path(shutil.copytree(KEPT / "scores", rows.parent / "scores"))
    manifest = (out / "manifest.json").read_text(encoding="utf-8")
    assert json.loads(manifest)["versions"]["donod_fast"] == "0.1.0"
    (out / "manifest.json").write_text(manifest.replace("/tmp/corpus/rows.jsonl", str(rows)), encoding="utf-8")
    return out


def test_it_is_opened_and_has_every_row(old: Path) -> None:
    folder = ScoresFolder.open(old)
    assert (folder.rows, folder.parts, folder.missing_parts()) == (ROWS, 3, [])
    assert folder.counts() == {"scored": ROWS}
    table = folder.table()
    assert table["row"].to_pylist() == list(range(ROWS))
    assert all(abs(don) <= nod for don, nod in zip(table["don"].to_pylist(), table["nod"].to_pylist(), strict=True))


def test_it_is_ranked_and_selected_from(old: Path, rows: Path, tmp_path: Path) -> None:
    subset = tmp_path / "subset.jsonl"
    done = invoke("select", old, "--keep", "0.3", "--out", subset)
    assert done.code == 0, done
    lines = rows.read_text(encoding="utf-8").splitlines()
    chosen = subset.read_text(encoding="utf-8").splitlines()
    assert len(chosen) == 6 and set(chosen) <= set(lines)
    assert invoke("status", old).code == 0


@pytest.mark.parametrize("normalise", NORMALISATIONS)
@pytest.mark.parametrize("lost", [(), (1,)], ids=["old", "mixed"])
def test_its_parts_are_normalised_as_new_ones_are(old: Path, rows: Path, normalise: str, lost: tuple[int, ...]) -> None:
    """Footers of that release lack sums of absolute values; of a resumed folder some parts have them."""
    for part in lost:
        (old / ScoresFolder.open(old).part_name(part)).unlink()
    if lost:
        with locked(old):
            score_corpus(open_corpus([str(rows)]), Scorer.from_pretrained(MODEL_FOLDER, device="cpu"), old, part_rows=8)
    folder = ScoresFolder.open(old)
    summaries = [summary for summary in folder.summaries() if summary is not None]
    assert [summary.don.absolutes is not None for summary in summaries] == [part in lost for part in range(3)]
    columns = ScoreColumns.from_table(folder.table())
    wanted = rank(columns, normalise=normalise)
    with rank_parts(folder, normalise=normalise) as big:
        assert big.keep(keep=ROWS, best_first=True).best_first == wanted.order.tolist()
    don, nod = folder.constants(sums=True)
    assert float(don.absolutes * don.scale) == pytest.approx(float(columns.don.abs().sum()), rel=1e-14)
    assert float(nod.absolutes * nod.scale) == pytest.approx(float(columns.nod.abs().sum()), rel=1e-14)


def test_it_is_resumed_to_the_same_scores(old: Path, rows: Path, caplog: pytest.LogCaptureFixture) -> None:
    wanted = ScoresFolder.open(old).table()
    lost = ScoresFolder.open(old).part_name(1)
    (old / lost).unlink()
    scorer = Scorer.from_pretrained(MODEL_FOLDER, device="cpu")
    with locked(old):
        outcome = score_corpus(open_corpus([str(rows)]), scorer, old, part_rows=8)
    assert outcome.resumed_rows == ROWS - 8
    assert "release 0.1.0 began" in caplog.text and "--overwrite" in caplog.text
    found = outcome.folder.table()
    others = [name for name in wanted.column_names if name not in SCORE_COLUMNS]
    assert found.select(others).equals(wanted.select(others))
    for name in ("don", "nod"):
        for row in range(ROWS):
            error = abs(found[name][row].as_py() - wanted[name][row].as_py())
            assert error <= 1e-5 * wanted["nod"][row].as_py(), (name, row)


def test_other_settings_are_refused_by_name(old: Path, rows: Path) -> None:
    scorer = Scorer.from_pretrained(MODEL_FOLDER, device="cpu", update=UpdateSettings("sgd"))
    with locked(old), pytest.raises(SettingsMismatchError, match=r"update\.update: 'adamw' in the folder"):
        score_corpus(open_corpus([str(rows)]), scorer, old, part_rows=8)


def test_that_files_have_no_checksums_is_said_once(old: Path, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        ScoresFolder.open(old)
    assert len([record for record in caplog.records if "no checksums" in record.message]) == 1
