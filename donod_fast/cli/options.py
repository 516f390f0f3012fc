"""Dataclasses as command-line options.

:func:`from_dataclasses` turns a function over settings dataclasses into a command: every field made by
``system.options.option`` becomes an option or an argument, and the function is called with the dataclasses that the
command line stands for. Parameters that are no settings remain plain Typer parameters.

Why Typer and this adapter, and neither cyclopts nor tyro, which know dataclasses: Typer is imported in a third of the
time that a help text may take, keeps the exit codes and messages that scripts rely on, and lets a configuration file
supply values below the command line (``default_map``), required ones included.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from inspect import Parameter, Signature, signature
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from donod_fast.cli.links import PAGES
from donod_fast.system.options import OptionField, build, is_settings, options_of

if TYPE_CHECKING:

    from typer._click.core import Context
    from typer._click.formatting import HelpFormatter

_MISSING: Any = Parameter.empty


def from_dataclasses(function: Callable[..., None]) -> Callable[..., None]:
    """A Typer command of a function whose parameters are settings dataclasses."""
    hints = get_type_hints(function, include_extras=True)
    settings = {name: hints[name] for name in signature(function).parameters if is_settings(hints[name])}
    parameters: list[Parameter] = []
    for name, parameter in signature(function).parameters.items():
        if name in settings:
            parameters += map(_parameter, options_of(settings[name]))
        else:
            parameters.append(parameter.replace(annotation=hints[name], kind=Parameter.KEYWORD_ONLY))

    @functools.wraps(function)
    def run(**typed: Any) -> None:
        built = {name: build(kind, typed) for name, kind in settings.items()}
        function(**built, **{name: typed[name] for name in signature(function).parameters if name not in settings})

    del run.__wrapped__  # Typer would look at its parameters
    run.__annotations__ = {}
    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    return run


def _parameter(field: OptionField) -> Parameter:
    """The Typer parameter of an option."""
    option, kind, default = field.option, field.type, field.default
    is_required = default is _unset()
    flag = "--" + field.name.replace("_", "-")
    given: dict[str, Any] = {"help": option.help, "rich_help_panel": option.panel}
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


def _unset() -> Any:
    from dataclasses import MISSING

    return MISSING


def _is_many(kind: Any) -> bool:
    return getattr(kind, "__origin__", None) is tuple and get_args(kind)[-1] is Ellipsis


def _completion(choices: tuple[str, ...]) -> Callable[[str], Iterable[str]]:
    def complete(incomplete: str) -> Iterable[str]:
        return [choice for choice in choices if choice.startswith(incomplete)]

    return complete


class PlainCommand(TyperCommand):
    """A command whose help shows options under the headings of their panels, as plain text."""

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write arguments and options, a section for each panel in the order of its first option."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                panel = getattr(parameter, "rich_help_panel", None) or "Other"
                sections.setdefault(panel, []).append(record)
        for panel, records in sections.items():
            with formatter.section(panel):
                formatter.write_dl(records)

    def format_epilog(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write the example and the link to the pages."""
        if self.epilog:
            with formatter.section("Example"):
                formatter.write(f"{'':>{formatter.current_indent}}{self.epilog}\n")
        formatter.write(f"\nPages: {PAGES}\n")


class PlainGroup(TyperGroup):
    """A group whose help shows its commands under the headings of their panels, as plain text."""

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write the commands, a section for each panel in the order of its first command."""
        sections: dict[str, list[tuple[str, Any]]] = {}
        for name in self.list_commands(ctx):
            command: Any = self.get_command(ctx, name)
            panel = getattr(command, "rich_help_panel", None)
            sections.setdefault(panel if isinstance(panel, str) else "Commands", []).append((name, command))
        room = formatter.width - 6 - max(len(name) for name in self.list_commands(ctx))
        for panel, commands in sections.items():
            with formatter.section(panel):
                formatter.write_dl([(name, command.get_short_help_str(room)) for name, command in commands])

    def format_epilog(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write the link to the pages."""
        formatter.write(f"\nPages: {PAGES}\n")


__all__ = ["PlainCommand", "PlainGroup", "from_dataclasses"]
