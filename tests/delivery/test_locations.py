"""Where a run is found in its backends, and messages while its end waits for delivery."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import pte_tracking as pte
from pte_backends.aim import AimSink
from pte_backends.clearml import ClearMLSink
from pte_backends.mlflow import MLflowSink
from pte_backends.swanlab import SwanLabSink
from pte_backends.tensorboard import TensorBoardSink
from pte_tracking._delivery import wait_display
from pte_tracking._delivery.cursor import Cursor, CursorStore
from pte_tracking._delivery.end_wait import EndWait
from pte_tracking._delivery.locations import Announcer, find_location
from pte_tracking._delivery.sink_entries import merge_sink_entries
from pte_tracking._delivery.supervisor import DeliverySupervisor
from pte_tracking._store.layout import DELIVERY
from pte_tracking._store.manifest import Manifest, SinkEntry
from pte_tracking._store.place import Place
from pte_tracking.sinks import Sink
from tests.delivery.test_consumer import Recording
from tests.terminals import Terminal

if TYPE_CHECKING:
    from tests.probe.pte_probe import Probe


@pytest.fixture(autouse=True)
def _log_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="pte_tracking")


def save_run(directory: Path, *sinks: Sink) -> Manifest:
    (directory / DELIVERY).mkdir(parents=True)
    manifest = msgspec.structs.replace(Manifest.new(directory, "test"), sinks=merge_sink_entries(sinks))
    manifest.save(directory)
    return manifest


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("http://me:secret@host:5000/", "mlflow: http://host:5000/#/experiments/7/runs/abc"),
        (
            "sqlite:////data/a b.db",
            "mlflow: run ID abc, open with: mlflow ui --backend-store-uri 'sqlite:////data/a b.db'",
        ),
        ("databricks", "mlflow: run ID abc"),
    ],
)
def test_mlflow_location_is_page_or_command_without_credentials(tmp_path: Path, uri: str, text: str) -> None:
    (entry,) = save_run(tmp_path / "run", MLflowSink(uri)).sinks
    assert find_location(tmp_path / "run", entry) is None
    CursorStore(tmp_path / "run", "mlflow").save(Cursor(state={"run_id": "abc", "experiment_id": "7"}))
    assert str(find_location(tmp_path / "run", entry)) == text


@pytest.mark.parametrize(
    ("sink", "state"),
    [
        (AimSink("with space"), {}),
        (ClearMLSink(), {"folder": "clearml/offline/offline-1"}),
        (SwanLabSink(), {"path": "swanlab/run-1", "run_id": "1"}),
        (TensorBoardSink(), {"file": "events.out.tfevents.1.1"}),
    ],
    ids=lambda value: value.name if isinstance(value, Sink) else "",
)
def test_command_of_location_quotes_path_with_space(sink: Sink, state: dict[str, Any], tmp_path: Path) -> None:
    location = sink.locate(tmp_path / "with space" / "run", state)
    assert location is not None
    words = shlex.split(location.command or "")
    assert [word for word in words if "with space" in word and Path(word).is_absolute()]


def test_tensorboard_location_is_command_with_parent_directory(tmp_path: Path) -> None:
    (entry,) = save_run(tmp_path / "a b" / "run", TensorBoardSink()).sinks
    text = f"tensorboard: open with: tensorboard --logdir '{tmp_path}/a b'"
    assert str(find_location(tmp_path / "a b" / "run", entry)) == text


def test_control_characters_of_run_directory_are_not_printed(tmp_path: Path) -> None:
    (entry,) = save_run(tmp_path / "run", MLflowSink("http://host/\x1b[2J")).sinks
    CursorStore(tmp_path / "run", "mlflow").save(Cursor(state={"run_id": "a\nb", "experiment_id": "7"}))
    assert str(find_location(tmp_path / "run", entry)).isprintable()


@pytest.mark.parametrize("location", ["a text", None], ids=["another type", "an exception"])
def test_faulty_locate_of_a_sink_is_logged_once_and_raises_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, location: Any
) -> None:
    monkeypatch.setattr(TensorBoardSink, "locate", lambda sink, directory, state: location or state["missing"])
    (entry,) = save_run(tmp_path, TensorBoardSink()).sinks
    caplog.clear()
    for _ in range(2):
        assert find_location(tmp_path, entry) is None
        Announcer(tmp_path).announce()
    (message,) = caplog.messages
    assert message.startswith("tensorboard: locate() failed: ")


def test_announcer_logs_each_location_once_when_known(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_run(tmp_path / "run", TensorBoardSink(), MLflowSink("http://host"))
    announcer = Announcer(tmp_path / "run")
    for _ in range(2):
        announcer.announce()
    assert len(caplog.messages) == 1
    CursorStore(tmp_path / "run", "mlflow").save(Cursor(state={"run_id": "abc", "experiment_id": "7"}))
    for _ in range(2):
        announcer.announce()
    assert caplog.messages[1:] == ["mlflow: http://host/#/experiments/7/runs/abc"]


@pytest.mark.parametrize("name", ["gone", "odd"])
def test_announcer_with_sink_that_cannot_be_loaded_logs_other_locations(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    manifest = save_run(tmp_path / "run", TensorBoardSink())
    entries = [SinkEntry(name, name), *manifest.sinks]
    msgspec.structs.replace(manifest, sinks=entries).save(tmp_path / "run")
    Announcer(tmp_path / "run").announce()
    assert caplog.messages == [f"tensorboard: open with: tensorboard --logdir {tmp_path}"]


def test_location_of_run_that_is_opened_again_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("first", "second", "first"):
        with pte.Run(tmp_path / name, sinks=["tensorboard"], resume=(tmp_path / name).exists()) as run:
            run.log_metrics({"loss": 1.0}, 1)
        run.log_metrics({"test/loss": 1.0}, 1)  # after the end
        run.close()
    assert [text for text in caplog.messages if "open with" in text] == [
        f"tensorboard: open with: tensorboard --logdir {tmp_path}"
    ]


def end_wait_of(directory: Path) -> EndWait:
    return EndWait(DeliverySupervisor(directory, Place(directory)), Manifest.load(directory).id)


def test_end_reports_that_it_waits_for_delivery(
    tmp_path: Path, probe: Probe, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wait_display, "_FIRST_MESSAGE_SECONDS", 0.0)
    monkeypatch.setattr(wait_display, "_MESSAGE_SECONDS", 0.05)
    monkeypatch.setattr(DeliverySupervisor, "ensure_running", lambda self: None)
    recording = Recording(tmp_path / "run", probe.sink())
    for step in range(1200):
        recording.row(step, {"a": 1.0})
    end_wait_of(recording.directory).wait(0.5)
    recording.journal.close()
    waiting = [message for message in caplog.messages if message.startswith("Waiting up to ")]
    assert 2 <= len(waiting) <= 12
    assert waiting[0] == "Waiting up to 0 s for delivery: 1,201 pending events for probe (connecting)"
    assert caplog.messages[-1].endswith(f"run: pte-tracking sync {recording.directory}")


def test_end_shows_the_activity_of_a_sink_until_its_first_event(
    tmp_path: Path, probe: Probe, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wait_display, "_FIRST_MESSAGE_SECONDS", 0.0)
    monkeypatch.setattr(DeliverySupervisor, "ensure_running", lambda self: None)
    recording = Recording(tmp_path / "run", probe.sink())
    recording.row(1, {"a": 1.0})
    wait = end_wait_of(recording.directory)
    log = recording.directory / "delivery" / "log.txt"
    log.write_text("2026-12-01 05:34:50,790 INFO probe: creating the database a: b\n")
    wait.wait(0.2)
    recording.deliver(times=1)
    recording.row(2, {"a": 1.0})
    wait.wait(0.2)
    recording.journal.close()
    first, second = [message for message in caplog.messages if message.startswith("Waiting up to ")]
    assert first.endswith(": 2 pending events for probe (creating the database a: b)")
    assert second.endswith(": 1 pending event for probe")


@pytest.fixture(params=[Terminal.columns, 0], ids=["with width", "without width"])
def terminal(request: pytest.FixtureRequest) -> Iterator[Terminal]:
    terminal = Terminal(request.param)
    yield terminal
    terminal.close()


def test_end_on_terminal_redraws_one_line_and_erases_it(
    tmp_path: Path,
    probe: Probe,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    terminal: Terminal,
) -> None:
    monkeypatch.setattr(sys, "stderr", terminal.out)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(wait_display, "_FIRST_LINE_SECONDS", 0.0)
    monkeypatch.setattr(wait_display, "_LINE_SECONDS", 0.02)
    monkeypatch.setattr(DeliverySupervisor, "ensure_running", lambda self: None)
    recording = Recording(tmp_path / "run", probe.sink())
    probe.control(fail="the server is away, and states so in a message that is much longer than the line of a terminal")
    for step in range(20):
        recording.row(step, {"a": 1.0})
    recording.deliver(times=1)
    end_wait_of(recording.directory).wait(0.5)
    recording.journal.close()
    lines = terminal.written().split("\r\x1b[K")
    assert len(lines) > 3
    whole_words = "Waiting up to 0 s (Ctrl-C loses no event): probe: 21 events (ProbeError: ..."
    assert set(lines[1:-1]) == {whole_words}
    assert len(whole_words) < Terminal.columns
    assert all("\n" not in line for line in lines)
    assert terminal.screen() == [""]
    assert not [message for message in caplog.messages if message.startswith("Waiting")]


def test_end_on_terminal_shows_nothing_if_messages_are_turned_off(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, terminal: Terminal
) -> None:
    caplog.set_level(logging.WARNING, "pte_tracking")
    monkeypatch.setattr(sys, "stderr", terminal.out)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(wait_display, "_FIRST_LINE_SECONDS", 0.0)
    wait_display.WaitDisplay().show([], 1.0, {})
    assert terminal.written() == ""


def test_end_does_not_wait_for_sink_that_closed(
    tmp_path: Path, probe: Probe, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = Recording(tmp_path / "run", probe.sink())
    probe.control(closed="the run was deleted")

    def close(self: DeliverySupervisor) -> None:
        self.next_check_time = float("inf")
        recording.deliver()

    monkeypatch.setattr(DeliverySupervisor, "ensure_running", close)
    end_wait_of(recording.directory).wait(600)
    recording.journal.close()
    assert "Not yet delivered: 1 pending event for probe (the run was deleted)" in caplog.text
