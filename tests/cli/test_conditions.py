"""Conditions of list --where, the order of list --sort, and both together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pte_tracking as pte
from pte_tracking._store.conditions import Condition
from tests.cli.invocation import invoke

VALUES: dict[str, Any] = {
    "lr": 0.01,
    "status": "FAILED",
    "step": 100,
    "val/loss": 0.25,
    "acc@5": 0.9,
    "optim.name": "sgd",
    "flag": True,
    "and": 1,
    "none": None,
}


@pytest.mark.parametrize(
    "text",
    [
        "lr < 0.02 and status == 'FAILED'",
        "lr == 1e-2",
        "0.001 < lr <= 0.01",
        "val/loss < 0.3",
        "`acc@5` >= 0.9",
        "`and` == 1",
        "optim.name == 'sgd'",
        'optim.name in ["adam", "sgd"]',
        "status not in ('KILLED', 'FINISHED')",
        "'AIL' in status",
        "not (step < 100 or lr > 1)",
        "step > -5 and flag == True",
        "  step != 99  ",
    ],
)
def test_condition_that_holds_is_true_and_its_negation_false(text: str) -> None:
    assert Condition(text).holds(VALUES)
    assert not Condition(f"not ({text.strip()})").holds(VALUES)


@pytest.mark.parametrize("text", ["missing < 1", "missing != 1", "none == 1", "missing in [1]", "1 < missing < 3"])
def test_condition_on_missing_value_is_false(text: str) -> None:
    assert not Condition(text).holds(VALUES)


@pytest.mark.parametrize(
    "text",
    [
        *["", "lr", "lr = 1", "lr < ", "lr + 1 < 2", "lr[0] < 1", "1 if lr else 2", "lr is None", "lr ** 9 < 1"],
        *["f(lr) < 1", "__import__('os').system('x') == 0", "lambda: 1", "[x for x in lr]", "(lr := 2) < 3"],
        *["lr < 1; lr", "lr < b'x'", "f'{lr}' == '1'", "\0", "(" * 400, "not " * 240 + "x", "x < " + "9" * 2000],
    ],
)
def test_text_that_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a condition|at most 1000 characters"):
        Condition(text)


def test_condition_on_different_types_names_them() -> None:
    with pytest.raises(ValueError, match="compares values of different types"):
        Condition("lr < 'small'").holds(VALUES)


@given(st.text(max_size=60))
def test_any_text_is_a_condition_or_refused(text: str) -> None:
    try:
        condition = Condition(text)
    except ValueError:
        return
    assert condition.holds({}) in (True, False)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for number, lr in enumerate((0.1, 0.01, 0.001)):
        params = {"lr": lr if number else "auto", "loss": "nll"}
        with pte.Run(tmp_path / f"run{number}", params=params, tags={"team": f"t{number}"}, sinks=[]) as run:
            for step in (1, 2):
                run.log_metrics({"val/loss": lr * step, "val/acc": 1 - lr, "loss": 3.0}, step)
    return tmp_path


def list_names(*arguments: object) -> list[str]:
    result = invoke("list", *arguments)
    assert result.exit_code == 0, result.output
    return [Path(line.split()[0]).name for line in result.stdout.splitlines()[1:]]


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ("lr < 0.005", ["run2"]),
        ("val/loss >= 0.02", ["run0", "run1"]),
        ("team in ['t0', 't2'] and status == 'FINISHED'", ["run0", "run2"]),
        ("metrics.loss == 3 and loss == 'nll' and params.lr == 'auto'", ["run0"]),
        ("tags.team == 't1' and step == 2", ["run1"]),
    ],
)
def test_list_where_selects_runs(where: str, names: list[str], runs: Path) -> None:
    assert list_names(runs, "--where", where) == names


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("val/loss", ["run2", "run1", "run0"]),
        ("metrics.val/acc", ["run2", "run1", "run0"]),
        ("lr", ["run2", "run1", "run0"]),
        ("team", ["run0", "run1", "run2"]),
    ],
)
def test_list_sort_puts_best_or_lowest_value_first(name: str, names: list[str], runs: Path) -> None:
    assert list_names(runs, "--sort", name) == names


def test_list_sort_by_metric_shows_it_as_best(runs: Path) -> None:
    header, first, *_ = invoke("list", runs, "--sort", "val/acc").stdout.splitlines()
    assert "Best val/acc  At step" in header
    assert "0.999" in first.split()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--where", "val/los < 1"], 2, "--where: no run has a value of 'val/los'. Did you mean 'val/loss'?"),
        (["--sort", "val/los"], 2, "--sort: no run has a value of 'val/los'. Did you mean 'val/loss'?"),
        (["--sort", "params.lt"], 2, "--sort: no run has a value of 'params.lt'. Did you mean 'params.lr'"),
        (["--best", "val/los"], 2, "--best: no run has the metric 'val/los'. Did you mean 'val/loss'?"),
        (["--best", "zzz"], 2, "--best: no run has the metric 'zzz'. Names: loss, val/acc, val/loss."),
        (["--where", "lr ="], 2, "is not a condition. Expected comparisons such as"),
        (["--where", "step < 'a'"], 2, "compares values of different types"),
        (["--where", "step > 5"], 1, "no run matches --where 'step > 5'"),
    ],
)
def test_list_wrong_option_is_explained_in_one_line(arguments: list[str], code: int, message: str, runs: Path) -> None:
    result = invoke("list", runs, *arguments)
    assert (result.exit_code, len(result.stderr.splitlines())) == (code, 1)
    assert message in result.stderr
