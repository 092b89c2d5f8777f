"""Kinds of events that a backend does not show are recorded and logged once per run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import pte_tracking as pte
from pte_tracking._delivery.cursor import Cursor
from pte_tracking._store import events
from tests.cli.invocation import invoke
from tests.delivery.test_consumer import Recording

if TYPE_CHECKING:
    from tests.probe.pte_probe import Probe


@pytest.fixture
def recording(tmp_path: Path, probe: Probe, monkeypatch: pytest.MonkeyPatch) -> Iterator[Recording]:
    sink = probe.sink()
    monkeypatch.setattr(type(sink), "shows", {"metrics": "native", "params": "artifact", "tags": "native"})
    created = Recording(tmp_path / "run", sink)
    yield created
    created.journal.close()


def log_note(recording: Recording, step: int) -> None:
    recording.journal.append(events.Text, "note", step, "a text")


def test_hidden_kind_is_logged_once_despite_failure_restart_and_resume(
    recording: Recording, probe: Probe, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pte_tracking")
    recording.row(1, {"a": 1.0})
    recording.journal.append(events.Params, {"lr": 0.1})
    log_note(recording, 1)
    recording.deliver()
    log_note(recording, 2)
    probe.control(fail="unavailable")
    recording.deliver(1)
    probe.control()
    recording.deliver()
    recording.finish()
    recording._consumer = None
    recording.journal.append(events.RunStarted, recording.manifest.id, "test", 2, "host", True)
    log_note(recording, 3)
    recording.journal.append(events.RunEnded, "FINISHED", None)
    recording.deliver()
    recording.consumer.finish("FINISHED")
    messages = [message for message in caplog.messages if "not shown" in message]
    assert messages == ["probe: not shown by this backend: texts", "probe: not shown by this backend: final status"]
    assert Cursor.load(recording.directory, "probe").hidden == ["text", "status"]


@pytest.mark.slow
def test_delivery_process_logs_hidden_kinds_and_training_does_not_repeat_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pte.Run(tmp_path, sinks=["tensorboard"], close_timeout=60) as run:
        run.set_tags({"team": "vision"})
        run.set_tags({"team": "language"})
        run.log_metrics({"loss": 1.0}, 1)
    lines = (tmp_path / "delivery" / "log.txt").read_text().splitlines()
    assert [line.partition(" INFO ")[2] for line in lines] == ["tensorboard: not shown by this backend: tags"]
    assert "not shown" not in caplog.text


def test_show_lists_kinds_that_sink_does_not_show(recording: Recording) -> None:
    log_note(recording, 1)
    recording.journal.append(events.Tags, {"team": "vision"})
    recording.journal.append(events.Artifact, "file.txt")
    recording.deliver()
    assert (
        "Not shown by probe, but stored in the run directory: texts, artifacts\n"
        in invoke("show", recording.directory).output
    )


def test_sink_without_declaration_reports_nothing(tmp_path: Path, probe: Probe) -> None:
    recording = Recording(tmp_path / "run", probe.sink())
    log_note(recording, 1)
    recording.deliver()
    assert Cursor.load(recording.directory, "probe").hidden == []
    assert "Not shown" not in invoke("show", recording.directory).output


def test_inline_sink_lists_hidden_kinds_without_message(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pte.Run(tmp_path, sinks=["json"], params={"lr": 0.1}) as run:
        run.log_metrics({"loss": 1.0}, 1)
        run.log_text("note", "a text", 1)
    assert Cursor.load(tmp_path, "json").hidden == ["params", "text", "status"]
    assert [record for record in caplog.records if record.levelname != "DEBUG" and "not shown" in record.message] == []
