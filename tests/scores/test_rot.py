"""Nothing rots in silence: damage to a scores folder or to its inputs is an error, or changes no output."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from attack_counts import Attacks
from flips import Outcomes, attack_files, injury
from rotting import World, write_inputs
from score_runs import assert_one_line_error, invoke
from scored_folders import scored, without_checksum
from tiny_models import tiny_model, tiny_tokenizer

from donod_fast.data.reading import open_corpus
from donod_fast.data.reading.record_hashes import record_hash
from donod_fast.demo.corpus import DATA
from donod_fast.errors import CorpusError
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scores.parts import CHECKSUM, METADATA
from donod_fast.scoring.scorer import Scorer

OTHER_ROW = b'{"id": "x", "instruction": "Say it.", "output": "Hello there."}\n'
INPUTS = ("lines.jsonl", "document.json", "plain.parquet", "checked.parquet", "sheet.csv")
KINDS = {
    "lines.jsonl": "JSON input",
    "document.json": "JSON input",
    "plain.parquet": "Parquet input without page checksums",
    "checked.parquet": "Parquet input with page checksums",
    "sheet.csv": "CSV input",
}


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer(tiny_model("llama"), tiny_tokenizer())


@pytest.fixture(scope="module")
def world(scorer: Scorer, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], World]:
    made: dict[str, World] = {}

    def of(name: str) -> World:
        if name not in made:
            made[name] = World(tmp_path_factory.mktemp("world"), scorer, name)
        return made[name]

    return of


def assert_held(found: Outcomes) -> None:
    assert found.tried and not found.through, "\n".join(found.through[:20])
    assert found.errors, "no damage was noticed: the trials show nothing"


@pytest.mark.attack
@pytest.mark.parametrize("name", INPUTS)
def test_damage_to_a_scores_folder_is_noticed(name: str, world: Callable[[str], World], attacks: Attacks) -> None:
    here = world(name)
    found = attack_files(here.files, here.readers(), attacks.number(16, 800), 1, here.restore)
    attacks.count("folders", "scores folder", tried=found.tried, got_through=len(found.through))
    assert_held(found)


@pytest.mark.attack
@pytest.mark.parametrize("name", INPUTS)
def test_damage_to_an_input_of_equal_size_and_time_is_noticed(
    name: str, world: Callable[[str], World], attacks: Attacks
) -> None:
    here = world(name)
    readers = dict(here.readers())
    if name == "plain.parquet":
        # Nothing is known of rows that were never read. Those of other files were hashed when they were counted, and
        # page checksums cover the other table.
        readers.pop("resume")
    found = attack_files(lambda: [here.input], readers, attacks.number(16, 900), 2, here.restore, same_size=True)
    attacks.count("inputs", KINDS[name], tried=found.tried, got_through=len(found.through))
    assert_held(found)


def test_an_error_names_file_and_row_and_leaves_nothing(world: Callable[[str], World]) -> None:
    for name in INPUTS:
        if name == "checked.parquet":
            continue  # its pages are compressed
        here = world(name)
        content = here.input.read_bytes()
        wrong = content.replace(b"r6", b"r9", 1)
        assert wrong != content
        with injury(here.input, wrong), pytest.raises(CorpusError) as caught:
            here.readers()["export"][0]()
        assert here.input.name in str(caught.value)
        assert "row 6" in str(caught.value) and "restore the file from a copy" in str(caught.value)
        assert not (here.place / "export.jsonl").exists()


def test_rows_of_an_earlier_release_are_selected_with_a_warning(
    scorer: Scorer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    here = World(tmp_path, scorer, "lines.jsonl")
    wanted = here.readers()["select"][0]()
    assert not caplog.records
    for file in here.out.glob("p*.parquet"):
        table = pq.read_table(file)
        old = {key: value for key, value in (table.schema.metadata or {}).items() if key in (METADATA, CHECKSUM)}
        names = [name for name in table.column_names if name != "record_hash"]
        pq.write_table(table.select(names).replace_schema_metadata(old or None), file, write_page_checksum=True)
    without_checksum(here.out)
    assert here.readers()["select"][0]() == wanted
    assert "no checksums" in caplog.text and "no hashes of the records" in caplog.text
    # A run that goes into the folder writes its own parts with checksums, and still accepts the others.
    (here.out / "part-000001.parquet").unlink()
    scored(scorer, here.out, [here.input], part_rows=16)
    folder = ScoresFolder.open(here.out)
    assert not folder.needs_seal
    assert folder.record_hashes(0) is None and folder.record_hashes(1) is not None
    assert here.readers()["select"][0]() == wanted


def test_hashes_differ_between_rows_and_kinds_of_files(world: Callable[[str], World], tmp_path: Path) -> None:
    for file in write_inputs(tmp_path).values():
        hashes = [record_hash(record) for record in open_corpus([str(file)]).records()]
        assert len(set(hashes)) == len(hashes) and {len(one) for one in hashes} == {8}


def test_a_changed_record_is_neither_shown_nor_given_new_columns(tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_bytes((DATA / "corpus.jsonl").read_bytes().split(b"\n", 8)[0] + b"\n" + OTHER_ROW)
    options = ["score", data, "--model", DATA / "model", "--out", tmp_path / "scores", "--device", "cpu", "-q"]
    assert invoke(*options).code == 0
    show = ["show", "--scores", tmp_path / "scores", "--row", "0-1"]
    assert invoke(*show).code == 0
    with injury(data, data.read_bytes().replace(b"Hello", b"Hullo")):
        for arguments in (show, [*options, "--signals", "perplexity"]):
            assert_one_line_error(invoke(*arguments), 3, "row 1 is not the record that was scored", str(data))
    assert invoke(*options, "--signals", "perplexity").code == 0
