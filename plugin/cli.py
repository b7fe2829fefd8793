"""What the command lines share: errors become one line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from newrelax.errors import UserError
from plugin.interrupt import Interrupted

# A user's mistake, in click's own convention as well.
USER_ERROR = 2


def invoke(command: click.Command, argv: Sequence[str] | None, program: str) -> int:
    """Runs ``command`` and returns the exit code; user errors are one line on stderr.

    With ``--debug`` among the arguments user errors keep their traceback. Other exceptions are
    bugs and always have one.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        command.main(arguments, prog_name=program, standalone_mode=False)
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        return 130
    except Interrupted as stopped:
        click.echo(str(stopped), err=True)
        return stopped.exit_code
    except (UserError, click.ClickException) as problem:
        if "--debug" in arguments:
            raise
        message = problem.format_message() if isinstance(problem, click.ClickException) else str(problem)
        click.echo(f"error: {' '.join(message.split())}", err=True)
        return USER_ERROR
    return 0
