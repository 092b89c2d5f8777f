"""The delivery process, end to end, with a third-party sink: training and delivery end in every possible way."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from pte_tracking._delivery.backlog import backlog
from pte_tracking._delivery.control import request_retry
from pte_tracking._delivery.cursor import Cursor, cursor_path
from pte_tracking._delivery.delivery_loop import deliver
from pte_tracking._delivery.sync import sync
from pte_tracking._runs.run import Run
from pte_tracking._store import lock
from pte_tracking._store.events import Metrics
from pte_tracking._store.journal import Journal
from pte_tracking._store.journal_reader import read_effective
from pte_tracking._store.layout import DELIVERY_LOCK, DELIVERY_LOG, JOURNAL, MANIFEST, WRITER_LOCK
from pte_tracking._store.manifest import Manifest
from tests.cli.invocation import invoke

if TYPE_CHECKING:
    from tests.probe.pte_probe import Probe

pytestmark = pytest.mark.slow

HEAD = """
import os, select, sys, time
import pte_tracking
from pte_probe import ProbeSink

out, folder = sys.argv[1:]

def start(**options):
    return pte_tracking.Run(out, sinks=["json", ProbeSink(folder=folder)], **{"close_timeout": 10, **options})

def rows(run, first, last, pause=0.0):
    for step in range(first, last):
        run.log_metrics({"a": step / 7}, step)
        time.sleep(pause)

def announce(word):
    print(word, flush=True)

"""


class Stage:
    """A run directory, a probe, and the processes that use the directory."""

    def __init__(self, directory: Path, probe: Probe) -> None:
        self.directory = directory
        self.probe = probe
        self._trainers: list[subprocess.Popen[str]] = []

    def trainer(self, script_body: str) -> subprocess.Popen[str]:
        """Start a training script."""
        script = HEAD + textwrap.dedent(script_body)
        process = subprocess.Popen(
            [sys.executable, "-c", script, self.directory, self.probe.folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._trainers.append(process)
        return process

    def train(self, script_body: str, code: int | None = 0, until: Callable[[], object] | None = None) -> str:
        """Run a training script to its end.

        Args:
            script_body: The script.
            code: Expected exit code. None accepts every exit code.
            until: Condition until which the standard input of the script stays open.

        Returns:
            The standard error output of the script.
        """
        process = self.trainer(script_body)
        if until:
            wait_until(until)
        _, error_output = process.communicate(timeout=60)
        assert code is None or process.returncode == code, error_output
        return error_output

    @property
    def delivery(self) -> int | None:
        """ID of the delivery process, None until the process has written its record to the lock file."""
        holder = lock.holder(self.directory / DELIVERY_LOCK)
        return holder.pid if holder else None

    def wait_for_delivery(self) -> None:
        """Wait until all events are delivered and the delivery lock is free."""
        wait_until(lambda: self.pending == [] and not lock.is_held(self.directory / DELIVERY_LOCK))

    def is_reported(self, problem: str) -> bool:
        """Whether an attempt to deliver has failed with this problem."""
        return (self.directory / MANIFEST).exists() and any(problem in line for line in self.pending)

    def start_failing_run(self, **failure: str) -> int:
        """Train 100 rows with a failing probe. Return the ID of the remaining delivery process."""
        self.probe.control(**failure)
        self.train("with start(close_timeout=0.5) as run:\n    rows(run, 0, 100)\n")
        wait_until(lambda: self.is_reported(*failure.values()))
        process = self.delivery
        assert process
        return process

    @property
    def pending(self) -> list[str]:
        return [str(sink) for sink in backlog(self.directory, Manifest.load(self.directory))]

    def check(self, first: int, last: int) -> None:
        """Check that the journal, the probe and the JSON log contain each row once."""
        expected = [("a", step, step / 7) for step in range(first, last)]
        assert recorded(self.directory) == expected
        assert self.probe.points() == expected
        assert [row["iteration"] for row in json.loads((self.directory / "log").read_text())] == [*range(first, last)]

    def clear(self) -> None:
        for process in self._trainers:
            process.kill()
            process.communicate()
        for path in self.directory.rglob(DELIVERY_LOCK):
            holder = lock.holder(path)
            with contextlib.suppress(ProcessLookupError):  # the process may have ended
                if holder and holder.pid:
                    os.kill(holder.pid, signal.SIGKILL)


def recorded(directory: Path) -> list[tuple[str, int, Any]]:
    rows = [event for event, _ in read_effective(directory / "journal.jsonl") if isinstance(event, Metrics)]
    return [(key, row.step, value) for row in rows for key, value in row.values.items()]


def wait_until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.02)


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


@pytest.fixture
def stage(tmp_path: Path, probe: Probe) -> Iterator[Stage]:
    stage_in_directory = Stage(tmp_path / "run", probe)
    yield stage_in_directory
    stage_in_directory.clear()


# -- end of a run ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "code", "status"),
    [
        ("", 0, "FINISHED"),
        ("sys.exit(0)", 0, "FINISHED"),
        ("sys.exit()", 0, "FINISHED"),
        ("sys.exit(3)", 3, "FAILED"),
        ("sys.exit('a word')", 1, "FAILED"),
        ("sys.exit(143)", 143, "KILLED"),
        ("raise KeyboardInterrupt", -signal.SIGINT, "KILLED"),
        ("1 / 0", 1, "FAILED"),
        ("os.kill(os.getpid(), 9)", -9, "KILLED"),
        ("os.kill(os.getpid(), 15)", -signal.SIGTERM, "KILLED"),
        ("os._exit(0)", 0, "KILLED"),
        ("run.close('FAILED', 'a word')", 0, "FAILED"),
    ],
)
def test_run_end_delivers_all_events_and_status(stage: Stage, end: str, code: int, status: str) -> None:
    stage.train(f"with start() as run:\n    rows(run, 0, 100)\n    {end or 'pass'}\n", code)
    stage.wait_for_delivery()
    stage.check(0, 100)
    assert stage.probe.statuses == [status]
    assert stage.pending == []


@pytest.mark.parametrize(
    ("end", "code", "status"),
    [
        ("", 0, "FINISHED"),
        ("1 / 0", 1, "FAILED"),
        ("raise KeyboardInterrupt", -signal.SIGINT, "KILLED"),
        ("try:\n    1 / 0\nexcept ZeroDivisionError:\n    pass", 0, "FINISHED"),
    ],
)
def test_interpreter_exit_without_with_block_ends_run(stage: Stage, end: str, code: int, status: str) -> None:
    stage.train(f"run = start()\nrows(run, 0, 100)\n{end}\n", code)
    stage.wait_for_delivery()
    stage.check(0, 100)
    assert stage.probe.statuses == [status]


def test_logged_rows_are_delivered_during_training(stage: Stage) -> None:
    stage.trainer("run = start()\nrows(run, 0, 50)\ntime.sleep(60)\n")
    wait_until(lambda: len(stage.probe.points()) == 50)


def test_delivery_process_has_low_priority_and_no_torch(stage: Stage) -> None:
    stage.trainer("import torch\nrun = start()\nrows(run, 0, 5)\nannounce('on')\ntime.sleep(60)\n")
    wait_until(lambda: stage.probe.notes("open"))
    (note,) = stage.probe.notes("open")
    assert note["torch"] is False
    assert note["pid"] == stage.delivery
    assert os.getpriority(os.PRIO_PROCESS, note["pid"]) >= 10


def test_module_in_working_directory_does_not_shadow_delivery_imports(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "msgspec.py").write_text("raise RuntimeError('not this one')")
    stage.train(f"os.chdir({str(tmp_path)!r})\nwith start() as run:\n    rows(run, 0, 5)\n")
    stage.check(0, 5)


# -- crashes of the delivery process -----------------------------------------------------------------------------------


def test_killed_delivery_process_restarts_without_loss_or_duplicates(stage: Stage) -> None:
    script_body = """
    with start() as run:
        step = 0
        while not select.select([sys.stdin], [], [], 0.01)[0]:
            rows(run, step, step + 1)
            step += 1
    """
    trainer = stage.trainer(script_body)
    killed: set[int] = set()
    for _ in range(3):
        before = len(stage.probe.points())
        wait_until(lambda: stage.delivery not in (None, *killed) and len(stage.probe.points()) > before + 20)  # noqa: B023
        killed.add(stage.delivery or 0)
        os.kill(stage.delivery or 0, signal.SIGKILL)
    _, error_output = trainer.communicate(timeout=60)
    stage.wait_for_delivery()
    stage.check(0, len(recorded(stage.directory)))
    assert stage.probe.statuses == ["FINISHED"]
    assert "the delivery process ended, restarting" in error_output


def test_delivery_process_after_sigterm_loses_nothing(stage: Stage) -> None:
    trainer = stage.trainer("with start() as run:\n    rows(run, 0, 100)\n    announce('on')\n    time.sleep(60)\n")
    assert line_of(trainer) == "on"
    wait_until(lambda: stage.delivery)
    os.kill(stage.delivery or 0, signal.SIGTERM)
    trainer.kill()
    trainer.wait()
    assert sync(stage.directory, timeout=60) == []
    stage.check(0, 100)
    assert stage.probe.statuses[-1] == "KILLED"


def test_sync_after_both_processes_are_killed_delivers_rest(stage: Stage) -> None:
    stage.probe.control(fail="away")
    trainer = stage.trainer("with start() as run:\n    rows(run, 0, 300)\n    announce('on')\n    time.sleep(60)\n")
    assert line_of(trainer) == "on"
    wait_until(lambda: stage.delivery)
    os.kill(stage.delivery or 0, signal.SIGKILL)
    trainer.kill()
    trainer.wait()
    assert [sink.key for sink in sync(stage.directory, timeout=0.5)] == ["probe"]
    stage.probe.control()
    assert sync(stage.directory, timeout=60) == []
    stage.check(0, 300)
    assert stage.probe.statuses[-1] == "KILLED"
    assert sync(stage.directory, timeout=60) == []


# -- outages -----------------------------------------------------------------------------------------------------------


def test_close_waits_at_most_timeout_and_delivery_continues(stage: Stage) -> None:
    stage.probe.control(fail="no route to host")
    error_output = stage.train(
        "with start(close_timeout=1.0) as run:\n    rows(run, 0, 100)\n    sys.stdin.read()\n",
        until=lambda: stage.is_reported("no route to host"),
    )
    (line,) = [line for line in error_output.splitlines() if "Not yet delivered" in line]
    assert "for probe (ProbeError: no route to host)" in line
    assert error_output.count("no route to host") == 1
    assert line.endswith(f"pte-tracking sync {stage.directory}")
    assert stage.delivery
    stage.probe.control()
    request_retry(stage.directory)
    stage.wait_for_delivery()
    stage.check(0, 100)
    assert stage.probe.statuses == ["FINISHED"]


def test_interrupted_close_reports_pending_events(stage: Stage) -> None:
    stage.probe.control(fail="no route to host")
    script_body = """
        import signal

        signal.signal(signal.SIGALRM, signal.default_int_handler)  # as Ctrl-C
        run = start(close_timeout=60)
        rows(run, 0, 100)
        signal.setitimer(signal.ITIMER_REAL, 1.0)
        run.close()
    """
    error_output = stage.train(script_body, code=None)
    assert "KeyboardInterrupt" in error_output
    (line,) = [line for line in error_output.splitlines() if "Not yet delivered" in line]
    assert line.endswith(f"pte-tracking sync {stage.directory}")
    assert stage.delivery


def test_sync_after_permission_error_replaces_delivery_process(stage: Stage) -> None:
    first = stage.start_failing_run(refuse="wrong password")
    assert [sink.key for sink in sync(stage.directory, timeout=5)] == ["probe"]
    wait_until(lambda: stage.delivery not in (first, None))
    assert not psutil.pid_exists(first)
    stage.probe.control()
    request_retry(stage.directory)
    stage.wait_for_delivery()
    stage.check(0, 100)
    assert stage.probe.statuses[-1] == "FINISHED"


def test_sync_after_other_error_keeps_delivery_process(stage: Stage) -> None:
    first = stage.start_failing_run(fail="the server is away")
    assert [sink.key for sink in sync(stage.directory, timeout=2)] == ["probe"]
    assert invoke("sync", stage.directory, "--timeout", "0.1").stderr.endswith(
        f"process {first} on {socket.gethostname()} continues to deliver, with the code and the environment of its "
        "start\n"
    )
    assert stage.delivery == first, (
        "the environment of sync may lack a password that the environment of the training has"
    )
    stage.probe.control()
    assert sync(stage.directory, timeout=60) == []


def test_close_with_hanging_sink_returns_after_timeout(stage: Stage) -> None:
    stage.probe.control(hang=60)
    begun = time.monotonic()
    error_output = stage.train("with start(close_timeout=0.5) as run:\n    rows(run, 0, 100)\n")
    assert time.monotonic() - begun < 30
    assert "Not yet delivered: 102 pending events for probe" in error_output


def test_failing_and_hanging_sinks_do_not_delay_other_sinks(stage: Stage, probes: Callable[[str], Probe]) -> None:
    dead, hanging = probes("dead"), probes("hanging")
    dead.control(fail="away")
    hanging.control(hang=60)
    script_body = f"""
    others = [ProbeSink(folder={str(dead.folder)!r}), ProbeSink(folder={str(hanging.folder)!r})]
    run = pte_tracking.Run(out, sinks=["json", *others, ProbeSink(folder=folder)], close_timeout=0)
    rows(run, 0, 100)
    announce("on")
    time.sleep(60)
    """
    stage.trainer(script_body)
    wait_until(lambda: len(stage.probe.points()) == 100)
    assert dead.points() == []
    dead.control()
    hanging.control()
    request_retry(stage.directory)
    wait_until(lambda: len(dead.points()) == 100)
    wait_until(lambda: len(hanging.points()) == 100)


def test_closed_sink_is_reported_once_and_does_not_delay_close(stage: Stage) -> None:
    stage.probe.control(closed="the run was deleted there")
    error_output = stage.train("with start(close_timeout=600) as run:\n    rows(run, 0, 100)\n")
    wait_until(lambda: not lock.is_held(stage.directory / DELIVERY_LOCK))
    assert error_output.count("the run was deleted there") == 1
    assert "Not yet delivered" in error_output
    assert "restarting" not in error_output


def test_rejected_events_are_reported_at_close(stage: Stage) -> None:
    stage.probe.control(bad=[5])
    error_output = stage.train("with start() as run:\n    rows(run, 0, 100)\n")
    stage.wait_for_delivery()
    assert "skipping rejected event 5: the control file says so" in error_output
    assert [step for _, step, _ in stage.probe.points()] == [step for step in range(100) if step != 3]


def test_unavailable_sinks_do_not_delay_other_sinks(stage: Stage) -> None:
    stage.train("with start() as run:\n    rows(run, 0, 10)\n    os.kill(os.getpid(), 9)\n", -9)
    stage.wait_for_delivery()
    path = stage.directory / "run.json"
    manifest = json.loads(path.read_text())
    for key, name in [("lost", "a-lost-one"), ("gone", "gone"), ("odd", "odd"), ("needy", "needy"), ("module", "os")]:
        manifest["sinks"].insert(0, {"key": key, "name": name})
    manifest["sinks"].insert(0, {"key": "unfit", "name": "probe", "options": {"colour": "blue"}})
    second = {"key": "probe-two", "name": "probe-two", "options": {"folder": str(stage.probe.folder / "two")}}
    path.write_text(json.dumps({**manifest, "sinks": [*manifest["sinks"], second]}))
    wait_until(lambda: "probe-two" not in {sink.key for sink in sync(stage.directory, timeout=1)})
    pending = sync(stage.directory, timeout=1)
    assert sorted(sink.key for sink in pending) == ["gone", "lost", "module", "needy", "odd", "unfit"]
    assert all(sink.reason for sink in pending)
    assert (stage.probe.folder / "two" / "0.jsonl").read_text().count('"metrics"') == 10


# -- resumed and archived runs -----------------------------------------------------------------------------------------


def test_resumed_run_reuses_running_delivery_process(stage: Stage) -> None:
    stage.probe.control(fail="away")
    stage.train("with start() as run:\n    rows(run, 0, 50)\n    os.kill(os.getpid(), 9)\n", -9)
    wait_until(lambda: stage.delivery)
    old = stage.delivery
    trainer = stage.trainer(
        "with start(resume=True) as run:\n    rows(run, 50, 100)\n    announce('on')\n    sys.stdin.read()\n"
    )
    assert line_of(trainer) == "on"
    stage.probe.control()
    request_retry(stage.directory)
    wait_until(lambda: len(stage.probe.points()) == 100)
    assert stage.delivery == old
    trainer.communicate(timeout=60)
    stage.wait_for_delivery()
    stage.check(0, 100)
    assert stage.probe.statuses == ["FINISHED"]
    assert {note["run"] for note in stage.probe.notes("open")} == {Manifest.load(stage.directory).id}


def test_finished_sink_receives_events_of_later_training_process(stage: Stage, probes: Callable[[str], Probe]) -> None:
    dead = probes("dead")
    dead.control(fail="away")
    script_body = f"""
    run = pte_tracking.Run(out, sinks=[ProbeSink(folder={str(dead.folder)!r}), ProbeSink(folder=folder)])
    rows(run, 0, 10)
    os._exit(0)
    """
    stage.train(script_body)
    wait_until(lambda: stage.probe.statuses == ["KILLED"])
    # Simulates a training process that started just before. Its lock is the only sign of it.
    held = lock.Lock(stage.directory / WRITER_LOCK)
    journal = Journal(stage.directory / JOURNAL)
    journal.append(Metrics, 10, {"a": 10 / 7})
    journal.close()
    wait_until(lambda: len(stage.probe.points()) == 11)
    held.release()
    dead.control()
    request_retry(stage.directory)
    stage.wait_for_delivery()
    assert dead.points() == stage.probe.points() == recorded(stage.directory)


def test_run_resumed_repeatedly_is_delivered_as_one_run(stage: Stage) -> None:
    for first in range(0, 200, 40):
        stage.train(f"with start(resume=True) as run:\n    rows(run, {first}, {first + 40})\n    os._exit(0)\n")
    stage.train("with start(resume=True) as run:\n    rows(run, 200, 240)\n")
    stage.wait_for_delivery()
    stage.check(0, 240)
    assert stage.probe.statuses[-1] == "FINISHED"
    assert set(stage.probe.statuses) <= {"KILLED", "FINISHED", None}


def test_archived_run_is_delivered_after_new_run_starts(stage: Stage, probes: Callable[[str], Probe]) -> None:
    stage.probe.control(fail="away")
    stage.train("with start() as run:\n    rows(run, 0, 50)\n    os.kill(os.getpid(), 9)\n", -9)
    wait_until(lambda: stage.delivery)
    first = Manifest.load(stage.directory).id
    other = probes("other")
    script_body = "with pte_tracking.Run(out, sinks=['json', ProbeSink(folder=%r)]) as run:\n    rows(run, 0, 7)\n"
    stage.train(script_body % str(other.folder))
    archived = Stage(stage.directory / "previous" / first, stage.probe)
    assert Manifest.load(archived.directory).id == first
    wait_until(lambda: archived.delivery)
    assert len(other.points()) == 7
    stage.probe.control()
    request_retry(archived.directory)
    archived.wait_for_delivery()
    archived.check(0, 50)
    assert archived.pending == []
    assert stage.probe.statuses == ["KILLED"]
    assert {note["run"] for note in stage.probe.notes("open")} == {first}


def test_abandoned_request_does_not_save_cursor(stage: Stage) -> None:
    stage.train("os.environ['PTE_TRACKING_DELIVERY'] = 'off'\nwith start() as run:\n    rows(run, 0, 10)\n")
    stage.probe.control(hang=4)
    deliver(stage.directory, lambda _: Cursor.load(stage.directory, "probe").batch_end > 0)
    saved = cursor_path(stage.directory, "probe").read_bytes()
    # From here on the directory may contain another run, whose cursor has the same file name.
    assert "deliver-probe" in [thread.name for thread in threading.enumerate()]
    wait_until(lambda: "deliver-probe" not in [thread.name for thread in threading.enumerate()])
    assert cursor_path(stage.directory, "probe").read_bytes() == saved
    stage.probe.control()
    assert sync(stage.directory) == []
    stage.check(0, 10)


def test_workers_outliving_training_process_hold_no_lock(stage: Stage) -> None:
    script_body = """
    run = start()
    rows(run, 0, 10)
    if not os.fork():
        time.sleep(60)
        os._exit(0)
    announce(os.getpid())
    os.kill(os.getpid(), 9)
    """
    trainer = stage.trainer(script_body)
    assert line_of(trainer)
    trainer.wait()
    try:
        stage.wait_for_delivery()
        stage.check(0, 10)
        assert stage.probe.statuses == ["KILLED"]
        with Run(stage.directory, resume=True, sinks=[], close_timeout=5):
            pass
    finally:
        for process in psutil.process_iter(["cmdline"]):
            if str(stage.directory) in (process.info["cmdline"] or []) and process.pid != os.getpid():
                process.kill()


def test_data_loader_workers_write_nothing_and_hold_no_lock(stage: Stage) -> None:
    script_body = """
    import torch
    from torch.utils.data import DataLoader, Dataset

    class Data(Dataset):
        def __len__(self):
            return 8

        def __getitem__(self, index):
            run.log_metrics({"worker": index}, index)
            return index

    with start() as run:
        rows(run, 0, 5)
        assert len(list(DataLoader(Data(), num_workers=2))) == 8
        rows(run, 5, 10)
    """
    stage.train(script_body)
    stage.wait_for_delivery()
    stage.check(0, 10)
    assert stage.probe.statuses == ["FINISHED"]


def test_successful_run_leaves_delivery_log_empty(stage: Stage) -> None:
    error_output = stage.train("with start() as run:\n    rows(run, 0, 100)\n")
    stage.wait_for_delivery()
    assert error_output == ""
    assert (stage.directory / DELIVERY_LOG).read_text() == ""
