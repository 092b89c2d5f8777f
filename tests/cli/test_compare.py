"""The plot of the command compare."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

import pte_tracking as pte
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
            "--metric: no run has the metric 'lost'. Metrics: _loss $x, own0",
        ),
        (["--metric", "own0"], 2, "--metric selects the metrics of --plot. Pass --plot FILE as well."),
    ],
)
def test_compare_wrong_plot_option_is_explained(
    arguments: list[str], code: int, message: str, runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke("compare", *runs, *arguments)
    assert (result.exit_code, message in result.stderr) == (code, True), result.output
    assert not list(tmp_path.glob("out*"))
