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


def test_folded_column_is_divided_and_other_columns_are_not() -> None:
    output = io.StringIO()
    row = {"Run": "results/" + "long" * 10, "Status": "FINISHED", "Best": "val/loss 0.25"}
    print_table(Console(file=output, width=50), "", [row], folded=("Run", "Pending"))
    header, first, *rest = output.getvalue().splitlines()
    assert header.split() == ["Run", "Status", "Best"]
    assert first.split()[1:] == ["FINISHED", "val/loss", "0.25"]
    assert "".join([first.split()[0], *map(str.strip, rest)]) == row["Run"]


def test_title_is_printed_without_markup_and_control_characters() -> None:
    output = io.StringIO()
    print_table(Console(file=output, width=80), "[bold]a\x1b", [ROW])
    assert output.getvalue().splitlines()[1].strip() == "[bold]a\\u001b"


def test_title_wider_than_its_table_is_one_line() -> None:
    output = io.StringIO()
    title = "val/segmentation/mean_intersection_over_union"
    print_table(Console(file=output, width=50), title, [{"Run": "a", "Last": 1.0}])
    assert output.getvalue().splitlines()[1] == title


@pytest.mark.parametrize(
    ("width", "columns"), [(45, ["Run", "Status", "Step", "Best"]), (38, ["Run", "Status", "Best"])]
)
def test_last_column_is_left_out_if_divided_cells_do_not_suffice(width: int, columns: list[str]) -> None:
    output = io.StringIO()
    row = {"Run": "results/" + "long" * 10, "Status": "FINISHED", "Step": 7, "Best": 0.123456}
    print_table(Console(file=output, width=width), "", [row], folded=["Run"], last=["Step"])
    assert output.getvalue().splitlines()[0].split() == columns
