"""What the command lines share: errors and interruptions become one line and an exit code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import click

from newrelax.cli import run_command
from newrelax.methods.method import Method
from newrelax.registry import Registry
from plugin.certification.evaluation import UnsoundBounds, outside_counterexample
from plugin.process.allocator import keep_freed_memory
from plugin.process.interrupt import Interrupted

UNSOUND = 1  # exit code


def invoke(command: click.Command, argv: Sequence[str] | None, program: str) -> int:
    """Runs `command` and returns its exit code, as newrelax.cli.run_command does.

    A run that was interrupted, and saved, says so in one line: 130 for Ctrl-C, 143 for SIGTERM; and bounds that an attack
    broke do: 1. `argv` None: the
    process is this command's own, and keeps the memory that its tensors give back.
    """
    if argv is None:
        keep_freed_memory()
    try:
        return run_command(command, argv, program)
    except Interrupted as stopped:
        click.echo(str(stopped), err=True)
        return stopped.exit_code
    except UnsoundBounds as problem:
        click.echo(f"UNSOUND: {problem}", err=True)
        return UNSOUND


def checked(method: Method, registry: Registry, verdict: str) -> Method:
    """The method; marked as an estimate, which a line with `verdict` says, where its relaxation does not bound ReLU."""
    counterexample = outside_counterexample(method, registry)
    if counterexample is None:
        return method
    click.echo(f"{method.label} {verdict}: {counterexample}", err=True)
    return replace(method, sound=False)
