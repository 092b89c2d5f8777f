"""The command compare."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console

import pte_tracking as pte
from pte_tracking._cli.comparison_tables import print_facts, print_metrics
from pte_tracking._store.metrics import MetricSummary
from tests.cli.invocation import invoke


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    for number in range(2):
        with pte.Run(tmp_path / f"run{number}", sinks=[]) as run:
            for step in range(1, 5):
                run.log_metrics({"_loss $x": step * (number + 1.0), f"own{number}": float("nan")}, step)
    return [tmp_path / "run0", tmp_path / "run1"]


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_compare_plot_writes_figure_with_every_run(suffix: str, runs: list[Path], tmp_path: Path) -> None:
    path = tmp_path / f"out.{suffix}"
    result = invoke("compare", *runs, "--plot", path)
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, f"Plot: {path}")
    if suffix == "png":
        with Image.open(path) as image:
            colors = {color for _, color in image.convert("RGB").getcolors(1 << 20) or []}
        assert {(0, 114, 178), (213, 94, 0)} <= colors  # blue and vermilion
    else:
        assert path.stat().st_size > 1000


def test_compare_plot_panels_have_the_same_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        with pte.Run(tmp_path / name, sinks=[]) as run:
            for step in (100, 200, 300):
                run.log_metrics({"loss": 1.0, "late": 1.0 if step < 300 else math.nan}, step)
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    invoke("compare", tmp_path, "--plot", tmp_path / "out.png")
    first, second = figures[0].axes
    assert first.get_xlim() == second.get_xlim()
    assert all(label.get_visible() for panel in (first, second) for label in panel.get_xticklabels())


def test_compare_omits_the_log_of_a_printed_table(run_with_table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    invoke("compare", run_with_table, run_with_table, "--plot", run_with_table / "out.png")
    xs, ys = figures[0].axes[0].lines[0].get_data()
    assert list(zip(xs, ys, strict=True)) == [(2, 1.5), (4, 3.5), (6, 1.5), (8, 3.5)]
    compared = json.loads(invoke("compare", run_with_table, run_with_table, "--json").output)
    assert compared["metrics"][str(run_with_table)]["loss"]["last"] == 3.5


def test_compare_plot_of_selected_metric_is_narrower(runs: list[Path], tmp_path: Path) -> None:
    widths = []
    for options in ([], ["--metric", "own0"]):
        invoke("compare", *runs, "--plot", tmp_path / "out.png", *options)
        with Image.open(tmp_path / "out.png") as image:
            widths.append(image.width)
    assert widths[1] < widths[0]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--plot", "out.xyz"], 2, "--plot: expected a file with one of the suffixes"),
        (["--plot", "missing/out.png"], 1, "missing/out.png: No such file or directory"),
        (
            ["--plot", "out.png", "--metric", "lost"],
            2,
            "--metric: no run has the metric 'lost'. Names: _loss $x, own0, own1.",
        ),
        (["--metric", "own"], 2, "--metric: no run has the metric 'own'. Did you mean 'own1' or 'own0'?"),
    ],
)
def test_compare_wrong_plot_option_is_explained(
    arguments: list[str], code: int, message: str, runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke("compare", *runs, *arguments)
    assert (result.exit_code, message in result.stderr) == (code, True), result.output
    assert not list(tmp_path.glob("out*"))


def test_compare_plot_of_one_run_is_drawn(runs: list[Path], tmp_path: Path) -> None:
    result = invoke("compare", runs[0], "--plot", tmp_path / "out.png")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, f"Plot: {tmp_path / 'out.png'}")
    assert (tmp_path / "out.png").stat().st_size > 1000


def test_compare_directory_compares_all_runs_in_it(runs: list[Path], tmp_path: Path) -> None:
    assert invoke("compare", tmp_path, "--json").stdout == invoke("compare", *runs, "--json").stdout


def test_compare_directory_with_damaged_run_reports_it_and_compares_others(runs: list[Path], tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/run.json").write_text("{")
    result = invoke("compare", tmp_path, "--metric", "own0")
    assert result.exit_code == 1
    assert "own0" in result.stdout
    (line,) = result.stderr.splitlines()
    assert "damaged or not a run manifest" in line


@pytest.mark.parametrize(
    ("names", "code", "message"),
    [
        (
            ["run0"],
            2,
            "compare: expected at least two runs, got run0. Pass the directories of two or more runs, or a dir",
        ),
        (["empty"], 1, "empty: no run found in this directory or below"),
        (["run0", "run3"], 1, "run3: not a run directory (it does not exist). Did you mean 'run1' or 'run0'?"),
    ],
)
def test_compare_too_few_runs_names_what_to_pass(
    names: list[str], code: int, message: str, runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    result = invoke("compare", *names)
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith(message)


def test_compare_metric_selects_tables_and_json(runs: list[Path]) -> None:
    assert "own1" not in invoke("compare", *runs, "--metric", "own0").stdout
    compared = json.loads(invoke("compare", *runs, "--metric", "own0", "--json").stdout)
    assert [list(values) for values in compared["metrics"].values()] == [["own0"], []]


def test_compare_many_runs_in_narrow_terminal_has_one_table_per_metric(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(width=60)
    summary = MetricSummary(0.25, 3, 0.125, 1, 0.5, 2)
    print_metrics(console, {f"results/run{number}": {"loss": summary} for number in range(5)}, ["loss"])
    _, title, header, *lines = capsys.readouterr().out.splitlines()
    assert (title.strip(), header.split()) == ("loss", ["Run", "Last", "Lowest", "Highest"])
    assert [line.split() for line in lines] == [[f"results/run{n}", "0.25", "0.125", "0.5"] for n in range(5)]


def test_compare_many_facts_in_narrow_terminal_are_divided_into_tables(capsys: pytest.CaptureFixture[str]) -> None:
    facts = {f"parameter{number}": {f"run{run}": run for run in range(9)} for number in range(8)}
    print_facts(Console(width=60), "Parameters", "Parameter", facts)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 60
    columns = [word for line in lines if "Run" in line for word in line.split() if word != "Run"]
    assert columns == list(facts)


def test_compare_begins_with_the_status_and_last_step_of_each_run_without_trailing_spaces(runs: list[Path]) -> None:
    lines = invoke("compare", *runs).stdout.splitlines()
    assert lines[0].split() == ["Run", "Status", "Step"]
    assert [line.split() for line in lines[1:3]] == [[str(run), "FINISHED", "4"] for run in runs]
    assert [line for line in lines if line != line.rstrip()] == []
    states = json.loads(invoke("compare", *runs, "--json").stdout)["runs"]
    assert states == {str(run): {"status": "FINISHED", "step": 4} for run in runs}
