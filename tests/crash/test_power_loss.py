"""Resume after a loss of power: a sample of the states, and the model of the disk."""

from __future__ import annotations

import importlib.util
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.needs import check_requirement

TRIALS = Path(__file__).parent / "power_loss"
STATES = 40


@pytest.fixture(scope="module")
def modules() -> Iterator[dict[str, ModuleType]]:
    """Modules of the trials, which import each other by their plain names."""
    names = ["recording", "disk", "states"]
    loaded = {}
    for name in names:
        spec = importlib.util.spec_from_file_location(name, TRIALS / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        loaded[name] = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded[name])
    yield loaded
    for name in names:
        del sys.modules[name]


SCRIPT = """
import os, sys
a, d, b = (os.path.join(sys.argv[1], name) for name in ("a", "d", "d/b"))
file = os.open(a, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
os.write(file, b"one")
os.fsync(file)
os.write(file, b"two")
os.mkdir(d)
os.rename(a, b)
folder = os.open(d, os.O_RDONLY)
os.fsync(folder)
os.ftruncate(file, 4)
"""


def record(modules: dict[str, ModuleType], directory: Path, script: str) -> object:
    check_requirement(modules["recording"].find_missing_software())
    directory.mkdir()
    command = [sys.executable, "-c", script, str(directory)]
    calls = modules["recording"].record(command, directory.with_suffix(".strace"))
    return modules["disk"].Recorder(directory).translate(calls)


def test_recorded_changes_lead_to_the_content_of_the_directory(modules: dict[str, ModuleType], tmp_path: Path) -> None:
    recording = record(modules, tmp_path / "recorded", SCRIPT)
    disk = modules["disk"]
    assert disk.build_tree(recording.changes) == {"d": None, "d/b": b"onet"}  # type: ignore[attr-defined]
    assert disk.read_tree(tmp_path / "recorded") == {"d": None, "d/b": b"onet"}


def test_flush_of_a_file_keeps_its_data_and_not_its_name(modules: dict[str, ModuleType], tmp_path: Path) -> None:
    recording = record(modules, tmp_path / "recorded", SCRIPT)
    disk = modules["disk"]
    count = len(recording.changes)  # type: ignore[attr-defined]
    durable = recording.durable_changes(count)  # type: ignore[attr-defined]
    kept = [recording.changes[index] for index in sorted(durable)]  # type: ignore[attr-defined]
    assert [change.content for change in kept] == [b"one"]
    assert disk.build_tree(kept) == {}


def test_states_include_lost_torn_zeroed_and_reordered_changes(modules: dict[str, ModuleType], tmp_path: Path) -> None:
    recording = record(modules, tmp_path / "recorded", SCRIPT)
    states = modules["states"].list_states(recording, range(1, len(recording.changes) + 1), random.Random(0))
    trees = [state.build(recording) for state in states]
    for tree in (
        {},
        {"a": b"one"},
        {"a": b"onet"},
        {"a": b"one\0\0\0"},
        {"d": None},
        {"a": b"one", "d": None},
        {"d": None, "d/b": b"onetwo"},
    ):
        assert tree in trees
    # What was flushed is never damaged, and a rename is atomic.
    contents = [content for tree in trees for content in tree.values() if content is not None]
    flushed = [content for content in contents if len(content) > 3]
    assert all(content.startswith(b"one") for content in flushed)
    assert not any("a" in tree and "d/b" in tree for tree in trees)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_training_after_loss_of_power_resumes_from_the_newest_snapshot_and_loses_no_flushed_event() -> None:
    # The trials fork and import their own modules, so they run in a separate process.
    command = [sys.executable, str(TRIALS / "trials.py"), "--states", str(STATES), "--seed", "3"]
    completed = subprocess.run(command, capture_output=True, text=True, timeout=550, check=False)
    check_requirement(completed.stderr if "strace" in completed.stderr else None)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    summary = f"{5 * STATES} states after a loss of power. States with a broken promise: 0"
    assert completed.stdout.splitlines()[-1] == summary
