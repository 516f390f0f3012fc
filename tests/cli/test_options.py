"""Dataclasses as options: the option made from each field; defaults are defined once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from donod_fast.cli.options import from_dataclasses
from donod_fast.data.settings import CorpusSettings
from donod_fast.engines.choosing import ScoreRequest
from donod_fast.engines.settings import EngineSettings
from donod_fast.errors import InputError, suggest
from donod_fast.kernels import DEFAULT_WORKSPACE
from donod_fast.kernels.dispatch import BACKENDS as KERNEL_BACKENDS
from donod_fast.models.settings import ModelSettings
from donod_fast.scoring.settings import BACKENDS, ComputeSettings
from donod_fast.system.options import as_options, build, check_choices, option, options_of, python_only


@dataclass(frozen=True, slots=True)
class Inner:
    colour: str = option("red", help="Colour.", panel="Look", choices=("red", "green"))
    size: int | None = option(None, help="Size.", panel="Look", minimum=1)

    def __post_init__(self) -> None:
        check_choices(self)


@dataclass(frozen=True, slots=True)
class Outer:
    files: tuple[str, ...] = option(help="Files.", panel="Input", is_argument=True)
    place: Path = option(help="Place.", panel="Output")
    inner: Inner = field(default_factory=Inner)
    ratio: float = option(text="1:2", parse=lambda text: float(text.partition(":")[2]), help="Ratio.", panel="Look")
    tags: tuple[str, ...] = option((), name="tag", help="Tag.", panel="Input")
    loud: bool = option(False, help="Loud.", panel="Output", short="-l")
    hidden: int = 7


def typed(*arguments: str) -> Outer:
    """What the command line makes of arguments."""
    found: list[Any] = []

    @from_dataclasses
    def run(outer: Outer) -> None:
        found.append(outer)

    app = typer.Typer()
    app.command()(run)
    done = CliRunner().invoke(app, list(arguments), standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return found[0]  # type: ignore[no-any-return]


def test_defaults_are_those_of_the_dataclasses() -> None:
    assert typed("a", "--place", "p") == Outer(("a",), Path("p"))
    assert Outer((), Path()).ratio == 2.0


def test_fields_of_nested_dataclasses_become_options_as_well() -> None:
    found = typed("a", "b", "--place", "p", "--colour", "green", "--size", "3", "--ratio", "1:4", "--tag", "x", "-l")
    assert found == Outer(("a", "b"), Path("p"), Inner("green", 3), 4.0, ("x",), True)


@pytest.mark.parametrize(
    "arguments", [["--place", "p"], ["a"], ["a", "--place", "p", "--size", "0"], ["a", "--place", "p", "--size", "x"]]
)
def test_required_options_and_limits_are_usage_errors(arguments: list[str]) -> None:
    with pytest.raises(Exception, match=r"Missing|greater|valid|range"):
        typed(*arguments)


def test_a_value_outside_the_choices_is_refused_with_a_suggestion() -> None:
    with pytest.raises(InputError, match=r"colour must be one of red, green, got 'gren'; did you mean 'green'\?"):
        typed("a", "--place", "p", "--colour", "gren")


def test_a_suggestion_needs_a_near_name() -> None:
    assert suggest("topsiss", ["topsis", "don"]) == "; did you mean 'topsis'?"
    assert suggest("xyz", ["topsis", "don"]) == "" == suggest(None, [])


def test_a_request_survives_being_recorded() -> None:
    request = ScoreRequest(
        CorpusSettings(("a.jsonl", "b.jsonl"), "test"),
        ModelSettings("m", device_map="auto", max_memory="cpu=2GiB", offload_folder=Path("off")),
        engine=EngineSettings(part_rows=5),
    )
    assert build(ScoreRequest, as_options(request)) == request


@dataclass(frozen=True)
class Study:
    shares: dict[str, float] = option(
        text=[], parse=lambda given: dict.fromkeys(given, 0.5), name="share", help="Shares.", panel="Look"
    )
    inner: Inner = python_only(Inner)


def test_a_parsed_default_is_made_anew_for_each_instance() -> None:
    assert Study().shares == {} and Study().shares is not Study().shares
    assert build(Study, {"share": ["a"]}).shares == {"a": 0.5}


def test_settings_for_python_only_are_no_options() -> None:
    assert [one.name for one in options_of(Study)] == ["share"]
    assert build(Study, {"colour": "green"}) == Study(inner=Inner())


def test_a_command_can_be_called_with_some_of_its_arguments() -> None:
    found: list[object] = []

    @from_dataclasses
    def run(inner: Inner, count: int = 3) -> None:
        found.append((inner, count))

    run(size=2)
    assert found == [(Inner(size=2), 3)]


def test_what_is_parsed_cannot_be_recorded() -> None:
    with pytest.raises(TypeError, match="ratio"):
        as_options(Outer((), Path()))


def test_constants_that_kernels_cannot_import_agree() -> None:
    assert ComputeSettings().workspace_bytes == DEFAULT_WORKSPACE
    assert BACKENDS == KERNEL_BACKENDS
