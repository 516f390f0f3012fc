"""``Scorer``: the same table for any source of rows, and the same scores for any batch."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from score_runs import assert_same_bits, short_rows, tiny_scorer, write_lines
from tiny_models import save_tiny, tiny_model, tiny_tokenizer

from donod_fast import Scorer as ExportedScorer
from donod_fast.data.masking import MaskSettings
from donod_fast.data.types import Status
from donod_fast.errors import CorpusError, HeadMismatchError, InputError, ModelError
from donod_fast.scores.rows import SCORE_COLUMNS
from donod_fast.scoring.scorer import Scorer
from donod_fast.scoring.settings import UpdateSettings

ROWS = short_rows(30, seed=11)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("llama", tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def scorer(model: Path) -> Scorer:
    return tiny_scorer(model)


def test_the_scorer_is_the_package_s_face() -> None:
    assert issubclass(ExportedScorer, Scorer)


def test_a_list_a_dataset_a_path_and_paths_give_the_same_table(scorer: Scorer, tmp_path: Path) -> None:
    wanted = scorer.score_table(ROWS)
    assert wanted.column("row").to_pylist() == list(range(len(ROWS)))
    path = write_lines(tmp_path / "rows.jsonl", ROWS)
    from_file = scorer.score_table(path)
    assert_same_bits(from_file.drop_columns("detail"), wanted.drop_columns("detail"))  # which name their source
    assert_same_bits(scorer.score_table(str(path)), from_file)
    halves = [
        write_lines(tmp_path / "a.jsonl", ROWS[:13]),
        str(write_lines(tmp_path / "b.jsonl", ROWS[13:])),
    ]
    assert_same_bits(scorer.score_table(halves).drop_columns("detail"), wanted.drop_columns("detail"))


def test_a_datasets_dataset_gives_the_same_scores(scorer: Scorer) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [row for row in ROWS if "question" in row]
    found, wanted = scorer.score_table(datasets.Dataset.from_list(rows)), scorer.score_table(rows)
    assert_same_bits(found, wanted)


def test_an_in_memory_model_scores_as_the_saved_one(scorer: Scorer) -> None:
    found = Scorer(tiny_model("llama"), tiny_tokenizer()).score_table(ROWS)
    assert_same_bits(found, scorer.score_table(ROWS))


def test_every_row_has_a_status_and_numbers_only_where_it_is_scored(scorer: Scorer) -> None:
    rows = scorer.score_table(ROWS).to_pylist()
    assert {row["status"] for row in rows} >= {"scored", "empty_response", "unknown_format"}
    for number, (row, record) in enumerate(zip(rows, ROWS, strict=True)):
        assert row["row"] == number
        scored = row["status"] == Status.SCORED
        assert all(math.isfinite(row[name]) == scored for name in SCORE_COLUMNS)
        assert (row["detail"] == "") == scored
        if "id" in record:
            assert row["id"] == record["id"]
        if scored:
            # One token a character, and the template's marks: <|user|> … <|end|><|assistant|> … <|end|>
            assert row["tokens"] == len(record["question"]) + len(record["answer"]) + 4
            assert row["scored_tokens"] == len(record["answer"]) + 1
            assert row["nod"] == pytest.approx(2e-5 * row["update_norm"], rel=1e-12)
            assert 0 < row["nod"] >= abs(row["don"])


@pytest.mark.parametrize("update", ["adamw", "sgd", "sign"])
def test_a_row_alone_in_a_batch_and_in_another_order_has_the_same_scores(model: Path, update: str) -> None:
    scorer = tiny_scorer(model, update=UpdateSettings(update))
    alone = [scorer.score_table([row]).to_pylist()[0] for row in ROWS]
    scorer_of_pairs = tiny_scorer(model, update=UpdateSettings(update), token_budget=150)
    orders = {
        "batch": scorer.score_table(ROWS).to_pylist(),
        "pairs": scorer_of_pairs.score_table(ROWS).to_pylist(),
        "reversed": scorer.score_table(ROWS[::-1]).to_pylist()[::-1],
    }
    for name, rows in orders.items():
        for row, single in zip(rows, alone, strict=True):
            assert row["status"] == single["status"]
            if row["status"] == "scored":
                for column in ("don", "nod"):
                    assert abs(row[column] - single[column]) <= 1e-5 * single["nod"], name
                assert abs(row["loss"] - single["loss"]) <= 1e-5 * single["loss"], name


def test_scoring_twice_gives_the_same_bits(scorer: Scorer) -> None:
    assert_same_bits(scorer.score_table(ROWS), scorer.score_table(ROWS))


def test_more_rows_than_are_read_at_once_keep_their_order(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    import donod_fast.scoring.scorer

    wanted = scorer.score_table(ROWS)
    monkeypatch.setattr(donod_fast.scoring.scorer, "PART_ROWS", 7)
    seen = []
    found = scorer.score_table(ROWS, progress=lambda rows, tokens: seen.append(rows))
    assert sum(seen) == len(ROWS)
    for name in ("row", "id", "status", "tokens"):
        assert found.column(name).to_pylist() == wanted.column(name).to_pylist()


def test_the_models_length_is_the_limit_unless_a_smaller_one_is_given(model: Path) -> None:
    row = {"question": "x" * 100, "answer": "y" * 100}
    rows = tiny_scorer(model).score_table([row]).to_pylist()
    assert (rows[0]["status"], rows[0]["truncated"], rows[0]["tokens"]) == ("scored", True, 204)
    assert rows[0]["scored_tokens"] == 128 - 100 - 3
    short = tiny_scorer(model, masks=MaskSettings(max_length=64)).score_table([row]).to_pylist()
    assert short[0]["status"] == "too_long"
    with pytest.raises(InputError, match="more than the model's own 128"):
        tiny_scorer(model, masks=MaskSettings(max_length=129))


def test_what_cannot_be_scored_is_refused_by_name(scorer: Scorer, tmp_path: Path) -> None:
    for nothing in ([], str(tmp_path / "gone.jsonl"), [tmp_path / "gone.jsonl"]):
        with pytest.raises(CorpusError):
            scorer.score_table(nothing)
    for wrong in (None, 7, object()):
        with pytest.raises(InputError, match="list of dicts"):
            scorer.score_table(wrong)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="tokenizer"):
        Scorer(tiny_model("llama"))
    with pytest.raises(InputError, match="token budget"):
        Scorer(tiny_model("llama"), tiny_tokenizer(), token_budget=0)


def test_a_model_whose_logits_are_not_ours_is_refused() -> None:
    model = tiny_model("llama")
    head = model.get_output_embeddings()
    head.register_forward_hook(lambda module, inputs, output: output * 1.5)
    with pytest.raises(HeadMismatchError):
        Scorer(model, tiny_tokenizer())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_model_is_left_as_it_was(dtype: torch.dtype) -> None:
    model = tiny_model("llama").to(dtype)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    Scorer(model, tiny_tokenizer()).score_table(ROWS)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("kind", ["gpt2", "gemma2", "cohere", "qwen2", "mixtral"])
def test_other_architectures_score_every_row(kind: str) -> None:
    statuses = Scorer(tiny_model(kind), tiny_tokenizer()).score_table(ROWS).column("status").to_pylist()
    assert statuses.count("scored") > 20


def test_the_description_is_plain_and_holds_every_setting(scorer: Scorer) -> None:
    told = json.loads(json.dumps(scorer.describe()))
    assert told == scorer.describe()
    assert told["update"] == UpdateSettings().as_dict()
    assert {"format", "template", "train_on", "max_length", "tokenizer_sha256"} <= told["masks"].keys()
    weight = scorer.loaded.model.get_output_embeddings().weight
    assert told["model"]["weight_norm"] == pytest.approx(float(torch.linalg.norm(weight.double())), rel=1e-12)
    # A call's own settings of the tokenizer change nothing
    scorer.loaded.tokenizer(["a", "bb"], padding=True, truncation=True, max_length=1)
    assert scorer.describe() == told
