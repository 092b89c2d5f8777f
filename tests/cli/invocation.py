"""Invocation of the command line in the test process."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from pte_tracking._cli import app


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])
