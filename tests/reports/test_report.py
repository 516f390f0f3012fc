"""The report of a scores folder: the page has what the folder has, and text of records is only ever data."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ranked_folders import drawn, fake_scores, folder_of
from report_blocks import blocks_of, read_page, texts_of
from score_runs import assert_one_line_error, invoke, write_lines

from donod_fast.demo.corpus import DATA
from donod_fast.errors import StoreError
from donod_fast.reports.quality import facts
from donod_fast.reports.report import write_report
from donod_fast.reports.scored_table import read_scored
from donod_fast.reports.settings import ReportOptions
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scores.rows import ScoreRow
from donod_fast.system.escaping import is_hidden, one_line

MODEL = DATA / "model"
HOSTILE = (
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "\x1b[31mred\x1b]0;title\x07",
    "a\u202eb\u2066c\u200b",
    "nul\x00nul",
    "{{ 7*7 }}{% endblock %}",
    "'\"><img src=x onerror=alert(1)>&amp;",
)
OPTIONS = ReportOptions(near_duplicates="none", overwrite=True)


def hostile_rows() -> list[dict[str, Any]]:
    """Each text in every field and in a column's name, in scored rows and in rows of several statuses."""
    rows: list[dict[str, Any]] = []
    for at, text in enumerate(HOSTILE):
        rows.append(
            {"id": f"{text}{at}", "instruction": text, "input": text, "output": text, text: text, "source": text}
        )
        rows.append({"id": f"{at}{text}", "instruction": text, "output": " ", "source": text})
        rows.append({"id": text, text: text, "source": text})
    messages = [{"role": "user", "content": HOSTILE[0]}, {"role": "assistant", "content": HOSTILE[3]}]
    return [*rows, {"messages": messages}, {"text": HOSTILE[2]}, {"instruction": "Say it.", "output": "it"}] * 2


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> ScoresFolder:
    """A folder with hostile text wherever a corpus can have some; no test changes it."""
    place = tmp_path_factory.mktemp("hostile")
    data = write_lines(place / "<img src=x>\u202e\x1b[31m'\".jsonl", hostile_rows())
    out = place / "<b>scores"
    done = invoke("score", data, "--model", MODEL, "--out", out, "--carry", "source", "--part-rows", "7")
    assert done.code == 0, done.err
    return ScoresFolder.open(out)


@pytest.fixture(scope="module")
def page(hostile: ScoresFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page") / "report.html"
    write_report(hostile, out, ReportOptions(near_duplicates="none", title=HOSTILE[0] + HOSTILE[2]))
    return out


def strings_of(value: Any) -> list[str]:
    """All strings in JSON values, names of objects too."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for pair in value.items() for one in pair for text in strings_of(one)]
    return [text for one in value for text in strings_of(one)] if isinstance(value, list) else []


def test_hostile_text_is_only_ever_inside_blocks(page: Path, hostile: ScoresFolder) -> None:
    text = page.read_text(encoding="utf-8")
    blocks, tags = read_page(text)
    data = text.rpartition("<script>")[0]  # without the page's own script
    assert not any(word in data for word in ("alert(1)<", "onerror", "\x1b", "\x00", "\u202e"))
    assert "49" not in text.split("<h1")[1].split("</h1>")[0]
    scripts = [given for tag, given in tags if tag == "script"]
    assert {given.get("type") for given in scripts} <= {None, "application/x-donod"}
    assert sum(given.get("type") is None for given in scripts) <= 1
    assert not any(name.startswith("on") or name in ("src", "href", "action") for _, given in tags for name in given)
    assert not any(tag in ("img", "iframe", "object", "link", "form") for tag, _ in tags)
    meta = dict(blocks["meta"])
    assert meta.pop("folder") == hostile.name  # for the command, as it was typed
    for string in [*strings_of(meta), *strings_of(texts_of(blocks))]:
        assert not any(is_hidden(character) and character != "\n" for character in string), string


def test_a_report_holds_the_rows_and_numbers_of_its_folder(page: Path, hostile: ScoresFolder) -> None:
    blocks, table = blocks_of(page), hostile.table()
    meta = blocks["meta"]
    scored = [row for row in table.to_pylist() if row["status"] == "scored"]
    assert meta["rows"] == hostile.rows and meta["scored"] == meta["points"] == len(scored)
    assert blocks["row"].tolist() == [row["row"] for row in scored]
    for column in meta["columns"]:
        values = blocks[column["block"]]
        wanted = [row[column["name"]] for row in scored]
        if column["kind"] == "number":
            assert np.array_equal(values.astype(float), np.array(wanted, float), equal_nan=True)
        elif column["kind"] == "flag":
            assert values.tolist() == [int(value) for value in wanted]
        else:
            pairs = set(zip(values.tolist(), wanted, strict=True))
            assert len(pairs) == len(set(values.tolist())) == len(set(wanted))
            assert (65535 in values) == (None in wanted)
    assert {one["status"]: one["rows"] for one in meta["statuses"]} == dict(hostile.counts())
    assert meta["methods"][0]["name"] == "topsis"


def test_texts_show_every_row_with_its_mask_and_outcome(page: Path, hostile: ScoresFolder) -> None:
    blocks, rows = blocks_of(page), hostile.table().to_pylist()
    texts = texts_of(blocks)
    assert blocks["meta"]["texts"]["mask"] and not blocks["meta"]["texts"]["why"]
    assert [entry["row"] for entry in texts] == blocks["text_rows"].tolist() == list(range(hostile.rows))
    for entry, row in zip(texts, rows, strict=True):
        assert entry["status"] == row["status"] and entry["losses"] is None
        flags = {flag & 1 for flag, _ in entry["pieces"]}
        assert (1 in flags) == (row["status"] == "scored")
        assert bool(entry["scores"]) == (row["status"] == "scored")
        assert "mask" not in entry["detail"]
        if row["status"] != "scored":
            assert entry["detail"] and one_line(row["detail"]).endswith(entry["detail"])
            assert one_line(row["detail"]).startswith(entry["place"])
    last = texts[-1]
    assert "".join(text for flag, text in last["pieces"] if flag & 1).startswith("it")


def test_statuses_have_their_causes_and_one_example_each(page: Path, hostile: ScoresFolder) -> None:
    rows = hostile.table().to_pylist()
    for one in blocks_of(page)["meta"]["statuses"]:
        if one["status"] == "scored":
            assert not one["causes"] and one["example"] is None
            continue
        assert sum(cause["rows"] for cause in one["causes"]) == one["rows"] and one["remedy"]
        for cause in one["causes"]:
            assert rows[cause["example"]["row"]]["status"] == one["status"]
            assert "line" in cause["example"]["place"]


def test_equal_records_are_one_set_and_the_best_is_kept(page: Path, hostile: ScoresFolder) -> None:
    blocks = blocks_of(page)
    (found,) = blocks["meta"]["sets"]
    half = hostile.rows // 2
    assert (found["kind"], found["sets"], found["rows"]) == ("exact", half, hostile.rows)
    assert sorted(tuple(one["rows"]) for one in found["shown"]) == [(row, row + half) for row in range(half)]
    ranks = dict(zip(blocks["row"].tolist(), blocks["r0"].tolist(), strict=True))
    best = [min((row for row in one["rows"] if row in ranks), key=ranks.get, default=None) for one in found["shown"]]
    assert [one["kept"] for one in found["shown"]] == best and None in best


def test_a_command_never_holds_what_cannot_be_typed(page: Path) -> None:
    meta = blocks_of(page)["meta"]
    (source,) = [column for column in meta["columns"] if column["name"] == "record.source"]
    assert source["where"] == "source" and source["filter"]
    fit = [name for at, name in enumerate(source["categories"]) if at not in source["unfit"]]
    assert set(fit) == {text for text in HOSTILE if not any(map(is_hidden, text))}
    assert meta["groups"] == [{"name": "record.source", "column": meta["columns"].index(source), "by": "source"}]


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("2026-05-04T03:02:01+00:00", "2026-05-04 03:02 UTC"),
        ("2026-05-04T03:02:01.5+05:00", "2026-05-03 22:02 UTC"),
        ("yesterday", "yesterday"),
    ],
)
def test_the_time_of_scoring_is_short_and_of_one_zone(tmp_path: Path, written: str, shown: str) -> None:
    folder = folder_of(tmp_path / "scores", drawn(20), [20])
    folder.manifest["created"] = written
    assert ["scored", shown] in facts(folder, read_scored(folder))


def test_quality_names_unused_columns_template_and_tokens(page: Path, hostile: ScoresFolder) -> None:
    lines = blocks_of(page)["meta"]["quality"]
    labels = {line["label"]: line for line in lines}
    assert "all assistant turns" in labels["chat template"]["text"]
    table = hostile.table()
    scored, tokens = (sum(table.column(name).to_pylist()) for name in ("scored_tokens", "tokens"))
    assert labels["tokens scored"]["text"].startswith(f"{scored:,} of {tokens:,} tokens")
    unused = hostile.sample_counts().unused
    shown = [line for line in lines if line["label"] == "column no score depends on" and line["rows"]]
    assert sorted(line["rows"] for line in shown) == sorted(unused.values())


def test_the_same_folder_gives_the_same_blocks(hostile: ScoresFolder, page: Path, tmp_path: Path) -> None:
    write_report(hostile, tmp_path / "again.html", OPTIONS)
    first, second = blocks_of(page), blocks_of(tmp_path / "again.html")
    assert first.keys() == second.keys()
    for name in first.keys() - {"meta"}:
        assert np.array_equal(first[name], second[name])


def test_a_small_file_holds_the_texts_that_matter_most(tmp_path: Path) -> None:
    rows = [
        {"id": f"r{at}", "instruction": f"Say {at}.", "output": np.random.default_rng(at).bytes(1500).hex()}
        for at in range(700)
    ]
    data = write_lines(tmp_path / "data.jsonl", [*rows, {"id": "empty", "instruction": "Say it.", "output": ""}])
    scores = fake_scores(tmp_path / "scores", data)
    done = write_report(scores, tmp_path / "report.html", ReportOptions(max_mb=1.2, methods=("don", "nod")))
    assert done.bytes <= 1_200_000 and 50 < done.texts < 700
    blocks = blocks_of(tmp_path / "report.html")
    there = set(blocks["text_rows"].tolist())
    assert 700 in there, "an example of a status comes first"
    for at in range(2):
        ranks = blocks[f"r{at}"]
        order = blocks["row"][np.argsort(ranks)]
        assert {*order[:20].tolist(), *order[-20:].tolist(), *order[200:220].tolist()} <= there


def test_many_points_are_a_stated_sample_beside_exact_totals(tmp_path: Path) -> None:
    count = 3000
    columns = drawn(count)
    source = np.random.default_rng(0).choice(["web", "code"], count, p=[0.9, 0.1]).tolist()
    folder = folder_of(tmp_path / "scores", columns, (1000, 2000), {"source": source})
    done = write_report(folder, tmp_path / "report.html", ReportOptions(sample=500, records=False))
    blocks = blocks_of(tmp_path / "report.html")
    meta = blocks["meta"]
    assert 400 < done.points == meta["points"] == len(blocks["row"]) <= 500
    assert meta["sample"]["of"] == meta["scored"] > 2000 and "stratified" in meta["sample"]["text"]
    for column in meta["columns"]:
        assert sum(column["counts"]) + column["missing"] == meta["scored"]
        assert len(blocks[column["block"]]) == done.points
    for at, method in enumerate(meta["methods"]):
        assert sum(method["totals"]["tokens"]) == 3 * method["ranked"]
        ranks = blocks[f"r{at}"]
        assert len(set(ranks.tolist())) == done.points and ranks.max() < method["ranked"]


def test_a_report_of_points_that_do_not_fit_has_fewer(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "scores", drawn(30_000), (30_000,))
    done = write_report(folder, tmp_path / "report.html", ReportOptions(max_mb=1, records=False, methods=("topsis",)))
    assert done.bytes <= 10**6 and 2000 < done.points < done.scored


def test_methods_that_only_choose_have_a_fixed_count(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    count = 60
    columns = {name: np.nan_to_num(values) for name, values in drawn(count).items()}
    vectors = np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32)
    folder = folder_of(tmp_path / "scores", columns, (count,), signals={"embedding": {"embedding": vectors}})
    write_report(folder, tmp_path / "r.html", ReportOptions(methods=("topsis", "kcenter"), records=False, keep=0.2))
    blocks = blocks_of(tmp_path / "r.html")
    topsis, center = blocks["meta"]["methods"]
    assert topsis["fixed"] is None and center["fixed"] == center["ranked"] == 12
    assert sorted(blocks["r1"][blocks["r1"] < 2**32 - 1].tolist()) == list(range(12))
    assert center["arguments"] == ["--method", "kcenter"]


def test_embeddings_give_clusters_that_no_command_names(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    columns = {name: np.nan_to_num(values) for name, values in drawn(90).items()}
    centres = np.repeat(np.eye(10, 12), 9, 0)
    vectors = (centres + np.random.default_rng(0).normal(0, 0.01, centres.shape)).astype(np.float32)
    vectors[4] = np.nan
    folder = folder_of(tmp_path / "scores", columns, (40, 50), signals={"embedding": {"embedding": vectors}})
    write_report(folder, tmp_path / "report.html", ReportOptions(records=False))
    blocks = blocks_of(tmp_path / "report.html")
    meta = blocks["meta"]
    column = meta["columns"][meta["cluster"]]
    assert column["where"] is None and not column["filter"] and meta["groups"] == []
    codes = blocks[column["block"]]
    assert codes[4] == 65535 and column["missing"] == 1 and sorted(column["counts"]) == [8, *[9] * 9]
    there = np.arange(90) != 4
    assert len(set(zip(codes[there].tolist(), (np.arange(90) // 9)[there].tolist(), strict=True))) == 10
    (folder.path / folder.part_name(1)).unlink()
    write_report(folder, tmp_path / "half.html", ReportOptions(records=False))
    assert blocks_of(tmp_path / "half.html")["meta"]["cluster"] is None


def test_the_command_writes_a_page_and_says_what_is_in_it(hostile: ScoresFolder, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    done = invoke(
        "report", hostile.name, "--out", out, "--methods", "topsis,don,loss@high", "--near-duplicates", "none"
    )
    assert done.code == 0, done.err
    assert f"texts of {hostile.rows} rows → {out}" in done.out and f"open {out} in a browser" in done.out
    meta = blocks_of(out)["meta"]
    assert [method["arguments"] for method in meta["methods"]] == [
        ["--method", "topsis"], ["--method", "don"], ["--method", "loss", "--prefer", "high"]
    ]  # fmt: skip
    again = invoke("report", hostile.name, "--out", out)
    assert_one_line_error(again, 5, "exists already", "--overwrite")
    done = invoke("report", hostile.name, "--out", out, "--overwrite", "--json", "--no-records", "--keep", "40%")
    found = json.loads(done.out)
    assert found["texts"] == 0 and found["bytes"] == out.stat().st_size
    assert blocks_of(out)["meta"]["default"] == {"method": "topsis", "keep": 0.4}
    for given, stored in (("1", "1"), ("1.0", 1.0)):  # one row, and all of them
        done = invoke("report", hostile.name, "--out", out, "--overwrite", "--no-records", "--keep", given)
        assert done.code == 0 and repr(blocks_of(out)["meta"]["default"]["keep"]) == repr(stored)


@pytest.mark.parametrize(
    ("given", "code", "told"),
    [
        (("--methods", "topsi"), 2, ("unknown method 'topsi'", "did you mean 'topsis'")),
        (("--methods", "no_such_column"), 2, ("unknown method",)),
        (("--methods", "entropy"), 2, ("which end", "--prefer high")),
        (("--methods", "don,don"), 2, ("names don twice",)),
        (("--methods", "kcenter"), 2, ("embedding",)),
        (("--keep", "0"), 2, ("keeps nothing",)),
        (("--max-mb", "0.5"), 2, ("--max-mb must be from 1",)),
        (("--near-duplicates", "simhash"), 2, ("must be one of auto, none, minhash",)),
    ],
)
def test_a_wrong_option_is_refused_by_name(
    given: tuple[str, ...], code: int, told: tuple[str, ...], hostile: ScoresFolder, tmp_path: Path
) -> None:
    out = tmp_path / "report.html"
    assert_one_line_error(invoke("report", hostile.name, "--out", out, *given), code, *told)
    assert not out.exists()


def test_an_unfinished_folder_gives_a_report_that_says_so(hostile: ScoresFolder, tmp_path: Path) -> None:
    place = tmp_path / "scores"
    shutil.copytree(hostile.path, place)
    folder = ScoresFolder.open(place)
    (place / folder.part_name(2)).unlink()
    done = write_report(folder, tmp_path / "report.html", OPTIONS)
    assert done.scored and "unfinished" in done.warnings[0]
    blocks = blocks_of(tmp_path / "report.html")
    gone = set(range(*folder.part_range(2)))
    assert not gone & set(blocks["row"].tolist()) and blocks["meta"]["warnings"][0]["kind"] == "unfinished"
    for part in range(folder.parts):
        (place / folder.part_name(part)).unlink(missing_ok=True)
    with pytest.raises(StoreError, match="holds no scores yet"):
        write_report(folder, tmp_path / "report.html", OPTIONS)


def test_parts_of_other_settings_are_left_out_and_named(tmp_path: Path) -> None:
    one = folder_of(tmp_path / "one", drawn(300), (100, 200))
    other = folder_of(tmp_path / "two", drawn(300, 1), (100, 200))
    other.manifest = {**other.manifest, "head": {"softcap": 30.0}}
    other.__dict__.pop("settings", None)
    table = one.read_part(1)
    assert table is not None
    other.write_table(1, table)
    shutil.copy(other.path / other.part_name(1), one.path / one.part_name(1))
    done = write_report(ScoresFolder.open(tmp_path / "one"), tmp_path / "report.html", OPTIONS)
    assert any("other settings" in text and "left out" in text for text in done.warnings)
    assert blocks_of(tmp_path / "report.html")["row"].max() < 100


def test_moved_records_give_a_report_without_texts(hostile: ScoresFolder, tmp_path: Path) -> None:
    data = write_lines(tmp_path / "data.jsonl", [{"instruction": "Say it.", "output": "it"}] * 5)
    scores = fake_scores(tmp_path / "scores", data)
    data.rename(tmp_path / "elsewhere.jsonl")
    done = write_report(scores, tmp_path / "report.html", OPTIONS)
    meta = blocks_of(tmp_path / "report.html")["meta"]
    assert done.texts == 0 and meta["texts"]["why"] == "the records cannot be read"
    assert any("records cannot be read" in text and "data.jsonl" in text for text in done.warnings)


def test_scores_that_name_no_inputs_give_a_report_without_texts(tmp_path: Path) -> None:
    manifest = {
        "input": {"rows": 3, "fingerprint": "f"},
        "part_rows": 3,
        "model": {"weight_norm": 1.0},
        "update": {"update": "sgd", "lr": 0.1, "storage_dtype": None},
    }
    folder = ScoresFolder.open_or_create(tmp_path / "scores", manifest)
    numbers = (9, 3, False, 1.0, 1.0, 1.0, 1.0)
    folder.write_part(0, [ScoreRow(row, f"r{row}", "scored", "", *numbers, row / 8, 2.0 - row) for row in range(3)])
    done = write_report(folder, tmp_path / "report.html")
    assert done.scored == 3 and done.texts == 0 and "names no inputs" in " ".join(done.warnings)


def test_changed_records_end_the_texts_and_not_the_report(tmp_path: Path) -> None:
    data = write_lines(tmp_path / "data.jsonl", [{"instruction": f"Say {at}.", "output": "it"} for at in range(9)])
    out = tmp_path / "scores"
    assert invoke("score", data, "--model", MODEL, "--out", out).code == 0
    stat, content = data.stat(), data.read_bytes()
    data.write_bytes(content.replace(b"Say 7", b"Sag 7"))
    os.utime(data, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    done = write_report(ScoresFolder.open(out), tmp_path / "report.html", OPTIONS)
    assert any("some texts are missing" in text and "row 7" in text for text in done.warnings)
    assert done.scored == 9 and 7 not in blocks_of(tmp_path / "report.html")["text_rows"]


def test_rows_without_any_score_give_a_report_that_says_so(tmp_path: Path) -> None:
    data = write_lines(tmp_path / "data.jsonl", [{"instruction": "Say it.", "output": ""}] * 6)
    out = tmp_path / "scores"
    invoke("score", data, "--model", MODEL, "--out", out)
    done = write_report(ScoresFolder.open(out), tmp_path / "report.html", OPTIONS)
    blocks = blocks_of(tmp_path / "report.html")
    meta = blocks["meta"]
    assert done.scored == 0 and "no row of" in done.warnings[0]
    assert meta["methods"] == [] and meta["default"]["method"] is None and meta["agreement"] is None
    assert [one["status"] for one in meta["statuses"] if one["rows"]] == ["empty_response"]
    assert len(texts_of(blocks)) == 6 and meta["sets"][0]["rows"] == 6


def test_a_tokenizer_that_is_gone_gives_texts_without_masks(tmp_path: Path) -> None:
    data = write_lines(tmp_path / "data.jsonl", [{"instruction": f"Say {at}.", "output": "it"} for at in range(4)])
    shutil.copytree(MODEL, tmp_path / "model")
    assert invoke("score", data, "--model", tmp_path / "model", "--out", tmp_path / "scores").code == 0
    shutil.rmtree(tmp_path / "model")
    write_report(ScoresFolder.open(tmp_path / "scores"), tmp_path / "report.html", OPTIONS)
    blocks = blocks_of(tmp_path / "report.html")
    assert not blocks["meta"]["texts"]["mask"] and "tokenizer" in blocks["meta"]["texts"]["why"]
    assert texts_of(blocks)[2]["pieces"] == [[0, "instruction: Say 2.⏎\noutput: it"]]


def test_too_many_rows_are_refused_before_any_is_read(tmp_path: Path) -> None:
    manifest = {
        "input": {"rows": 10**7, "fingerprint": "f"},
        "part_rows": 10**6,
        "model": {"weight_norm": 1.0},
        "update": {"update": "sgd", "lr": 0.1, "storage_dtype": None},
    }
    ScoresFolder.open_or_create(tmp_path / "scores", manifest)
    done = invoke("report", tmp_path / "scores", "--out", tmp_path / "report.html")
    assert_one_line_error(done, 2, "10,000,000 rows", "at most 5,000,000", "donod-fast compare --sample")
