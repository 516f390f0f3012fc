"""``Scores`` as a table, as text and as HTML, and its comparison, ranking and picture."""

from __future__ import annotations

import contextlib
import html.parser
import inspect
import json
import sys
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pyarrow as pa
import pytest
from api_cases import folder_over, in_memory, written_corpus
from ranked_folders import drawn
from score_runs import assert_same_bits, invoke

import donod_fast
from donod_fast.api.scores import Scores
from donod_fast.errors import DonodError, InputError, StoreError
from donod_fast.selection.filter_options import FilterOptions
from donod_fast.selection.settings import CompareOptions, KeepOptions, OrderOptions, PreferOptions, RankOptions
from donod_fast.system.options import options_of

ROWS = 50
HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e&\x00"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scores")
    corpus, sources = written_corpus(root / "a.jsonl", ROWS)
    folder_over(
        root / "scores", [corpus], drawn(ROWS, 1), {"source": sources, "text": [HOSTILE.replace("\x00", "")] * ROWS}
    )
    return root / "scores"


@pytest.fixture(scope="module", params=["folder", "memory"])
def scores(request: pytest.FixtureRequest, place: Path) -> Scores:
    folder = donod_fast.load_scores(place)
    return folder if request.param == "folder" else in_memory(folder.folder)


def test_a_table_in_every_form(scores: Scores) -> None:
    table = scores.folder.table()
    assert len(scores) == ROWS == table.num_rows
    assert scores.column_names == table.column_names == scores.schema.names
    assert_same_bits(scores.table, table)
    assert_same_bits(pa.table(scores), table)
    assert [row["row"] for row in scores] == list(range(ROWS))
    for name in scores.column_names:
        assert str(scores[name].to_pylist()) == str(table.column(name).to_pylist())
    assert scores["source"].to_pylist() == scores["record.source"].to_pylist()
    assert scores[["nod", "row"]].column_names == ["nod", "row"]
    frame = scores.to_pandas()
    np.testing.assert_array_equal(frame["don"].to_numpy(), table.column("don").to_numpy())
    assert scores.to_datasets().column_names == table.column_names
    polars = pytest.importorskip("polars")
    assert scores.to_polars().shape == polars.DataFrame(scores).shape == (ROWS, len(table.column_names))


def test_a_column_reads_no_other(scores: Scores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(scores.folder), "read_part", lambda *_: pytest.fail("read a whole part"))
    assert len(scores["don"]) == ROWS


@pytest.mark.parametrize("wrong", ["dno", "record", "", 3, slice(2)])
def test_an_unknown_column_is_named(scores: Scores, wrong: Any) -> None:
    with pytest.raises(InputError, match=r"don"):
        scores[wrong]


def test_a_missing_package_is_named(scores: Scores, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("polars", "pandas"):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(InputError, match=f"pip install {package}"):
            getattr(scores, f"to_{package}")()


def test_its_text_says_what_it_is(scores: Scores, place: Path) -> None:
    text = repr(scores)
    scored = int((~np.isnan(scores["don"].to_numpy())).sum())
    assert f"{ROWS} rows: {scored} scored, {ROWS - scored} too_long" in text
    for part in ("a model", "adamw", "2e-05", "record.source"):
        assert part in text
    assert ("in memory" in text) == (scores.folder.storage.local is None)


class _Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_html_escapes_what_comes_from_data(tmp_path: Path) -> None:
    corpus, _ = written_corpus(tmp_path / "a.jsonl", 4)
    folder = folder_over(tmp_path / "scores", [corpus], {}, {HOSTILE: ["x"] * 4})
    table = folder.read_part(0)
    assert table is not None
    table = table.set_column(1, "id", pa.array([HOSTILE] * 4)).cast(table.schema)
    folder.write_table(0, table)
    scores = Scores(donod_fast.load_scores(tmp_path / "scores")._source)
    shown = [scores, scores.status, scores.rank("don"), scores.select(2, by=HOSTILE), scores.select(2).explain(1)]
    for one in shown:
        found = _Tags()
        found.feed(one._repr_html_())
        assert not found.tags - {"pre", "table", "thead", "tbody", "tr", "th", "td", "p"}
        assert not {"\x1b", "\u202e", "\x00"} & set(found.text)
    assert "alert(1)" in found.text or "alert(1)" in scores._repr_html_()


def test_status_says_causes(scores: Scores) -> None:
    status = scores.status
    assert status.finished and status.missing_rows == 0
    (unscored,) = status.unscored
    assert (unscored.status, unscored.rows) == ("too_long", status.by_status["too_long"])
    assert sum(cause.rows for cause in unscored.causes) == unscored.rows
    first = int(np.flatnonzero(np.isnan(scores["don"].to_numpy()))[0])
    assert unscored.causes[0].row == first
    assert "too_long" in repr(status) and "shorten the prompts" in repr(status)


def test_a_comparison_is_that_of_the_command(scores: Scores, place: Path) -> None:
    found = scores.compare("topsis,don,loss", keep="20%")
    done = invoke("compare", place, "--columns", "topsis,don,loss", "--keep", "20%", "--json")
    assert json.loads(json.dumps(found.as_dict())) == json.loads(done.out)
    assert repr(found).startswith("Spearman's rank correlation")
    assert found.correlation().loc["topsis", "don"] == found.comparison.correlation[0, 1]
    assert list(found.overlap().columns) == ["topsis", "don", "loss"]


def test_a_picture_shows_and_saves_itself(scores: Scores, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = scores.plot(tmp_path / "plane.svg", keep=0.5, method="don")
    assert (tmp_path / "plane.svg").read_bytes().startswith(b"<?xml")
    assert picture._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(InputError, match=r"\.png"):
        scores.plot("plane.gif")


KINDS = {
    "rank": (OrderOptions, PreferOptions),
    "select": (RankOptions, KeepOptions, FilterOptions),
    "compare": (CompareOptions,),
}


@pytest.mark.parametrize("method", KINDS)
def test_every_option_of_the_command_is_an_argument(method: str) -> None:
    call = getattr(Scores, method)
    parameters = inspect.signature(call).parameters
    for kind in KINDS[method]:
        for field in options_of(kind):
            assert parameters[field.name].default in (getattr(kind(), field.name), ())
            assert field.option.help in call.__doc__


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"keep": 0.3, "methd": "don"}, "did you mean 'method'"),
        ({"keep": "none"}, "keep 'none'"),
        ({"keep": None}, "how much to keep"),
        ({"keep": 1.5}, "1.5"),
        ({"keep": True}, "True"),
        ({"keep": 0.3, "method": "tpsis"}, "topsis"),
        ({"keep": 0.3, "by": "sourc"}, "sourc"),
        ({"keep": 0.3, "order": "worst"}, "input or best"),
        ({"keep": 0.3, "engine": "gpu"}, "duckdb"),
        ({"keep": 0.3, "memory": "lots"}, "lots"),
        ({"keep": 0.3, "clusters": 0}, "clusters must be at least 1"),
        ({"keep": 0.3, "where": "loss"}, "loss"),
        ({"keep": 0.3, "where": "don=9:"}, "none of the"),
        ({"keep": 0.3, "seed": -1, "method": "random"}, "seed"),
        ({"keep": 0.3, "memory": 0}, "memory must be at least 1 byte"),
        ({"keep": 0.3, "memory": -5}, "memory must be at least 1 byte"),
        ({"keep": 0.3, "lr": "fast"}, "lr must be a number or None"),
        ({"keep": 0.3, "weights": 0.5}, "two numbers"),
    ],
)
def test_a_wrong_option_is_refused_by_name(scores: Scores, given: dict[str, Any], part: str) -> None:
    with pytest.raises(InputError) as refused:
        scores.select(**given)
    assert part in str(refused.value)


ODD = [True, 1.5, "word", object(), [1, 2], {"a": 1}, b"a", float("nan"), [None], ("don", 3), np.array([1, 2])]


@pytest.mark.parametrize("name", [field.name for kind in KINDS["select"] for field in options_of(kind)])
def test_a_value_of_any_type_is_taken_or_refused(name: str, scores: Scores, monkeypatch: pytest.MonkeyPatch) -> None:
    """An option ends in no error of Python's, also one that the method does not look at."""
    if name == "embedding_model":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for value in ODD:
        for more in ({"keep": 0.3}, {"method": "don-threshold", "don_quantile": 0.5}):
            with contextlib.suppress(DonodError):
                scores.select(**{**more, name: value})
    hint = get_type_hints(RankOptions) | get_type_hints(KeepOptions) | get_type_hints(FilterOptions)
    if hint[name] in (int, float, float | None, int | None):
        for value in (True, "word", [1.5], b"a"):
            with pytest.raises(InputError, match=name):
                scores.select(**{"keep": 0.3, name: value})


@pytest.mark.parametrize(
    ("given", "same"),
    [
        ({"keep": np.float64(0.3)}, {"keep": 0.3}),
        ({"keep": np.int64(5)}, {"keep": 5}),
        ({"keep": "30 %"}, {"keep": 0.3}),
        ({"keep": 0.3, "weights": [0.9, 0.1]}, {"keep": 0.3, "weights": "0.9,0.1"}),
        ({"keep": 0.3, "memory": "1GiB"}, {"keep": 0.3, "memory": 1 << 30}),
        ({"keep": 0.9, "where": "source=b"}, {"keep": 0.9, "where": ["source=b"]}),
        ({"keep": 0.3, "lr": "1e-3"}, {"keep": 0.3, "lr": 1e-3}),
        ({"keep": 0.3, "seed": "7", "method": "random"}, {"keep": 0.3, "seed": 7, "method": "random"}),
        ({"keep": 0.3, "memory": 2e9}, {"keep": 0.3, "memory": 2 * 10**9}),
        ({"keep": 0.3, "dedupe": None, "where": None, "memory": None}, {"keep": 0.3}),
        ({"keep": 0.3, "by": "record.source"}, {"keep": 0.3, "by": "source"}),
    ],
)
def test_values_are_taken_as_people_write_them(scores: Scores, given: dict[str, Any], same: dict[str, Any]) -> None:
    assert scores.select(**given).rows.tolist() == scores.select(**same).rows.tolist()


def test_keeping_one_row_is_said(scores: Scores, caplog: pytest.LogCaptureFixture) -> None:
    assert len(scores.select(1)) == 1
    assert "keeps ONE row; keep=1.0 or keep='100%' keeps all" in caplog.text


def test_a_selection_says_what_it_is(scores: Scores) -> None:
    selection = scores.select(0.5, by="source", where="don=0:")
    text = repr(selection)
    assert f"{len(selection)} of " in text and "b: " in text and "fulfil --where don=0:" in text
    assert selection.before > len(selection)
    assert sum(group.kept for group in selection.groups) == selection.before
    assert len(list(selection.records())) == len(selection.dataset()) == len(selection)
    assert selection.dataset()["n"][:] == selection.rows.tolist()
    assert "..." in repr(scores.select(0.5).explain(1))


@pytest.mark.parametrize("engine", ["memory", "duckdb"])
@pytest.mark.parametrize("count", [0, -1, "x", 2.5, None])
def test_a_wrong_number_of_explained_rows_is_refused(scores: Scores, engine: str, count: Any) -> None:
    with pytest.raises(InputError, match="count must be at least 1"):
        scores.select(0.5, engine=engine).explain(count)


def test_a_subset_does_not_replace_a_file(scores: Scores, tmp_path: Path) -> None:
    selection = scores.select(3)
    assert selection.write(tmp_path / "a.parquet") == tmp_path / "a.parquet"
    with pytest.raises(StoreError, match="exists already"):
        selection.write(tmp_path / "a.parquet")
    selection.write(str(tmp_path / "a.parquet"), overwrite=True)
    with pytest.raises(InputError, match="name must end in"):
        selection.write(tmp_path / "a.txt")
