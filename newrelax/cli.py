"""What this package's command lines share: a user's error is one line and exit code 2."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from newrelax.errors import UserError
from newrelax.precision import full_precision

USER_ERROR = 2


def run_command(command: click.Command, argv: Sequence[str] | None, program: str) -> int:
    """Run a click command that returns its exit code.

    User errors are one line on stderr, or have a traceback with ``--debug``; other exceptions
    are bugs and always have one.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        with full_precision():
            return int(command.main(arguments, prog_name=program, standalone_mode=False) or 0)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        return 130
    except (UserError, click.ClickException) as problem:
        if "--debug" in arguments:
            raise
        text = problem.format_message() if isinstance(problem, click.ClickException) else str(problem)
        click.echo(f"error: {' '.join(text.split())}", err=True)
        return USER_ERROR
