"""Tables that show several runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from pte_tracking._cli.rendering import fits, print_table
from pte_tracking._store.metrics import MetricSummary

_STATISTICS = ("last", "lowest", "highest")


def print_states(console: Console, states: Mapping[str, Mapping[str, Any]]) -> None:
    """Print one row per run.

    Args:
        console: Console to print to.
        states: ``status`` and ``step`` by run.
    """
    rows = [{"Run": run, "Status": state["status"], "Step": state["step"]} for run, state in states.items()]
    print_table(console, "", rows, folded=["Run"])


def print_facts(console: Console, title: str, name: str, facts: Mapping[str, Mapping[str, Any]]) -> None:
    """Print facts with one column per run or, if that is too wide, with one row per run.

    Args:
        console: Console to print to.
        title: Title of the table.
        name: Name of a fact.
        facts: Values by run, by fact.
    """
    rows = [{name: fact, **values} for fact, values in facts.items()]
    if fits(console, rows):
        print_table(console, title, rows)
        return
    runs = list(dict.fromkeys(run for values in facts.values() for run in values))
    block: list[str] = []
    for fact in facts:
        if block and not fits(console, _build_rows(runs, facts, [*block, fact])):
            print_table(console, title, _build_rows(runs, facts, block))
            block = []
        block.append(fact)
    print_table(console, title, _build_rows(runs, facts, block))


def print_metrics(console: Console, metrics: Mapping[str, Mapping[str, MetricSummary]], keys: Sequence[str]) -> None:
    """Print the last, lowest, and highest values with one column per run or, if that is too wide, one table per metric.

    Args:
        console: Console to print to.
        metrics: Metrics by key, by run.
        keys: Keys of the metrics to print.
    """
    tables = {
        f"{statistic.capitalize()} values": [
            {"Metric": key} | {run: getattr(values.get(key), statistic, None) for run, values in metrics.items()}
            for key in keys
        ]
        for statistic in _STATISTICS
    }
    if not all(fits(console, rows) for title, rows in tables.items()):
        tables = {
            key: [
                {"Run": run} | {statistic.capitalize(): getattr(values[key], statistic) for statistic in _STATISTICS}
                for run, values in metrics.items()
                if key in values
            ]
            for key in keys
        }
    for title, rows in tables.items():
        print_table(console, title, rows, folded=["Run"])


def _build_rows(
    runs: Sequence[str], facts: Mapping[str, Mapping[str, Any]], block: Sequence[str]
) -> list[dict[str, Any]]:
    return [{"Run": run} | {fact: facts[fact].get(run) for fact in block} for run in runs]
