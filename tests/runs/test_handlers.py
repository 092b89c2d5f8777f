"""Calls and exceptions of signal handlers and logging handlers while a run is written."""

import json
import logging
import random
import signal
import subprocess
import sys
import threading

import pytest

import pte_tracking as pte
from pte_tracking._runs.serial_calls import SerialCalls
from pte_tracking._store import events
from pte_tracking._store.journal_reader import read

STEPS = 4000


def journal_events(directory):
    return [event for event, _ in read(directory / "journal.jsonl")]


def rows_of(directory, kind=events.Metrics):
    return [event for event in journal_events(directory) if type(event) is kind]


@pytest.fixture
def alarm():
    """Function that installs a handler of SIGALRM, and another that starts the timer."""
    previous = signal.getsignal(signal.SIGALRM)
    yield lambda handler: signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, previous)


@pytest.fixture
def handle_messages():
    """Function that adds a handler to the root logger until the test ends."""
    added = []

    def add(emit):
        handler = logging.Handler()
        handler.emit = emit
        added.append(handler)
        logging.getLogger().addHandler(handler)

    yield add
    for handler in added:
        logging.getLogger().removeHandler(handler)


@pytest.mark.parametrize("method", ["set_tags", "log_text", "log_metrics"])
def test_call_of_signal_handler_within_a_call_is_logged_once_and_in_order(tmp_path, alarm, method):
    count = 0

    def note(*_):
        nonlocal count
        count += 1
        arguments = {"set_tags": ({f"t{count}": "x"},), "log_text": ("t", "x", count), "log_metrics": ({"t": 1}, count)}
        getattr(run, method)(*arguments[method])
        run.position(1)
        signal.setitimer(signal.ITIMER_REAL, 0.0002)

    with pte.Run(tmp_path, sinks=["json"]) as run:
        alarm(note)
        signal.setitimer(signal.ITIMER_REAL, 0.0002)
        for step in range(1, STEPS + 1):
            run.log_metrics({"loss": 1.0}, step)
        signal.setitimer(signal.ITIMER_REAL, 0)

    written = journal_events(tmp_path)
    assert [event.seq for event in written] == list(range(1, len(written) + 1))
    losses = [event.step for event in written if type(event) is events.Metrics and "loss" in event.values]
    assert losses == list(range(1, STEPS + 1))
    kind = {"set_tags": events.Tags, "log_text": events.Text, "log_metrics": events.Metrics}[method]
    notes = [event for event in written if type(event) is kind and "loss" not in getattr(event, "values", {})]
    assert len(notes) == count > 0
    assert type(written[-1]) is events.RunEnded
    assert len(json.loads((tmp_path / "log").read_text())) == len(rows_of(tmp_path))


class Interruption(BaseException):
    """Exception that no handler for failures catches."""


def count_chained(error, kind):
    """Return the number of exceptions of one kind of which each was raised while the next was handled."""
    count = 0
    while error is not None:
        count += type(error) is kind
        error = error.__context__
    return count


# An exception between the opening of a file and the next statement leaves the file to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("kind", [KeyboardInterrupt, TimeoutError, RuntimeError, Interruption])
def test_exception_of_signal_handler_is_raised_and_doubles_no_row(tmp_path, alarm, kind, monkeypatch):
    is_armed, raised, caught, ignored = False, 0, 0, []
    # Python ignores an exception of a handler that runs within a callback, for example of the garbage collector.
    monkeypatch.setattr(sys, "unraisablehook", lambda problem: ignored.append(problem.exc_type))

    def interrupt(*_):
        nonlocal raised
        if is_armed:
            raised += 1
            raise kind

    alarm(interrupt)
    chance = random.Random(0)
    with pte.Run(tmp_path, sinks=["json"]) as run:
        for step in range(1, STEPS + 1):
            signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-6, 60e-6))
            try:
                is_armed = True
                run.log_metrics({"loss": 1.0}, step)
                is_armed = False
            except kind as error:
                caught += count_chained(error, kind)
            is_armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        run.log_metrics({"loss": 1.0}, STEPS + 1)

    assert caught + ignored.count(kind) == raised
    assert caught > 0
    steps = [event.step for event in rows_of(tmp_path)]
    assert steps == sorted(set(steps))
    assert STEPS + 1 - len(steps) <= raised
    assert [row["iteration"] for row in json.loads((tmp_path / "log").read_text())] == steps


CLOSED_BY_HANDLER = """
import signal, sys
import pte_tracking as pte

def stop(*_):
    run.set_tags({"stopped": "yes"})
    run.close("KILLED")
    sys.exit(7)

run = pte.Run(sys.argv[1], sinks=["json"])
run.open()
signal.signal(signal.SIGALRM, stop)
signal.setitimer(signal.ITIMER_REAL, float(sys.argv[2]))
for step in range(1, 10_000_000):
    run.log_metrics({"loss": 1.0}, step)
"""


@pytest.mark.slow
@pytest.mark.parametrize("milliseconds", [20, 31, 47])
def test_signal_handler_that_closes_the_run_within_a_call_ends_it(tmp_path, milliseconds):
    command = [sys.executable, "-c", CLOSED_BY_HANDLER, str(tmp_path), str(milliseconds / 1000)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 7, done.stderr
    assert "Traceback" not in done.stderr
    written = journal_events(tmp_path)
    assert [event.status for event in written if type(event) is events.RunEnded] == ["KILLED"]
    assert type(written[-1]) is events.RunEnded
    assert sum(type(event) is events.Tags for event in written) == 1
    log = json.loads((tmp_path / "log").read_text())
    assert [row["iteration"] for row in log] == [event.step for event in rows_of(tmp_path)]


FULL_DISK = """
import logging, os, resource, signal, sys, time
import pte_tracking as pte

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
run = pte.Run(sys.argv[1], sinks=["json"])
run.log_metrics({"loss": 1.0}, 1)

class ToRun(logging.Handler):
    def emit(self, record):
        getattr(run, "log_text")("messages", record.getMessage(), 1)

logging.getLogger().addHandler(ToRun())
most = resource.getrlimit(resource.RLIMIT_FSIZE)
size = os.path.getsize(os.path.join(sys.argv[1], "journal.jsonl"))
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, most[1]))
for step in range(2, 6):
    run.log_metrics({"loss": 1.0}, step)
if sys.argv[2] == "again":
    resource.setrlimit(resource.RLIMIT_FSIZE, most)
run.close()
"""


@pytest.mark.slow
@pytest.mark.parametrize("space", ["again", "never"])
def test_logging_handler_that_logs_to_the_run_on_a_full_disk_does_not_block(tmp_path, space):
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path), space]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    rows = [event.step for event in rows_of(tmp_path)]
    assert rows == ([1, 2, 3, 4, 5] if space == "again" else [1])
    if space == "again":
        assert "kept in memory" in rows_of(tmp_path, events.Text)[0].text


def test_logging_handler_that_logs_to_the_run_while_it_opens_is_logged_after_the_start(tmp_path, handle_messages):
    with pte.Run(tmp_path, sinks=["json"]) as run:
        run.log_metrics({"loss": 1.0}, 1)
    second = pte.Run(tmp_path, sinks=["json"])
    handle_messages(lambda record: second.log_text("messages", record.getMessage(), 1))
    second.log_metrics({"loss": 2.0}, 1)
    second.close()

    kinds = [type(event) for event in journal_events(tmp_path)]
    assert kinds == [events.RunStarted, events.Text, events.Metrics, events.RunEnded]
    assert len(list((tmp_path / "previous").iterdir())) == 1


def test_logging_handler_that_logs_to_the_run_while_it_ends_does_not_open_it_again(tmp_path, handle_messages):
    run = pte.Run(tmp_path, sinks=["tensorboard"], close_timeout=0)
    seen = []

    def emit(record):
        seen.append(record.getMessage())
        run.log_text("messages", record.getMessage(), 1)

    handle_messages(emit)
    run.log_metrics({"loss": 1.0}, 1)
    run.close()

    assert any("Not yet delivered" in message for message in seen)
    assert not run.is_open
    assert type(journal_events(tmp_path)[-1]) is events.RunEnded


def test_call_of_another_thread_returns_while_the_call_in_progress_waits_for_it():
    calls = SerialCalls(threading.RLock())
    made, is_returned = [], threading.Event()

    def call_and_return():
        calls._defer(lambda: made.append("deferred"))
        is_returned.set()

    with calls._exclusive():
        thread = threading.Thread(target=call_and_return)
        thread.start()
        assert is_returned.wait(30)
        assert made == []
    thread.join()
    assert made == ["deferred"]
