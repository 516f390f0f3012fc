"""An export joins scores to records and leaves the records as they are in their files."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from score_runs import assert_one_line_error, invoke
from scored_folders import scored
from stored_records import old

from donod_fast.errors import InputError
from donod_fast.scores.exporting import Export, export_file
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scoring.scorer import Scorer

LINES = [
    r'{"question": "red",  "answer":"blue","score":NaN,"big":12345678901234567890123,"x":1}  ',
    r'  {"question":"gr\u0065en","answer":"one","x":1E400,"x":"two"}',
    '{"question":"cut o',
    "{}",
    '{"question":"red","answer":"six","meta":{"a":null}}',
]


def score_columns(folder: ScoresFolder) -> list[dict[str, object]]:
    """The scores of each row, as an export names them."""
    rows = folder.table().to_pylist()
    return [
        {f"donod.{name}": None if value != value else value for name, value in row.items() if "." not in name}
        for row in rows
    ]


def test_lines_of_json_keep_their_text_before_the_scores(scorer: Scorer, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n".join(LINES))
    folder = scored(scorer, tmp_path / "out", [old(tmp_path / "a.jsonl")], part_rows=2)
    assert export_file(folder, folder.reopened(), tmp_path / "o.jsonl") == Export(5)
    export_file(folder, folder.reopened(), tmp_path / "o.json")
    found = (tmp_path / "o.jsonl").read_text().splitlines()
    for line, own, scores in zip(found, LINES, score_columns(folder), strict=True):
        members = json.dumps(scores, separators=(",", ":"), ensure_ascii=False)[1:]
        if "cut" in own:
            assert line == "{" + members
        else:
            body = own.rstrip()
            assert line == body[:-1] + ("," if body != "{}" else "") + members + own[len(body) :]
    assert (tmp_path / "o.json").read_text() == "[\n" + ",\n".join(found) + "\n]\n"


def test_select_names_columns_of_json_text_and_refuses_early(scorer: Scorer, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n".join(LINES))
    scored(scorer, tmp_path / "out", [old(tmp_path / "a.jsonl")])
    options = ("select", tmp_path / "out", "--keep", "100%", "--out")
    done = invoke(*options, tmp_path / "o.parquet")
    assert "3 columns as JSON text, because no column type holds the values: big, x, meta" in done.out
    again = invoke(*options, tmp_path / "o.parquet", "--overwrite", "--json")
    assert json.loads(again.out)["json_columns"] == ["big", "x", "meta"]
    assert_one_line_error(invoke(*options, tmp_path / "o.csv"), 2, "only rows of .csv files", "end the name in .jsonl")
    assert invoke(*options, tmp_path / "o.json").code == 0
    assert len(json.loads((tmp_path / "o.json").read_text())) == 3


def test_tables_keep_schema_and_values_beside_the_scores(scorer: Scorer, tmp_path: Path) -> None:
    features = datasets.Features({"question": datasets.Value("string"), "kind": datasets.ClassLabel(names=["a", "b"])})
    schema = pa.schema(
        [
            *features.arrow_schema,
            pa.field("answer", pa.large_string(), nullable=False, metadata={"why": "é"}),
            pa.field("n", pa.uint64()),
            pa.field("at", pa.timestamp("ns")),
            pa.field("map", pa.map_(pa.string(), pa.int8())),
        ],
        metadata=features.arrow_schema.metadata,
    )
    rows = [
        {"question": "red", "kind": at % 2, "answer": "blue", "n": 2**63 + at, "at": 10**18 + at, "map": [("k", at)]}
        for at in range(11)
    ]
    table = pa.Table.from_pylist(rows, schema)
    for at, (begin, end) in enumerate(((0, 5), (5, 11))):
        pq.write_table(table.slice(begin, end - begin), tmp_path / f"{at}.parquet", row_group_size=3)
        old(tmp_path / f"{at}.parquet")
    folder = scored(scorer, tmp_path / "out", [tmp_path / "0.parquet", tmp_path / "1.parquet"])
    source = pa.concat_tables([pq.read_table(tmp_path / f"{at}.parquet") for at in range(2)])
    assert export_file(folder, folder.reopened(), tmp_path / "o.parquet") == Export(11)
    found = pq.read_table(tmp_path / "o.parquet")
    assert list(found.schema)[: len(schema)] == list(source.schema)
    assert all(one.equals(two, check_metadata=True) for one, two in zip(found.schema, source.schema, strict=False))
    assert found.select(schema.names).to_pylist() == source.to_pylist()
    scores = found.select([name for name in found.column_names if name.startswith("donod.")])
    assert scores.to_pylist() == score_columns(folder) and [row["donod.row"] for row in scores.to_pylist()] == [
        *range(11)
    ]
    done = invoke("export", tmp_path / "out", "--out", tmp_path / "saved")
    assert_one_line_error(done, 2, "cannot hold the column 'map'", "end the name in .parquet")
    for at in range(2):
        pq.write_table(pq.read_table(tmp_path / f"{at}.parquet").drop_columns(["map"]), tmp_path / f"{at}.parquet")
        old(tmp_path / f"{at}.parquet")
    folder = scored(scorer, tmp_path / "plain", [tmp_path / "0.parquet", tmp_path / "1.parquet"])
    assert export_file(folder, folder.reopened(), tmp_path / "saved") == Export(11)
    saved = datasets.load_from_disk(str(tmp_path / "saved"))
    assert saved.features["kind"] == features["kind"] and saved.features["donod.don"] == datasets.Value("float64")
    assert len(saved) == 11


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_rows_of_text_tables_keep_their_bytes_before_the_scores(scorer: Scorer, tmp_path: Path, kind: str) -> None:
    lines = ['\ufeffquestion,"answer"', '"red","blue ""x"""', "red", 'gr\u00e9en,"one\r\n two"', "six,"]
    if kind == "tsv":
        lines = [line.replace(",", "\t") for line in lines]
    (tmp_path / f"a.{kind}").write_bytes("\r\n".join(lines).encode())
    folder = scored(scorer, tmp_path / "out", [old(tmp_path / f"a.{kind}")])
    assert invoke("export", tmp_path / "out", "--out", tmp_path / f"o.{kind}").code == 0
    comma = {"csv": ",", "tsv": "\t"}[kind]
    found = (tmp_path / f"o.{kind}").read_bytes().decode()
    own = [comma if line == "red" else line for line in lines]  # a row with one field is not a record
    for text in own[1:]:
        assert "\r\n" + text + comma in found
    assert found.startswith(own[0] + comma + "donod.row" + comma) and found.endswith("\r\n")
    rows = list(csv.reader(found.removeprefix("\ufeff").splitlines(keepends=True), delimiter=comma))
    assert [row[1] for row in rows] == ["answer", 'blue "x"', "", "one\r\n two", ""]
    statuses = [row[rows[0].index("donod.status")] for row in rows[1:]]
    assert statuses == [row["donod.status"] for row in score_columns(folder)] and "not_parsable" in statuses


def test_an_export_offers_only_files_that_can_hold_the_records(scorer: Scorer, tmp_path: Path) -> None:
    pq.write_table(pa.table({"question": ["red"], "answer": ["blue"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"question": ["red"], "answer": ["six"], "n": [1]}), tmp_path / "b.parquet")
    files = [old(tmp_path / "a.parquet"), old(tmp_path / "b.parquet")]
    scored(scorer, tmp_path / "out", files)
    for name in ("o.parquet", "saved"):
        done = invoke("export", tmp_path / "out", "--out", tmp_path / name)
        assert_one_line_error(done, 2, "the column 'n' is only in the second", "ends in .jsonl")
        assert not (tmp_path / name).exists()
        assert invoke("export", tmp_path / "out", "--out", tmp_path / name, "--records", "json").code == 0
    for name in ("o.jsonl", "o.csv", "o.json"):
        assert invoke("export", tmp_path / "out", "--out", tmp_path / name).code == 0
    assert_one_line_error(invoke("export", tmp_path / "out", "--out", tmp_path / "o.tsv"), 2, "cannot write .tsv files")


def test_a_column_name_that_csv_cannot_hold_is_refused(scorer: Scorer, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"question":"red","answer":"blue"}\n{"question":"one","answer":"two","\\ud800":1}'
    )
    folder = scored(scorer, tmp_path / "out", [old(tmp_path / "a.jsonl")])
    with pytest.raises(InputError, match=r"row 1 \(.*, line 2\): CSV cannot hold the name .*\.jsonl"):
        export_file(folder, folder.reopened(), tmp_path / "a.csv")
    assert not (tmp_path / "a.csv").exists()
