"""The wheel in environments with only the declared requirements of the package and of each extra."""

from __future__ import annotations

import json
import re
from importlib.metadata import distribution
from pathlib import Path

import pytest

from pte_tracking.sinks import ENTRY_POINT_GROUP, get_sink
from tests.packaging.archives import build
from tests.packaging.environments import Environment

FOLDER = Path(__file__).parent
PLOT = "pip install 'pte-tracking[plot]'"
IGNITE = "pip install 'pte-tracking[ignite]'"
#: Own sinks, without those of other packages in the environment.
NAMES = distribution("pte-tracking").entry_points.select(group=ENTRY_POINT_GROUP).names
#: Sinks with a client library. The extra of each has its name.
SINKS = {name for name in NAMES if get_sink(name).requires}
CLIENTS = sorted(get_sink(name).requires or "" for name in SINKS)
#: Command that the message for each feature names in an installation without extras.
COMMANDS = {
    "log_image": PLOT,
    "log_image of a file": PLOT,
    "log_histogram": PLOT,
    "log_confusion_matrix": PLOT,
    "PlotReport": PLOT,
    "VariableStatisticsPlot": PLOT,
    "ParameterHistogram": PLOT,
    "IgniteExtensionsManager": IGNITE,
    "IgniteEvaluator": IGNITE,
    "to_dataframe": "pip install pandas",
    "SummaryWriter.add_image": PLOT,
    "SummaryWriter.add_tensor": PLOT,
    "TrackingCallback": "pip install 'pte-tracking[transformers]'",
    **{name: f"pip install 'pte-tracking[{name}]'" for name in SINKS},
}
#: Features of the extras that "all" does not contain.
SEPARATE = {name: name for name in SINKS - {"tensorboard", "mlflow"}} | {"transformers": "TrackingCallback"}
#: Features that each extra makes available.
AVAILABLE = {
    "plot": {"log_image", "log_histogram", "log_confusion_matrix", "PlotReport", "VariableStatisticsPlot"}
    | {"ParameterHistogram", "log_image of a file", "SummaryWriter.add_image", "SummaryWriter.add_tensor"},
    "ignite": {"IgniteExtensionsManager", "IgniteEvaluator"},
    "tensorboard": {"tensorboard"},
    "mlflow": {"mlflow"},
    # One environment for all, because each takes ten seconds.
    ",".join(sorted(SEPARATE)): {*SEPARATE.values()},
    "all": {*COMMANDS} - {*SEPARATE.values()},
}
#: What features answer to the arguments in missing_packages.py if their package is installed. Others raise nothing.
ANSWERS = {
    "log_image of a file": "ValueError: image 'a' at step 1: expected the bytes of an image file",
    "IgniteExtensionsManager": "unexpected TypeError: engine: expected an ignite.engine.Engine",
    "IgniteEvaluator": "unexpected TypeError: evaluator: expected an ignite.engine.Engine",
    "alerts": "ValueError: APPRISE_URLS is not set",
    "to_dataframe": "unexpected RuntimeError: LogReport.log is not available",
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def base(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return Environment(tmp_path_factory.mktemp("base"), wheel, "")


@pytest.mark.parametrize("module", ["numpy", "PIL", "matplotlib", "ignite", "pandas", *CLIENTS])
def test_base_installation_does_not_contain_module(base: Environment, module: str) -> None:
    assert f"No module named '{module}'" in base.python("-c", f"import {module}").stderr


def test_base_installation_names_command_for_every_missing_package(base: Environment, tmp_path: Path) -> None:
    result = base.python(str(FOLDER / "missing_packages.py"), str(tmp_path), directory=tmp_path)
    assert result.returncode == 0, result.stderr
    messages = json.loads(result.stdout)
    assert messages.keys() == COMMANDS.keys()
    wrong = {feature: text for feature, text in messages.items() if not text.endswith(f"Run: {COMMANDS[feature]}")}
    assert wrong == {}


def test_base_installation_trains_and_runs_every_command(base: Environment, tmp_path: Path) -> None:
    for name in ("first", "second"):
        result = base.python(str(FOLDER / "plain_training.py"), str(tmp_path / name))
        assert result.returncode == 0, result.stderr
    assert len(json.loads((tmp_path / "first/log").read_text())) == 2
    run = str(tmp_path / "first")
    commands = [
        ["list", str(tmp_path)],
        ["show", run],
        ["compare", run, str(tmp_path / "second")],
        ["export", run],
        ["verify", run],
        ["sync", run],
        ["backends"],
    ]
    for arguments in commands:
        result = base.command(*arguments)
        assert result.returncode == 0, result.stdout + result.stderr


def test_base_installation_prints_help_of_every_command(base: Environment) -> None:
    assert base.command("--help").returncode == 0
    code = """
from pte_tracking._cli import app
from typer.testing import CliRunner
for name in ("list", "show", "compare", "export", "verify", "sync", "convert", "backends"):
    assert f" {name} " in CliRunner().invoke(app, [name, "--help"], catch_exceptions=False).stdout
"""
    result = base.python("-c", code)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("extra", AVAILABLE)
def test_extra_makes_its_features_available(extra: str, wheel: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path / "environment", wheel, extra)
    result = environment.python(str(FOLDER / "missing_packages.py"), str(tmp_path), directory=tmp_path)
    assert result.returncode == 0, result.stderr
    messages = json.loads(result.stdout)
    answers = {feature: messages.get(feature, "") for feature in AVAILABLE[extra]}
    assert {feature: text for feature, text in answers.items() if not re.match(ANSWERS.get(feature, "$"), text)} == {}
