"""Arguments of ``Scorer`` as people write them: one meaning each, or a refusal that names the remedy."""

from __future__ import annotations

import inspect
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import tiny_model, tiny_tokenizer

from donod_fast import SGD, AdamW, Sign
from donod_fast.criteria.base import fingerprint
from donod_fast.criteria.length import AnswerLength
from donod_fast.criteria.statistics import ErrorNorm
from donod_fast.data.settings import MaskSettings
from donod_fast.errors import InputError
from donod_fast.kernels import AdamState, FactoredAdamW, don_nod
from donod_fast.scoring.arguments import (
    LoadingOptions,
    MaskOptions,
    PlainOptions,
    ScorerOptions,
    UpdateOptions,
    criteria_of,
    mask_settings,
    update_settings,
)
from donod_fast.scoring.scorer import Scorer
from donod_fast.scoring.settings import ColumnSettings, UpdateSettings

ROWS = [{"question": "how many", "answer": "three"}, {"question": "which", "answer": "the red one"}]


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model("llama")


def made(model: Any, **options: Any) -> Scorer:
    return Scorer(model, tiny_tokenizer(), token_budget=200, **options)


def drawn_spellings() -> list[tuple[dict[str, Any], UpdateSettings]]:
    """Every spelling of an update beside every set of plain keywords, with the settings that they mean."""
    named: list[tuple[Any, str, dict[str, Any]]] = [
        (None, "adamw", {}),
        ("adamw", "adamw", {}),
        (AdamW(), "adamw", {}),
        (AdamW(eps=1e-6, betas=(0.8, 0.9)), "adamw", {"eps": 1e-6}),
        ("sgd", "sgd", {}),
        (SGD(), "sgd", {}),
        ("sign", "sign", {}),
        (Sign(), "sign", {}),
        ("adamw-warm", "adamw-warm", {}),
    ]
    plain: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {}),
        ({"lr": 1e-5}, {"lr": 1e-5}),
        ({"lr": 1}, {"lr": 1.0}),
        ({"lr": np.float64(3e-4), "weight_decay": np.int64(0)}, {"lr": 3e-4}),
        ({"reduction": "sum", "storage_dtype": torch.bfloat16}, {"reduction": "sum", "storage_dtype": "bfloat16"}),
    ]
    return [
        ({"update": update, **given}, UpdateSettings(name, **own, **meant))
        for (update, name, own), (given, meant) in itertools.product(named, plain)
    ]


@pytest.mark.parametrize(("given", "meant"), drawn_spellings())
def test_every_spelling_of_an_update_means_its_settings(given: dict[str, Any], meant: UpdateSettings) -> None:
    update = given.pop("update")
    found = update_settings(update, UpdateOptions(**given))
    assert found == meant
    assert all(type(getattr(found, name)) is float for name in ("lr", "weight_decay", "eps"))
    assert update_settings(found, {}) is found


def test_every_setting_is_a_plain_keyword_with_its_name() -> None:
    fields = {*inspect.signature(UpdateSettings).parameters} - {"update"}
    assert fields == set(UpdateOptions.__annotations__)
    assert {*inspect.signature(MaskSettings).parameters} - {"mapping"} == set(MaskOptions.__annotations__)
    own = {*inspect.signature(Scorer.__init__).parameters} - {"self", "model", "tokenizer", "plain"}
    assert own | set(PlainOptions.__annotations__) == set(ScorerOptions.__annotations__)
    loading = {*inspect.signature(Scorer.from_pretrained).parameters} - {"name_or_path", "options"}
    assert loading == set(LoadingOptions.__annotations__)


def test_plain_keywords_score_as_the_settings_do(model: Any) -> None:
    plain = made(model, update="sgd", lr=1e-3, max_length=18, signals="el2n", carry="question").score_table(ROWS)
    settings = made(
        model,
        update=UpdateSettings("sgd", lr=1e-3),
        masks=MaskSettings(max_length=18),
        signals=[ErrorNorm()],
        carry=("question",),
    ).score_table(ROWS)
    assert plain.equals(settings)
    assert plain.column("record.question").to_pylist() == ["how many", "which"]
    assert plain.column("truncated").to_pylist() == [False, True]


def test_an_eps_of_the_update_reaches_the_scores(model: Any) -> None:
    given = made(model, update=AdamW(eps=1e-3)).score_table(ROWS).column("nod").to_pylist()
    assert given == made(model, eps=1e-3).score_table(ROWS).column("nod").to_pylist()
    assert given != made(model).score_table(ROWS).column("nod").to_pylist()


def state() -> AdamState:
    return AdamState(torch.zeros(3, 2), torch.zeros(3, 2), 1)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"update": "SDG"}, "did you mean 'sgd'"),
    ({"update": "Adam"}, "did you mean 'adamw'"),
    ({"update": SGD}, r"update=SGD\(\)"),
    ({"update": torch.optim.AdamW}, r"donod_fast\.AdamW\(\)"),
    ({"update": 3}, "AdamW, SGD or Sign object, got 3"),
    ({"update": AdamW(state=state())}, "no manifest records.*adamw-warm.*don_nod"),
    ({"update": FactoredAdamW(torch.ones(3), torch.ones(2))}, "adamw-warm"),
    ({"update": AdamW(eps=1e-6), "eps": 1e-7}, "eps is given twice"),
    ({"update": "sgd", "eps": 1e-7}, "eps is a setting of AdamW"),
    ({"update": UpdateSettings(), "lr": 1e-5}, r"lr is given beside update=UpdateSettings\(…\); put it inside"),
    ({"masks": MaskSettings(), "max_length": 9}, "max_length is given beside masks"),
    ({"masks": {"max_length": 9}}, "masks is a MaskSettings"),
    ({"lr": "1e-5"}, "lr must be a number, got '1e-5'; write lr=1e-5"),
    ({"lr": True}, "lr must be a number"),
    ({"lr": float("nan")}, "lr must be finite"),
    ({"learning_rate": 1e-5}, "did you mean 'lr'"),
    ({"max_len": 9}, "did you mean 'max_length'"),
    ({"max_length": "512"}, "max_length must be a whole number"),
    ({"device": "cpu"}, r"from_pretrained\(…, device=…\)"),
    ({"compile": "off"}, "compile is True or False, got 'off'"),
    ({"live": "no"}, "live is True or False"),
    ({"text_only": "no"}, "text_only is True or False"),
    ({"backend": "tritn"}, "did you mean 'triton'"),
    ({"packing": "of"}, "did you mean 'off'"),
    ({"token_budget": 8.0}, "token_budget must be a whole number"),
    ({"signals": "ifdd"}, "did you mean 'ifd'"),
    ({"signals": ["el2n", "EL2M"]}, "did you mean 'el2n'"),
    ({"signals": ""}, "leave it out"),
    ({"signals": "el2n,el2n"}, "names el2n twice"),
    ({"signals": ["el2n", ErrorNorm()]}, "names el2n twice"),
    ({"signals": [ErrorNorm]}, r"as ErrorNorm\(\)"),
    ({"signals": {"el2n", "ifd"}}, "no order"),
    ({"signals": "rds"}, "needs a reference set: reference=FILE"),
    ({"signals": [AnswerLength()], "reference": "x.jsonl"}, "given by name"),
    ({"signals": "el2n", "ifd_prefix": "bos"}, "^ifd_prefix is used only by the signal ifd"),
    ({"columns": {"promt": "question"}}, "did you mean 'prompt'"),
    ({"columns": {"prompt": "question", "response": None}}, "roles to names of columns"),
    ({"dataset": "x"}, "^dataset_info and dataset belong together"),
    ({"carry": ["a", "a"]}, "distinct"),
    ({"carry": 3}, "distinct"),
]


@pytest.mark.parametrize(("given", "said"), REFUSED)
def test_a_wrong_argument_is_refused_with_the_remedy(given: dict[str, Any], said: str, model: Any) -> None:
    with pytest.raises(InputError, match=said) as caught:
        Scorer(model, tiny_tokenizer(), **given)
    assert "--" not in str(caught.value)


@pytest.mark.parametrize("update", [SGD, "SGD", "adam", torch.optim.SGD, torch.optim.AdamW([torch.zeros(1)]), 3])
def test_don_nod_refuses_the_updates_that_a_scorer_refuses(update: Any) -> None:
    with pytest.raises(InputError, match="update"):
        don_nod(torch.ones(1, 2), torch.ones(3, 2), torch.tensor([1]), torch.tensor([0, 1]), update=update)
    with pytest.raises(InputError, match="update"):
        update_settings(update, {})


def test_names_and_criteria_may_be_mixed_and_keep_their_order() -> None:
    mixed = criteria_of(["ifd", AnswerLength(), "don,el2n"], {"ifd_prefix": "none"})
    assert [one.name for one in mixed] == ["ifd", "length", "el2n"]
    named = ColumnSettings(signals="ifd,el2n").criteria()
    assert [*map(fingerprint, criteria_of("ifd, el2n", {}))] == [*map(fingerprint, named)]
    (one,) = criteria_of(alone := AnswerLength(), {})
    assert one is alone
    assert criteria_of((), {}) == ()


def test_columns_may_be_a_mapping_with_any_names() -> None:
    found = mask_settings(None, {"columns": {"prompt": "a=b,c", "query": " q", "response": "column1"}}).resolved()
    assert found.mapping is not None
    assert found.mapping.as_json() == {"prompt": "a=b,c", "input": " q", "response": "column1"}
    text = mask_settings(None, {"columns": "prompt=x,response=y"}).resolved()
    assert mask_settings(None, {"columns": {"prompt": "x", "response": "y"}}).resolved() == text


def test_paths_may_be_paths_or_texts(tmp_path: Path) -> None:
    file = tmp_path / "t.jinja"
    assert mask_settings(None, {"template": file}) == MaskSettings(template=str(file))
    given = mask_settings(None, {"dataset_info": str(file), "dataset": "x"})
    assert given == MaskSettings(dataset_info=file, dataset="x")
