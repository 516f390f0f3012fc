"""Dataclasses as command-line options.

:func:`from_dataclasses` turns a function over settings dataclasses into a command: every field made by
``system.options.option`` becomes an option or an argument, and the function is called with dataclasses built from the
command line. Parameters that are not settings remain plain Typer parameters.

We use Typer with this adapter rather than cyclopts or tyro, which support dataclasses, for three reasons. Importing
Typer takes a third of the time that a help text may take. It keeps the exit codes and messages that scripts rely on. A
configuration file can supply values that the command line overrides (``default_map``), including required ones.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, get_args, get_type_hints

import typer
import typer.main
from typer.core import TyperCommand, TyperGroup

from donod_fast.cli.links import PAGES
from donod_fast.system.options import OptionField, build, is_settings, options_of

if TYPE_CHECKING:
    from typer._click.core import Context
    from typer._click.formatting import HelpFormatter

HELP_NAMES = {"help_option_names": ["-h", "--help"]}

_MISSING: Any = Parameter.empty
_TYPER_TYPE = re.compile(r" (?:<(?:list\[)?([a-z]+)(?: range)?\]?>|(INTEGER|FLOAT)(?: RANGE)?)$")
"""How Typer ends the first column of a help line: ``<int range>`` since 0.29, ``INTEGER RANGE`` before."""
_TYPE_WORDS = {"int": "INT", "integer": "INT", "float": "NUMBER", "path": "PATH"}
"""Placeholders of values in the help by the name of their type, TEXT for all others."""


def from_dataclasses(function: Callable[..., None]) -> Callable[..., None]:
    """A Typer command for a function whose parameters are settings dataclasses."""
    hints = get_type_hints(function, include_extras=True)
    settings = {name: hints[name] for name in signature(function).parameters if is_settings(hints[name])}
    own = [name for name in signature(function).parameters if name not in settings]
    parameters: list[Parameter] = []
    for name, parameter in signature(function).parameters.items():
        if name in settings:
            parameters += map(_parameter, options_of(settings[name]))
        else:
            parameters.append(parameter.replace(annotation=hints[name], kind=Parameter.KEYWORD_ONLY))

    @functools.wraps(function)
    def run(**typed: Any) -> None:
        built = {name: build(kind, typed) for name, kind in settings.items()}
        function(**built, **{name: typed[name] for name in own if name in typed})

    del run.__wrapped__  # otherwise Typer would read the parameters of the wrapped function
    run.__annotations__ = {}
    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    return run


def _parameter(field: OptionField) -> Parameter:
    """The Typer parameter of an option."""
    option, kind, default = field.option, field.type, field.default
    is_required = default is dataclasses.MISSING
    flag = "--" + field.name.replace("_", "-")
    given: dict[str, Any] = {"help": option.help, "rich_help_panel": option.panel, "metavar": _metavar(field)}
    if option.shown is not None or default == "":
        given["show_default"] = option.shown or False
    if option.minimum is not None:
        given["min"] = option.minimum
    if option.choices or option.completions:
        given["autocompletion"] = _completion(option.choices or option.completions)
    if _is_many(kind):
        kind, default = (list[str], default) if is_required else (list[str] | None, None)
    if option.is_argument:
        about: Any = typer.Argument(**given)
    else:
        is_switch = kind is bool and default is False
        flags = [name for name in (flag, option.short) if name is not None]
        about = typer.Option(*(flags if is_switch or option.short else []), **given)
    return Parameter(
        field.name,
        Parameter.KEYWORD_ONLY,
        default=_MISSING if is_required else default,
        annotation=Annotated[kind, about],
    )


def _metavar(field: OptionField) -> str | None:
    """Placeholder of a value in the help; None for a switch."""
    if field.option.is_argument:
        return field.name.upper()
    if field.type is bool:
        return None
    kinds = (field.type, *get_args(field.type))
    return next((_TYPE_WORDS[kind.__name__.lower()] for kind in (int, float, Path) if kind in kinds), "TEXT")


def _with_plain_type(names: str, is_argument: bool) -> str:
    """The first column of a help line with our word for Typer's type: ``--out PATH`` for ``--out <path>``.

    An argument has its name as placeholder, and shows no type.
    """

    def plain(found: re.Match[str]) -> str:
        return "" if is_argument else f" {_TYPE_WORDS.get((found[1] or found[2]).lower(), 'TEXT')}"

    return _TYPER_TYPE.sub(plain, names)


def _is_many(kind: Any) -> bool:
    return getattr(kind, "__origin__", None) is tuple and get_args(kind)[-1] is Ellipsis


def _completion(choices: tuple[str, ...]) -> Callable[[str], Iterable[str]]:
    def complete(incomplete: str) -> Iterable[str]:
        return [choice for choice in choices if choice.startswith(incomplete)]

    return complete


class PlainCommand(TyperCommand):
    """A command whose help shows options under the headings of their panels, as plain text.

    What it makes in the folder for temporary files is removed at its end.
    """

    def invoke(self, ctx: Context) -> Any:
        """Run the command."""
        from donod_fast.system.scratch import use_own_temporary_folder  # slow to import for a help text

        use_own_temporary_folder()
        return super().invoke(ctx)

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write arguments and options, a section for each panel in the order of its first option."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                panel = getattr(parameter, "rich_help_panel", None) or "Other"
                names, about = record
                is_argument = parameter.param_type_name == "argument"
                sections.setdefault(panel, []).append((_with_plain_type(names, is_argument), about))
        for panel, records in sections.items():
            with formatter.section(panel):
                formatter.write_dl(records)

    def format_epilog(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write the example and the link to the pages."""
        if self.epilog:
            with formatter.section("Example"):
                formatter.write(f"{'':>{formatter.current_indent}}{self.epilog}\n")
        formatter.write(f"\nPages: {PAGES}\n")


@dataclass(frozen=True, slots=True)
class LazyCommand:
    """A command that is imported when it is used.

    Attributes:
        place: module and name of a function or a Typer application, as ``package.module:name``.
        panel: heading of its section in the help of its group.
        summary: its description there.
        example: example in its help, without the name of the program; "" for none.
    """

    place: str
    panel: str
    summary: str
    example: str = ""

    def load(self, name: str) -> Any:
        """Import the command."""
        module, _, attribute = self.place.partition(":")
        found = getattr(import_module(module), attribute)
        if isinstance(found, typer.Typer):
            return typer.main.get_command(found)
        epilog = f"donod-fast {self.example}" if self.example else None
        alone = typer.Typer(rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False)
        alone.command(name, cls=PlainCommand, epilog=epilog, context_settings=HELP_NAMES)(found)
        return typer.main.get_command(alone)


class LazyGroup(TyperGroup):
    """A group whose commands are imported when they are used, and whose help lists them under headings.

    Attributes:
        table: the commands by name; set by subclasses.
    """

    table: ClassVar[Mapping[str, LazyCommand]] = {}

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        names: dict[str, Any] = dict.fromkeys(self.table)
        self.commands = names  # suggestions need only the names

    def get_help_option(self, ctx: Context) -> Any:
        """The option ``--help``; with a default, since Typer imports pydantic to convert None."""
        found = super().get_help_option(ctx)
        if found is not None:
            found.default = False
        return found

    def list_commands(self, ctx: Context) -> list[str]:
        """Names of the commands, in the order of the table."""
        return list(self.table)

    def get_command(self, ctx: Context, cmd_name: str) -> Any:
        """The command of a name, imported now; None if there is none."""
        return self.table[cmd_name].load(cmd_name) if cmd_name in self.table else None

    def resolve_command(self, ctx: Context, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that arguments begin with; its name may have two words, as ``eval ifeval``."""
        two = " ".join(args[:2])
        if len(args) > 1 and two in self.table:
            return two, self.get_command(ctx, two), args[2:]
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write the commands, a section for each panel in the order of its first command."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for name, command in self.table.items():
            sections.setdefault(command.panel, []).append((name, command.summary))
        for panel, lines in sections.items():
            with formatter.section(panel):
                formatter.write_dl(lines)

    def format_epilog(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write the link to the pages."""
        formatter.write(f"\nPages: {PAGES}\n")


__all__ = ["HELP_NAMES", "LazyCommand", "LazyGroup", "PlainCommand", "from_dataclasses"]
