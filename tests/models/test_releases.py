"""Releases of transformers that would give wrong scores are refused by name, and no others."""

from __future__ import annotations

import copy
import json
import random
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_models import save_tiny, tiny_model, tiny_tokenizer
from torch import nn

from donod_fast.demo.corpus import MODEL_FOLDER
from donod_fast.errors import InputError, ModelError
from donod_fast.models import folder_guard, releases
from donod_fast.models.loading import load_model, wrap_model
from donod_fast.models.loading_errors import attempt_load
from donod_fast.models.placement import stored_tensor
from donod_fast.models.releases import LOWEST, check_release, check_tokenizer_release, refuse_old_transformers, release
from donod_fast.models.rope import RopeSwitch, wrong_frequencies
from donod_fast.studies.family.files import DATA as FAMILY

ROOT = Path(__file__).parents[2]


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let the package take another release of transformers for the installed one."""
    return lambda version: monkeypatch.setattr(releases, "installed_transformers", lambda: version)


# --- the lowest release ------------------------------------------------------------------------------


def test_the_lowest_release_is_that_of_the_project_file() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"transformers>={LOWEST}" in project["dependencies"]


@pytest.mark.parametrize("seed", range(5))
def test_every_release_below_the_lowest_is_refused_and_no_other(seed: int, pretend: Callable[[str], None]) -> None:
    draw = random.Random(seed)
    for _ in range(50):
        numbers = (draw.choice([3, 4, 4, 4, 5, 6]), draw.randrange(70), draw.randrange(5))
        pretend(".".join(map(str, numbers)) + draw.choice(["", "rc1", ".dev0"]))
        if numbers >= (4, 56, 2):
            refuse_old_transformers()
            continue
        reason = "chat_template.jinja" if numbers < (4, 47) else "not tested"
        with pytest.raises(InputError, match=rf"transformers {numbers[0]}\..*{reason}.*pip install 'transformers>="):
            refuse_old_transformers()


BEFORE = """
import importlib.metadata as metadata
true = metadata.version
metadata.version = lambda name: "4.46.3" if name == "transformers" else true(name)
"""


@pytest.mark.parametrize("door", ["import donod_fast.scoring.scorer", "from donod_fast import Scorer"])
def test_an_old_release_is_refused_when_the_scorer_is_imported(door: str) -> None:
    done = subprocess.run([sys.executable, "-c", BEFORE + door], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "InputError: transformers 4.46.3 is installed, donod_fast needs" in done.stderr
    assert "chat_template.jinja" in done.stderr


def test_the_command_line_says_so_in_one_line(tmp_path: Path) -> None:
    arguments = ["donod-fast", "score", "x.jsonl", "--model", "m", "--out", str(tmp_path / "scores")]
    program = BEFORE + f"import sys; sys.argv = {arguments}\nfrom donod_fast.cli import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == InputError.exit_code
    assert done.stderr.startswith("donod-fast: error: transformers 4.46.3 is installed")
    assert done.stderr.count("\n") == 1 and not (tmp_path / "scores").exists()


# --- what transformers 4 does not read ---------------------------------------------------------------


def rope_configs(draw: random.Random) -> tuple[SimpleNamespace, bool]:
    """A config as transformers 4 holds it after reading a file of transformers 5, and whether it lost something."""
    theta = draw.choice([10000.0, 500000.0, 1e6])
    read = draw.choice([theta, 10000.0])
    written: dict[str, Any] = {"rope_type": "default", "rope_theta": theta}
    scaling: dict[str, Any] | None = None
    lost = read != theta
    if draw.random() < 0.5:
        settings = draw.choice(
            [{"rope_type": "linear", "factor": 2.0}, {"rope_type": "llama3", "low_freq_factor": 1.0}]
        )
        written |= settings
        kept = draw.choice([None, settings, {**settings, "rope_type": "dynamic"}])
        scaling, lost = kept, lost or kept != settings
    if draw.random() < 0.3:
        written["partial_rotary_factor"] = draw.choice([1.0, 0.5])
        lost = lost or written["partial_rotary_factor"] != 1.0
    if draw.random() < 0.2:
        written, lost = {"full_attention": written}, True  # by layer type: transformers 4 has no place for that
    return SimpleNamespace(model_type="bird", rope_theta=read, rope_scaling=scaling, rope_parameters=written), lost


@pytest.mark.parametrize("seed", range(5))
def test_rope_that_transformers_4_would_not_read_is_refused(seed: int, pretend: Callable[[str], None]) -> None:
    draw = random.Random(seed)
    outcomes = set()
    for _ in range(60):
        config, lost = rope_configs(draw)
        pretend("5.0.0")
        check_release("m", config)
        pretend("4.57.6")
        outcomes.add(lost)
        if lost:
            with pytest.raises(ModelError, match=r"'bird' was written by transformers 5, and transformers 4\.57\.6"):
                check_release("m", config)
        else:
            check_release("m", config)
    assert outcomes == {True, False}


def test_the_check_is_made_of_loaded_and_of_wrapped_models(tmp_path: Path, pretend: Callable[[str], None]) -> None:
    folder = save_tiny("llama", tmp_path)
    file = folder / "config.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["rope_parameters"] = {"rope_type": "default", "rope_theta": 500000.0}
    content.pop("rope_theta", None)
    file.write_text(json.dumps(content), encoding="utf-8")
    loaded = load_model(folder, device="cpu") if release(releases.installed_transformers()) >= (5,) else None
    pretend("4.57.6")
    with pytest.raises(ModelError, match="does not read its rope_parameters"):
        load_model(folder, device="cpu")
    if loaded is not None:
        with pytest.raises(ModelError, match="does not read its rope_parameters"):
            wrap_model(loaded.model, loaded.tokenizer)


def as_transformers_5_writes(folder: Path) -> Path:
    tiny_tokenizer().save_pretrained(folder)
    return folder


def test_a_tokenizer_that_transformers_4_reads_otherwise_is_refused(
    tmp_path: Path, pretend: Callable[[str], None]
) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    tokenizer.init_kwargs |= {"backend": "tokenizers", "tokenizer_file": str(tmp_path / "tokenizer.json")}
    pretend("4.57.6")
    check_tokenizer_release("m", tokenizer)
    other = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    other["normalizer"] = {"type": "Lowercase"}  # as a class of transformers 4 that builds this part anew
    (tmp_path / "tokenizer.json").write_text(json.dumps(other), encoding="utf-8")
    with pytest.raises(
        ModelError, match=r"written by transformers 5, and transformers 4\.57\.6 reads it as a .* tokens"
    ):
        check_tokenizer_release("m", tokenizer)
    pretend("5.0.0")
    check_tokenizer_release("m", tokenizer)
    pretend("4.57.6")
    del tokenizer.init_kwargs["backend"]
    check_tokenizer_release("m", tokenizer)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("Tokenizer class TokenizersBackend does not exist or is not currently imported."), "tokenizer was"),
        (AttributeError("'list' object has no attribute 'keys'"), "tokenizer was written by transformers 5"),
        (RuntimeError("device disk is invalid"), "cannot put a whole model on disk"),
    ],
)
def test_what_transformers_4_says_is_explained(error: Exception, said: str) -> None:
    def fails() -> None:
        raise error

    with pytest.raises(ModelError, match=f"{said}.*pip install 'transformers>=5"):
        attempt_load("m", "its part", fails)


@pytest.mark.parametrize("folder", [MODEL_FOLDER, FAMILY / "model"], ids=["demo", "family"])
def test_the_models_of_the_package_are_readable_by_transformers_4(folder: Path) -> None:
    tokens = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert tokens["tokenizer_class"] == "PreTrainedTokenizerFast" and "extra_special_tokens" not in tokens
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["rope_parameters"] == {
        "rope_theta": 10000.0,
        "rope_type": "default",
    }  # the defaults of transformers 4


def test_a_generation_of_its_own_is_refused_where_the_terminal_is_asked(
    tmp_path: Path, pretend: Callable[[str], None]
) -> None:
    folder = save_tiny("llama", tmp_path / "model")
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text("def generate(model): ...")
    pretend("5.0.0")
    folder_guard.check_model_folder("m", folder)
    pretend("4.57.6")
    folder_guard.check_model_folder("m", folder, trust_remote_code=True)
    with pytest.raises(ModelError, match=r"custom_generate/generate\.py is code of its own.*trust-remote-code"):
        folder_guard.check_model_folder("m", folder)


# --- what some releases leave out or keep ------------------------------------------------------------


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("cap", [None, 50.0])
def test_a_soft_cap_that_sdpa_leaves_out_is_refused(cap: float | None, attention: str) -> None:
    model = tiny_model("gemma2", attn_logit_softcapping=cap)
    model.config._attn_implementation_internal = attention
    if cap is None or attention == "eager":
        wrap_model(model, tiny_tokenizer())
        return
    with pytest.raises(ModelError, match=r"'gemma2' has a soft-cap of attention .*attn_implementation='eager'"):
        wrap_model(model, tiny_tokenizer())


class Rope(nn.Module):
    """RoPE as transformers computes it for one head of two dimensions, with the faults of some releases."""

    def __init__(self, limit: int, by_length: bool, fault: str = "") -> None:
        super().__init__()
        self.rope_type = "dynamic" if by_length else "longrope"
        self.limit, self.by_length, self.fault = limit, by_length, fault
        self.longest = 0
        self.inv_freq = nn.Parameter(torch.ones(1), requires_grad=False)
        self.register_buffer("original", torch.ones(1))

    def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        length = int(position_ids.max()) + 1
        limit = self.limit // 2 if self.fault == "early" else self.limit
        if self.fault == "kept":
            length = self.longest = max(length, self.longest)
        scale = 1.0
        if length > limit and self.fault != "never":
            scale = length / limit if self.by_length or self.fault == "late" else 2.0
        angles = (position_ids.float() / scale)[..., None]
        return angles.cos(), angles.sin()


@pytest.mark.parametrize("limit", [8, 20, 4096])
@pytest.mark.parametrize("fault", ["", "kept", "early", "never", "late"])
@pytest.mark.parametrize("by_length", [False, True])
def test_frequencies_that_do_not_change_as_the_config_says(by_length: bool, fault: str, limit: int) -> None:
    decoder = nn.ModuleList([Rope(limit, by_length, fault)])
    before = copy.deepcopy(vars(decoder[0])["longest"])
    found = wrong_frequencies(decoder, RopeSwitch(limit, by_length))
    right = fault == "" or (by_length and fault == "late")
    assert (found == "") == right
    if fault == "kept":
        assert "keeps the RoPE frequencies of an earlier, longer sequence" in found
    elif not right:
        assert f"do not change after {limit} tokens" in found
    assert vars(decoder[0])["longest"] == before  # the model itself is not run


def test_modules_of_another_kind_are_not_judged() -> None:
    class Strange(Rope):
        def forward(self) -> None:  # type: ignore[override]
            raise AssertionError

    assert wrong_frequencies(nn.ModuleList([nn.Linear(2, 2), Strange(8, True)]), RopeSwitch(8, True)) == ""


def test_an_off_loaded_tensor_without_values_is_named() -> None:
    model = tiny_model("llama")
    model.lm_head._hf_hook = SimpleNamespace(offload=True, weights_map={}, execution_device="cpu")
    missing = torch.empty(3, device="meta")
    with pytest.raises(ModelError, match=r"lm_head\.weight is off-loaded, .*does not keep its values"):
        stored_tensor(model, "lm_head.weight", missing)
