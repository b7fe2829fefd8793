"""What this package's command lines share: a user's error is one line and exit code 2."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import click

from newrelax.errors import UserError
from newrelax.precision import full_precision

USER_ERROR = 2


@dataclass
class Asked:
    """What was asked for before a command's own options are read."""

    debug: bool = False


def debug_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator with the option `--debug`: user errors show their traceback. The command itself does not see it."""

    def remember(context: click.Context, _: click.Parameter, value: bool) -> None:
        if isinstance(context.obj, Asked):
            context.obj.debug = value

    return click.option(
        "--debug", is_flag=True, is_eager=True, expose_value=False, callback=remember, help="Show tracebacks of user errors."
    )(command)


def run_command(command: click.Command, argv: Sequence[str] | None, program: str) -> int:
    """Run a click command that returns its exit code.

    User errors are one line on stderr, or have a traceback with `--debug`; other exceptions
    are bugs and always have one.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    asked = Asked()
    try:
        with full_precision():
            return int(command.main(arguments, prog_name=program, standalone_mode=False, obj=asked) or 0)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        return 130
    except (UserError, click.ClickException) as problem:
        if asked.debug:
            raise
        text = problem.format_message() if isinstance(problem, click.ClickException) else str(problem)
        click.echo(f"error: {' '.join(text.split())}", err=True)
        return USER_ERROR
