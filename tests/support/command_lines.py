"""Check ``donod-fast`` command lines against the real command line, without running them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer

from donod_fast.cli.app import app


def parse(arguments: Sequence[str]) -> dict[str, Any]:
    """Parse the arguments of one ``donod-fast`` command and return the options that it got.

    Raises:
        ClickException: the command, an option or a value is unknown. Typer may bring its own copy of click.
    """
    command: Any = typer.main.get_command(app)
    name, rest = "donod-fast", list(arguments)
    context = command.make_context(name, rest)
    while hasattr(command, "resolve_command"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)
    return {"command": name, **context.params}
