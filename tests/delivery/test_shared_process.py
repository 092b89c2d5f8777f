"""One delivery process for all runs of a training process, with real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

import pte_tracking as pte
from pte_tracking._delivery import shared_process
from pte_tracking._delivery.backlog import backlog
from pte_tracking._delivery.control import request_retry
from pte_tracking._delivery.sync import sync
from pte_tracking._store import lock
from pte_tracking._store.layout import DELIVERY_LOCK, DELIVERY_LOG
from pte_tracking._store.manifest import Manifest
from tests.deliveries import end_deliveries, living_deliveries
from tests.probe.fixtures import wait_until

if TYPE_CHECKING:
    from tests.probe.pte_probe import Probe

pytestmark = pytest.mark.slow


def have_ended() -> bool:
    """Whether all delivery processes have ended, after the ended ones were noticed."""
    shared_process.check_processes()
    return not shared_process._processes and not living_deliveries()


def holder(run: pte.Run) -> int | None:
    """Return the ID of the process that delivers a run."""
    found = lock.holder(run.directory / DELIVERY_LOCK)
    return found.pid if found else None


def is_delivered(run: pte.Run) -> bool:
    return backlog(run.directory, Manifest.load(run.directory)) == []


def train(directory: Path, *sinks: Any, **options: Any) -> pte.Run:
    """Make a short run. Return it after its end."""
    with pte.Run(directory, sinks=list(sinks), **{"close_timeout": 0, **options}) as run:
        for step in range(1, 4):
            run.log_metrics({"loss": 1 / step}, step)
    return run


@pytest.fixture(autouse=True)
def _no_processes() -> Iterator[None]:
    wait_until(have_ended)
    yield
    end_deliveries()


def test_runs_of_a_sweep_share_one_process_and_are_all_delivered(
    tmp_path: Path, probe: Probe, probes: Callable[[str], Probe]
) -> None:
    probe.control(fail="away")
    runs = [train(tmp_path / str(number), probes(f"p{number}").sink()) for number in range(8)]
    runs += [train(tmp_path / f"away {number}", probe.sink()) for number in range(4)]
    (process,) = living_deliveries()
    assert {holder(run) for run in runs[8:]} == {process.pid}
    wait_until(lambda: all(map(is_delivered, runs[:8])))
    assert not any(map(is_delivered, runs[8:]))


def test_process_without_runs_ends_and_leaves_no_descriptor(tmp_path: Path, probe: Probe) -> None:
    descriptors = psutil.Process().num_fds()
    run = train(tmp_path / "run", probe.sink(), close_timeout=30)
    assert is_delivered(run)
    wait_until(have_ended)
    assert psutil.Process().num_fds() == descriptors


def test_killed_process_is_restarted_with_all_unfinished_runs(
    tmp_path: Path, probes: Callable[[str], Probe], caplog: pytest.LogCaptureFixture
) -> None:
    names = ["0", "1", "2"]
    for name in names:
        probes(name).control(fail="away")
    ended = [train(tmp_path / f"run {name}", probes(name).sink()) for name in names]
    (killed,) = living_deliveries()
    killed.kill()
    killed.wait()
    last = train(tmp_path / "last", probes("last").sink())
    (process,) = living_deliveries()
    assert process.pid != killed.pid
    for name, run in zip(names, ended, strict=True):
        probes(name).control()
        request_retry(run.directory)
    wait_until(lambda: all(map(is_delivered, [*ended, last])))
    assert caplog.text.count("the delivery process ended, restarting") == 1


def test_messages_of_each_run_are_in_its_own_log(tmp_path: Path, probes: Callable[[str], Probe]) -> None:
    runs = {}
    for name in ("first", "second"):
        probes(name).control(fail=f"{name} server is away")
        runs[name] = train(tmp_path / f"run {name}", probes(name).sink())
    for name, run in runs.items():
        log = run.directory / DELIVERY_LOG
        wait_until(lambda: "server is away" in log.read_text())  # noqa: B023
        (line,) = log.read_text().splitlines()
        assert f"{name} server is away" in line
    assert len(living_deliveries()) == 1


def test_handover_of_one_run_leaves_the_others_with_the_process(tmp_path: Path, probes: Callable[[str], Probe]) -> None:
    for name in ("first", "second"):
        probes(name).control(refuse="wrong password")
    first, second = (train(tmp_path / f"run {name}", probes(name).sink()) for name in ("first", "second"))
    (process,) = living_deliveries()
    wait_until(lambda: holder(second) == process.pid)
    probes("first").control()
    script = "import sys, pathlib; from pte_tracking._delivery.sync import sync; print(sync(pathlib.Path(sys.argv[1])))"
    done = subprocess.run([sys.executable, "-c", script, first.directory], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr
    assert holder(second) == process.pid
    assert is_delivered(first)


def test_sync_wakes_the_shared_process(tmp_path: Path, probe: Probe) -> None:
    probe.control(fail="away")
    runs = [train(tmp_path / str(number), probe.sink()) for number in range(2)]
    (process,) = living_deliveries()
    wait_until(lambda: holder(runs[1]) == process.pid)
    probe.control()
    assert sync(runs[1].directory, timeout=60) == []
    assert probe.notes("open")[-1]["pid"] == process.pid


def test_run_with_other_credentials_gets_its_own_process_and_the_earlier_one_ends(
    tmp_path: Path, probes: Callable[[str], Probe], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = probes("first"), probes("second")
    first.control(fail="away")
    monkeypatch.setenv("SERVICE_TOKEN", "first")
    earlier = train(tmp_path / "earlier", first.sink())
    (process,) = living_deliveries()
    monkeypatch.setenv("SERVICE_TOKEN", "second")
    later = train(tmp_path / "later", second.sink(), close_timeout=30)
    assert is_delivered(later)
    assert second.notes("open")[0]["pid"] != process.pid
    first.control()
    request_retry(earlier.directory)
    wait_until(lambda: is_delivered(earlier))
    wait_until(lambda: not living_deliveries())
    assert first.notes("open")[-1]["pid"] == process.pid


def test_ended_run_whose_credentials_were_refused_is_delivered_with_new_ones(
    tmp_path: Path, probes: Callable[[str], Probe], monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing, away = probes("refusing"), probes("away")
    refusing.control(refuse="expired token")
    away.control(fail="away")
    monkeypatch.setenv("SERVICE_TOKEN", "expired")
    ended, other = train(tmp_path / "ended", refusing.sink()), train(tmp_path / "other", away.sink())
    (process,) = living_deliveries()
    wait_until(lambda: "PermissionError" in (ended.directory / DELIVERY_LOG).read_text())
    monkeypatch.setenv("SERVICE_TOKEN", "renewed")
    train(tmp_path / "later", probes("later").sink())
    wait_until(lambda: holder(ended) not in (None, process.pid))
    refusing.control()
    request_retry(ended.directory)
    wait_until(lambda: is_delivered(ended))
    assert holder(other) == process.pid


def test_open_run_keeps_its_credentials_when_the_environment_names_another_server(
    tmp_path: Path, probes: Callable[[str], Probe], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = {}
    for name in ("a", "b"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{name}")
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", f"token of {name}")
        runs[name] = pte.Run(tmp_path / name, sinks=[probes(f"probe {name}").sink()], close_timeout=30)
        runs[name].log_metrics({"loss": 1.0}, 1)
        wait_until(lambda: probes(f"probe {name}").points())  # noqa: B023
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        runs["a"].log_metrics({"loss": 1.0}, 2)
        time.sleep(0.1)
    tokens = {}
    for name, run in runs.items():
        pid = holder(run)
        assert pid is not None
        tokens[name] = psutil.Process(pid).environ()["MLFLOW_TRACKING_TOKEN"]
        run.close()
    assert tokens == {"a": "token of a", "b": "token of b"}


def test_changed_sys_path_applies_to_the_next_run(
    tmp_path: Path, probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path / "first", probe.sink(), close_timeout=30)
    (process,) = living_deliveries()
    monkeypatch.syspath_prepend(tmp_path)
    train(tmp_path / "second", probe.sink(), close_timeout=30)
    (other,) = (found for found in living_deliveries() if found.pid != process.pid)
    assert str(tmp_path) in " ".join(other.cmdline()[:-1])


def test_hanging_sink_does_not_delay_other_runs(tmp_path: Path, probes: Callable[[str], Probe]) -> None:
    probes("hanging").control(hang=60)
    train(tmp_path / "hanging", probes("hanging").sink())
    run = train(tmp_path / "run", probes("other").sink(), close_timeout=30)
    assert is_delivered(run)
    assert len(living_deliveries()) == 1


def test_stopped_process_is_replaced_for_later_runs(tmp_path: Path, probes: Callable[[str], Probe]) -> None:
    """A process that reads no requests must not block the runs that start after it hung."""
    train(tmp_path / "first", probes("first").sink(), close_timeout=30)
    (process,) = living_deliveries()
    process.suspend()
    run = train(tmp_path / "second", probes("second").sink(), close_timeout=60)
    assert is_delivered(run)
    assert process.status() == psutil.STATUS_STOPPED


def test_forked_child_holds_no_request_pipe(tmp_path: Path, probe: Probe) -> None:
    train(tmp_path / "run", probe.sink())
    child = os.fork()
    if not child:
        names = [os.readlink(f"/dev/fd/{name}") for name in os.listdir("/dev/fd") if os.path.exists(f"/dev/fd/{name}")]
        (tmp_path / "pipes").write_text(json.dumps([name for name in names if name.startswith("pipe")]))
        os._exit(0)
    os.waitpid(child, 0)
    before = json.loads((tmp_path / "pipes").read_text())
    own = [os.readlink(f"/dev/fd/{name}") for name in os.listdir("/dev/fd") if os.path.exists(f"/dev/fd/{name}")]
    assert len([name for name in own if name.startswith("pipe")]) == len(before) + 1


def test_many_requests_at_once_are_all_delivered(tmp_path: Path, probes: Callable[[str], Probe]) -> None:
    """The requests of long paths do not fit into one write."""
    folder = tmp_path / ("a" * 200) / ("b" * 200)
    runs = [train(folder / f"{number} " / ("c" * 200), probes(f"p{number}").sink()) for number in range(25)]
    wait_until(lambda: all(map(is_delivered, runs)), 60)
    assert len(living_deliveries()) <= 1


def test_resumed_run_replaces_an_earlier_process_whose_credentials_are_refused(tmp_path: Path, probe: Probe) -> None:
    probe.control(refuse="expired token")
    script = """
import sys, pte_tracking as pte
from pte_probe import ProbeSink
with pte.Run(sys.argv[1], sinks=[ProbeSink(folder=sys.argv[2])], close_timeout=0.5) as run:
    run.log_metrics({"loss": 1.0}, 1)
"""
    subprocess.run([sys.executable, "-c", script, tmp_path / "run", probe.folder], check=True, timeout=60)
    earlier = lock.holder(tmp_path / "run" / DELIVERY_LOCK)
    assert earlier is not None
    with pte.Run(tmp_path / "run", sinks=[probe.sink()], resume=True, close_timeout=30) as run:
        step = 1

        def is_replaced() -> bool:
            nonlocal step
            step += 1
            run.log_metrics({"loss": 1.0}, step)
            request_retry(run.directory)
            return holder(run) not in (None, earlier.pid)

        wait_until(is_replaced)
        probe.control()
    assert is_delivered(run)
    assert [point for _, point, _ in probe.points()] == list(range(1, step + 1))
