"""Fixtures that install the probe sink as a third-party package."""

from __future__ import annotations

import importlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

if TYPE_CHECKING:
    from tests.probe.pte_probe import Probe

HERE = Path(__file__).parent
ENTRY_POINTS = """\
[pte_tracking.sinks]
probe = pte_probe:ProbeSink
probe-two = pte_probe:SecondProbeSink
needy = pte_probe:NeedySink
gone = pte_gone:GoneSink
odd = pte_probe:ProbeError
"""


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory in which the probe sink is installed."""
    folder = tmp_path_factory.mktemp("packages")
    shutil.copy(HERE / "pte_probe.py", folder)
    info = folder / "pte_probe-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pte-probe\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    return folder


@pytest.fixture(scope="module", autouse=True)
def _installed(packages: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(packages)
        patch.setenv("PYTHONPATH", str(packages), prepend=os.pathsep)
        yield


@pytest.fixture
def probes(tmp_path: Path) -> Callable[[str], Probe]:
    """Return a function that creates probes by name."""
    module = importlib.import_module("pte_probe")
    return lambda name: cast("Probe", module.Probe(tmp_path / name))


@pytest.fixture
def probe(probes: Callable[[str], Probe]) -> Probe:
    return probes("probe")


def wait_until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until a condition is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"The condition is still false after {seconds} seconds."
        time.sleep(0.02)
