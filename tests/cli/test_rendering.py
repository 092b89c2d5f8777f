"""Tables in terminals of different widths."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from pte_tracking._cli.rendering import print_table

ROW = {"Run": "results/first", "Name": "first-0123456789", "Step": 7, "Sinks": "json tensorboard mlflow"}


@pytest.mark.parametrize(
    ("width", "columns"),
    [(80, ["Run", "Name", "Step", "Sinks"]), (45, ["Run", "Name", "Step"]), (30, ["Run", "Step"])],
)
def test_optional_columns_are_left_out_while_the_table_is_too_wide(width: int, columns: list[str]) -> None:
    output = io.StringIO()
    print_table(Console(file=output, width=width), "", [ROW, ROW], optional=("Sinks", "Name"))
    header, *lines = output.getvalue().splitlines()
    assert header.split() == columns
    assert len(lines) == 2
