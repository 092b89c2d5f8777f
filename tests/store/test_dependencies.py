"""Unsupported versions of dependencies are named where the dependency is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path

import pytest
from ignite.engine import Engine
from torch import nn

import pte_tracking as pte
from pte_tracking._store.dependencies import check_dependency, find_outdated
from pte_tracking.extensions import IgniteEvaluator, PlotReport
from pte_tracking.sinks import ENTRY_POINT_GROUP, get_sink
from pte_tracking.sinks._registry import check_client_version

#: Own sinks, without those of other packages in the environment.
NAMES = sorted(distribution("pte-tracking").entry_points.select(group=ENTRY_POINT_GROUP).names)
#: Client library of each sink that requires one. The extra has the name of the sink.
CLIENTS = {name: library for name in NAMES if (library := get_sink(name).requires)}
Install = Callable[[str, str], None]


def write_metadata(folder: Path, name: str, version: str) -> None:
    directory = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    directory.mkdir()
    (directory / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Function that installs the metadata of a version before that of the real one, also for new processes."""
    folder = tmp_path / "site"
    folder.mkdir()
    check_dependency.cache_clear()
    check_client_version.cache_clear()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))
    return lambda name, version: write_metadata(folder, name, version)


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("version", "bound", "is_supported"),
    [
        ("0.19.0", "0.20", False),
        ("0.9", "0.20", False),
        ("0.20", "0.20.0", True),
        ("0.20.0", "0.20", True),
        ("0.20.1rc1", "0.20", True),
        ("0.20.0.post2", "0.20.1", False),
        ("2.13.0+cpu", "2.6", True),
        ("2.5.1+cu124", "2.6", False),
        ("10.0", "9", True),
    ],
)
def test_find_outdated_compares_release_numbers(install: Install, version: str, bound: str, is_supported: bool) -> None:
    install("some-library", version)
    problem = find_outdated(
        "some-library", ["some-library-extension>=99", f"some-library[a,b]<99,>={bound}; extra == 'x'"]
    )
    assert problem == (
        None
        if is_supported
        else f"requires some-library>={bound}, and some-library {version} is installed. "
        f"Run: pip install 'some-library>={bound}'"
    )


def test_find_outdated_unknown_version_is_supported() -> None:
    assert find_outdated("library-that-is-not-installed", ["library-that-is-not-installed>=1"]) is None


@pytest.mark.parametrize("name", ["msgspec", "rich", "torch", "tqdm", "typer"])
def test_first_name_with_old_required_dependency_raises_import_error(install: Install, name: str) -> None:
    install(name, "0.1.dev0")
    done = run_python("-c", "import pte_tracking; print('imported'); pte_tracking.Run")
    assert done.stdout == "imported\n"
    message = done.stderr.splitlines()[-1]
    assert message.startswith(f"ImportError: pte-tracking requires {name}>=")
    assert f", and {name} 0.1.dev0 is installed. Run: pip install '{name}>=" in message


@pytest.mark.parametrize("name", ["msgspec", "typer"])
def test_command_line_with_old_required_dependency_prints_one_line(install: Install, name: str) -> None:
    install(name, "0.12.0")
    done = run_python("-m", "pte_tracking._cli", "list")
    assert done.returncode == 1
    assert done.stderr.startswith(f"pte-tracking requires {name}>=")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", CLIENTS)
def test_run_without_client_library_names_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    monkeypatch.setitem(sys.modules, CLIENTS[name], None)
    with pytest.raises(
        ValueError, match=rf"^Sink '{name}' is not installed\. Run: pip install 'pte-tracking\[{name}\]'$"
    ):
        pte.Run(tmp_path / "run", sinks=[name])


def test_directory_with_name_of_client_library_is_not_the_library(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "missing_library").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(get_sink("tensorboard"), "requires", "missing_library")
    with pytest.raises(ValueError, match=r"^Sink 'tensorboard' is not installed\. Run: "):
        pte.Run(tmp_path / "run", sinks=["tensorboard"])


@pytest.mark.parametrize("name", CLIENTS)
def test_run_with_old_client_library_raises_value_error(install: Install, tmp_path: Path, name: str) -> None:
    library = CLIENTS[name]
    install(library, "0.2")
    with pytest.raises(
        ValueError, match=rf"^Sink '{name}' requires {library}>=[\d.]+, and {library} 0\.2 is installed\. Run"
    ):
        pte.Run(tmp_path / "run", sinks=[name])


def test_sync_with_old_client_library_reports_version(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PTE_TRACKING_DELIVERY", "off")
    with pte.Run(tmp_path / "run", sinks=["tensorboard"]) as run:
        run.log_metrics({"loss": 1.0}, 1)
    install("tensorboard", "0.2")
    done = run_python("-m", "pte_tracking._cli", "sync", str(run.directory))
    assert done.returncode == 1
    assert "Sink 'tensorboard' requires tensorboard>=" in done.stderr
    assert "Traceback" not in done.stderr


def test_load_from_old_client_library_raises_value_error(install: Install, tmp_path: Path) -> None:
    install("mlflow", "3.1.0")
    with pytest.raises(ValueError, match=r"Sink 'mlflow' requires mlflow>=[\d.]+, and mlflow 3\.1\.0 is installed"):
        pte.load(tmp_path, "runs:/0123456789abcdef0123456789abcdef/snapshot")


def test_plot_report_with_old_matplotlib_raises_import_error(install: Install) -> None:
    install("matplotlib", "3.5.0")
    with pytest.raises(ImportError, match=r"pte-tracking requires matplotlib>=[\d.]+, and matplotlib 3\.5\.0 is"):
        PlotReport(["loss"])


def test_confusion_matrix_with_old_matplotlib_raises_import_error(install: Install, tmp_path: Path) -> None:
    install("matplotlib", "3.5.0")
    with (
        pte.Run(tmp_path / "run", sinks=[]) as run,
        pytest.raises(ImportError, match=r"pte-tracking requires matplotlib>="),
    ):
        run.log_confusion_matrix("matrix", [[1, 0], [0, 1]], 1)


def test_images_and_histograms_with_old_numpy_raise_import_error(install: Install, tmp_path: Path) -> None:
    install("numpy", "1.0")
    message = r"pte-tracking requires numpy>=[\d.]+, and numpy 1\.0 is installed"
    with pte.Run(tmp_path / "run", sinks=[]) as run:
        with pytest.raises(ImportError, match=message):
            run.log_histogram("weights", [1.0, 2.0], 1)
        with pytest.raises(ImportError, match=message):
            run.log_image("image", [[[0.0]], [[1.0]]], 1)


def test_ignite_front_ends_with_old_ignite_raise_import_error(install: Install, tmp_path: Path) -> None:
    install("pytorch-ignite", "0.4.0")
    engine, model = Engine(lambda engine, batch: None), nn.Linear(1, 1)
    message = r"pte-tracking requires pytorch-ignite>=[\d.]+, and pytorch-ignite 0\.4\.0 is installed"
    with pytest.raises(ImportError, match=message):
        pte.IgniteExtensionsManager(engine, model, 1, out_dir=tmp_path)
    with pytest.raises(ImportError, match=message):
        IgniteEvaluator(engine, [], model)
