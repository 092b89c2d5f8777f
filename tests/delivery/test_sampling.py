"""Sampling of system metrics by the delivery process, and by a process on a further node."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import pte_tracking as pte
from pte_tracking._store import lock
from pte_tracking._store.layout import DELIVERY, DELIVERY_LOCK
from pte_tracking._store.samples import read_samples
from tests.ranks import monitor_scenarios
from tests.ranks.forked import on_ranks

_SECONDS = 60
_SCRIPT = """
import os, sys, time
import pte_tracking as pte
from pte_tracking._store.manifest import Sampling
run = pte.Run("result", sinks=sys.argv[1:], resume=True)
run.log_metrics({"loss": 0.5}, 1)
run.sample_system(Sampling(0.05, [os.getpid()]))
time.sleep(120)
"""


@contextlib.contextmanager
def training(folder: Path, *sinks: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a training that samples and does nothing else, and kill it at the end."""
    with subprocess.Popen([sys.executable, "-c", _SCRIPT, *sinks], cwd=folder) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the condition is not met"
        time.sleep(0.05)


def steps(run: Path) -> list[int]:
    return [event.step for samples in read_samples(run, {}) for event in samples.events]


@pytest.mark.slow
def test_sampling_stopped_and_killed_training_continues_and_ends(tmp_path: Path) -> None:
    run = tmp_path / "result"
    run.mkdir()
    with training(tmp_path, "json") as process:  # the sink is inline, so that the process only samples
        wait_until(lambda: len(steps(run)) > 0)
        process.send_signal(signal.SIGSTOP)
        count = len(steps(run))
        wait_until(lambda: len(steps(run)) > count + 2)
    wait_until(lambda: not lock.is_held(run / DELIVERY_LOCK))
    first = steps(run)
    with training(tmp_path, "json", "tensorboard"):
        wait_until(lambda: len(steps(run)) > len(first))
    wait_until(lambda: not lock.is_held(run / DELIVERY_LOCK))
    all_steps = steps(run)
    assert all_steps == [*range(1, len(all_steps) + 1)]
    assert "system" not in (run / "log").read_text()
    board = EventAccumulator(str(run)).Reload()
    assert [event.step for event in board.Scalars("system/process_count")] == all_steps


_SHORT = """
import pte_tracking as pte
from pte_tracking import extensions
manager = pte.ExtensionsManager(
    {}, 1, [extensions.SystemMetrics()], iters_per_epoch=1, out_dir="result", sinks=["tensorboard"]
)
with manager, manager.run_iteration():
    pass
"""


@pytest.mark.slow
def test_sampling_short_training_has_one_sample_at_its_end(tmp_path: Path) -> None:
    run = tmp_path / "result"
    subprocess.run([sys.executable, "-c", _SHORT], cwd=tmp_path, check=True, timeout=_SECONDS)
    wait_until(lambda: not lock.is_held(run / DELIVERY_LOCK))
    board = EventAccumulator(str(run)).Reload()
    assert [event.step for event in board.Scalars("system/process_count")] == steps(run) == [1]


_OTHER_NODE = """
import os, time
from pathlib import Path
from pte_tracking._runs.node_sampler import NodeSampler
from pte_tracking._store.manifest import Manifest, Sampling
run = Path("result").absolute()
NodeSampler(run, Manifest.load(run).id, Sampling(0.05, [os.getpid()], "other"))
time.sleep(120)
"""


@pytest.mark.slow
def test_node_sampler_killed_training_process_ends(tmp_path: Path) -> None:
    run = tmp_path / "result"
    with pte.Run(run):
        pass
    environment = {**os.environ, "PTE_TRACKING_NODE_NAME": "other"}
    with subprocess.Popen([sys.executable, "-c", _OTHER_NODE], cwd=tmp_path, env=environment) as process:
        wait_until(lambda: len(steps(run)) > 0)
        assert lock.is_held(run / DELIVERY / "system-other.jsonl.lock")
        process.kill()
    wait_until(lambda: not lock.is_held(run / DELIVERY / "system-other.jsonl.lock"))
    (first, *_) = (event for samples in read_samples(run, {}) for event in samples.events)
    assert "system/other/process_count" in first.values


@pytest.mark.slow
def test_sampling_two_nodes_share_run_directory(tmp_path: Path) -> None:
    assert on_ranks(monitor_scenarios.sample_two_nodes, 2, tmp_path) == [0, 0]
    names = sorted(path.name for path in (tmp_path / "run").glob("system-*.jsonl"))
    assert names == ["system-first.jsonl", "system-second.jsonl"]
    board = EventAccumulator(str(tmp_path / "run")).Reload()
    for node in ("first", "second"):
        assert board.Scalars(f"system/{node}/process_count")[0].value >= 1
