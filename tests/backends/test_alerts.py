"""Alerts, received by a real web server and a real mail server."""

from __future__ import annotations

import importlib.util
import json
import logging
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import pte_tracking as pte
from pte_backends.alerts import AlertSink
from pte_backends.alerts._addresses import read_addresses
from pte_tracking._delivery.consumer import SinkConsumer
from pte_tracking._delivery.cursor import Cursor
from pte_tracking._delivery.sync import sync
from pte_tracking._store import events
from pte_tracking._store.events import Status
from pte_tracking._store.manifest import Manifest
from pte_tracking.sinks import Display, EventKind, Sink
from pte_tracking.testing import RecordedRun
from pte_tracking.testing._shown_kinds import ShownKindsContract
from tests import servers
from tests.backends.alert_receivers import MailServer, Webhook
from tests.cli.invocation import invoke
from tests.probe.fixtures import wait_until

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("apprise") is None, reason="apprise is not installed"),
    pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning"),  # imported by apprise
]


@pytest.fixture(scope="module")
def server() -> Iterator[Webhook]:
    with servers.serving(Webhook()) as server:
        yield server


@pytest.fixture(autouse=True)
def webhook(server: Webhook, monkeypatch: pytest.MonkeyPatch) -> Webhook:
    server.alerts.clear()
    monkeypatch.setenv("APPRISE_URLS", server.url)
    return server


def events_of(webhook: Webhook) -> list[str]:
    """Return the titles without the name of the run."""
    return [title.partition(": ")[2] for title in webhook.titles]


class TestShownKinds(ShownKindsContract):
    @pytest.fixture(autouse=True)
    def _keep_webhook(self, webhook: Webhook) -> None:
        self.webhook = webhook

    def make_sink(self, folder: Path) -> Sink:
        return AlertSink(conditions=["a > 5"])

    def read_shown(self, sink: Sink, run_directory: Path) -> Mapping[EventKind, Display | None]:
        assert events_of(self.webhook) == ["started", "finished"]
        return {"status": "native"}


# -- settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"on": ["crashed"]}, "on: expected some of started, finished, .*, got 'crashed'"),
        ({"on": "failed"}, "on: expected a list of strings, got 'failed'"),
        ({"conditions": "loss > 1"}, "conditions: expected a list of strings"),
        ({"conditions": ["loss + 1"]}, "conditions: 'loss . 1' is not a condition"),
        ({"conditions": ["f(loss) > 1"]}, "is not a condition"),
        ({"conditions": ["loss > 'x'"]}, "compares values of different types"),
        ({"conditions": ["1 > 2"]}, "contains no metric"),
        ({"conditions": ["`system/cpu` > 90"]}, "contains a system metric"),
        ({"stalled_after": 0}, "stalled_after: expected a positive number of minutes, got 0"),
        ({"stalled_after": math.nan}, "stalled_after: expected a positive number"),
        ({"stalled_after": "30"}, "stalled_after: expected a number of minutes"),
    ],
)
def test_sink_wrong_argument_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        AlertSink(**arguments)


@pytest.mark.parametrize(
    ("urls", "message"),
    [
        (None, "APPRISE_URLS is not set.*export APPRISE_URLS="),
        (" , ", "APPRISE_URLS is not set"),
        ("hello", r"address 1 \(no scheme\) is not a valid address"),
        ("json://127.0.0.1 bogus://SECRETTOKEN", r"address 2 \(bogus\) is not a valid address.*appriseit.com"),
        ("slack://SECRETTOKEN", r"address 1 \(slack\) is not a valid address"),
    ],
)
def test_run_without_valid_address_raises_at_start(
    urls: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("APPRISE_URLS")
    if urls is not None:
        monkeypatch.setenv("APPRISE_URLS", urls)
    with pytest.raises(ValueError, match=message) as raised:
        pte.Run(tmp_path / "run", sinks=["alerts"]).log_metrics({"a": 1}, 1)
    assert "SECRETTOKEN" not in str(raised.value) + caplog.text


def test_addresses_in_documentation_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "alerts.md").read_text()
    addresses = re.findall(r"^\| .*`(\w+://.*)` \|$", page, re.MULTILINE)
    monkeypatch.setenv("APPRISE_URLS", " ".join(addresses))
    assert len(read_addresses()) == len(addresses) == 7


def test_run_that_another_machine_delivers_needs_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("APPRISE_URLS")
    monkeypatch.setenv("PTE_TRACKING_DELIVERY", "off")
    with pte.Run(tmp_path, sinks=["alerts"], close_timeout=0) as run:
        run.log_metrics({"a": 1}, 1)
    (pending,) = sync(tmp_path, timeout=1)
    assert "PermissionError: APPRISE_URLS is not set" in str(pending)


def test_sink_with_other_options_replaces_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTE_TRACKING_DELIVERY", "off")
    for sink in (AlertSink(), AlertSink(), AlertSink(on=["failed"], conditions=["loss > 1"])):
        with pte.Run(tmp_path, sinks=[sink], resume=True, close_timeout=0) as run:
            run.log_metrics({"a": 1}, 1)
    (entry,) = Manifest.load(tmp_path).sinks
    assert AlertSink(**entry.options) == AlertSink(on=["failed"], conditions=["loss > 1"])


# -- events ------------------------------------------------------------------------------------------------------------


def test_condition_alerts_each_time_it_becomes_true(tmp_path: Path, webhook: Webhook) -> None:
    run = RecordedRun(
        tmp_path / "run", AlertSink(on=[], conditions=["val/loss > 10 and rate > 0 and step > 1", "acc < 0"])
    )
    for step, loss in enumerate([5, 11, 12, 9, math.nan, 13, 14], 1):
        run.log(step, {"acc": 0.5, "rate": 2})
        run.log(step, {"val/loss": loss})
        run.crash()  # whether the condition was true is saved
    run.end()
    assert events_of(webhook) == ["val/loss > 10 and rate > 0 and step > 1"] * 2
    assert [alert["message"].splitlines()[:3] for alert in webhook.alerts] == [
        ["rate: 2", "Step: 2", "Last values: val/loss 11"],
        ["rate: 2", "Step: 6", "Last values: val/loss 13"],
    ]


def test_nan_alerts_once_per_metric_and_start(tmp_path: Path, webhook: Webhook) -> None:
    run = RecordedRun(tmp_path / "run", AlertSink(on=["nan"]))
    run.log(1, {"a": math.nan, "b": math.nan, "c": math.inf})
    run.log(2, {"a": math.nan, "b": 1.0, "d": math.nan})
    run.journal.append(events.RunStarted, run.manifest.id, "run", 2, "host", True)
    run.log(3, {"a": math.nan, **{f"k{number}": math.nan for number in range(6)}})
    run.end()
    assert events_of(webhook) == [
        "a, b: not a number",
        "d: not a number",
        "a, k0, k1, k2, k3 and 2 more: not a number",
    ]
    assert "Last values: a nan, b nan, c inf" in webhook.alerts[0]["message"]


@pytest.mark.parametrize(
    ("status", "error", "title", "line"),
    [
        ("FINISHED", None, "finished", "Step: 3"),
        ("FAILED", "ValueError: odd", "failed", "Error: ValueError: odd"),
        ("KILLED", "SIGTERM", "killed", "Error: SIGTERM"),
    ],
)
def test_end_of_run_is_sent_with_status_and_error(
    status: Status, error: str | None, title: str, line: str, tmp_path: Path, webhook: Webhook
) -> None:
    run = RecordedRun(tmp_path / "my run", AlertSink())
    run.log(3, {"loss": 0.123456789})
    run.journal.append(events.RunEnded, status, error)
    run.end("KILLED")
    assert events_of(webhook) == ["started", title]
    message = webhook.alerts[-1]["message"].splitlines()
    assert line in message
    assert "Last values: loss 0.123457" in message
    assert message[-2:] == ["Host: host", f"Details: pte-tracking show '{tmp_path / 'my run'}'"]


def test_resume_after_unnoticed_kill_sends_both(tmp_path: Path, webhook: Webhook) -> None:
    run = RecordedRun(tmp_path / "run", AlertSink())
    run.log(1, {"a": 1.0})
    run.journal.append(events.RunStarted, run.manifest.id, "run", 2, "host", True)
    run.end()
    assert events_of(webhook) == ["started", "killed", "resumed", "finished"]


def test_more_than_six_alerts_of_a_kind_within_an_hour_are_counted(
    tmp_path: Path, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RecordedRun(tmp_path / "run", AlertSink(on=["finished"], conditions=["a > 0"]))
    for step in range(20):
        run.log(step, {"a": step % 2})
    run.deliver()
    later = time.time() + 3601
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: later)
        run.log(21, {"a": 0})
        run.log(22, {"a": 1})
    run.end()
    assert events_of(webhook) == ["a > 0"] * 7 + ["finished"]
    assert "alert 6 of this kind within an hour. Further ones are not sent before" in webhook.alerts[5]["message"]
    assert "4 alerts of this kind before this one were not sent." in webhook.alerts[6]["message"]


def test_old_alerts_are_sent_as_one_message(tmp_path: Path, webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    earlier = time.time() - 7200
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: earlier)
        run = RecordedRun(tmp_path / "run", AlertSink())
        for step in range(3):
            run.log(step, {f"m{step}": math.nan})
    run.log(4, {"late": math.nan})
    run.end()
    assert events_of(webhook) == ["m2: not a number, and 3 earlier alerts", "late: not a number", "finished"]
    lines = webhook.alerts[0]["message"].splitlines()
    assert lines[0] == "These 4 alerts are more than an hour old:"
    assert [line.partition("  ")[2] for line in lines[1:5]] == ["started", *(f"m{i}: not a number" for i in range(3))]


def test_sync_of_finished_run_sends_alerts_with_options(tmp_path: Path, webhook: Webhook) -> None:
    with pte.Run(tmp_path, sinks=["json"]) as run:
        run.log_metrics({"a": 1}, 1)
    options = ["--option", 'on=["finished"]', "--option", 'conditions=["a > 0"]', "--option", "stalled_after=5"]
    assert invoke("sync", tmp_path, "--to", "alerts", *options).exit_code == 0
    assert events_of(webhook) == ["a > 0", "finished"]


# -- failures ----------------------------------------------------------------------------------------------------------


def poll(consumer: SinkConsumer, status: Status) -> None:
    while consumer.poll(status):
        pass


def test_address_that_fails_repeats_nothing_at_the_other(
    tmp_path: Path, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    with servers.serving(Webhook()) as broken:
        broken.status = 500
        monkeypatch.setenv("APPRISE_URLS", f"{broken.url}, {webhook.url}")
        run = RecordedRun(tmp_path / "run", AlertSink())
        run.journal.append(events.RunEnded, "FAILED", "odd")
        consumer = SinkConsumer(run.directory, run.manifest, run.manifest.sinks[0])
        while consumer.deliver_next():
            pass
        for _ in range(2):
            with pytest.raises(ConnectionError, match=r"address 1 \(json\) did not accept an alert.*500") as raised:
                poll(consumer, "FAILED")
            consumer.record_failure(raised.value)
            assert events_of(webhook) == ["started", "failed"]
        assert Cursor.load(run.directory, "alerts").error
        broken.status = 200
        poll(consumer, "FAILED")
        assert events_of(broken) == events_of(webhook) == ["started", "failed"]
        assert Cursor.load(run.directory, "alerts").error is None


def test_error_of_service_contains_no_part_of_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("APPRISE_URLS", f"json://user:PASSWORD@127.0.0.1:{servers.free_port()}/SECRETTOKEN?-x=QUERYKEY")
    monkeypatch.setenv("PTE_TRACKING_DELIVERY", "off")
    with pte.Run(tmp_path, sinks=["alerts"], close_timeout=0) as run:
        run.log_metrics({"a": 1}, 1)
    (pending,) = sync(tmp_path, timeout=0.5)
    assert "pending end status for alerts (ConnectionError: address 1 (json) did not accept an alert (" in str(pending)
    assert "SECRETTOKEN" not in read_files(tmp_path) + caplog.text
    assert "PASSWORD" not in read_files(tmp_path) + caplog.text
    assert "QUERYKEY" not in read_files(tmp_path) + caplog.text


def read_files(folder: Path) -> str:
    """Return the content of all files in a folder."""
    return "".join(path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file())


# -- processes ---------------------------------------------------------------------------------------------------------

_TRAINING = """
import os, sys
import pte_tracking as pte
from pte_backends.alerts import AlertSink
sink = AlertSink(conditions=["loss > 10"], stalled_after=0.03)
run = pte.Run("result", sinks=[sink], resume=True, close_timeout=60)
for step, line in enumerate(sys.stdin, 1):
    if line == "raise\\n":
        raise ValueError("wrong --api-key TOPSECRET")
    run.log_metrics({"loss": float(line)}, step)
run.close()
"""


class Training:
    """Training process that logs the numbers that it is sent."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _TRAINING], cwd=folder, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def log(self, value: object) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{value}\n")
        self.process.stdin.flush()

    def end(self, number: int | None = None) -> str:
        """End the process, with a signal or by itself, and return its messages."""
        if number is not None:
            self.process.send_signal(number)
        return self.process.communicate(timeout=90)[1]


@pytest.mark.slow
def test_killed_and_failed_training_sends_alerts_when_server_returns(
    tmp_path: Path, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = servers.free_port()
    monkeypatch.setenv("APPRISE_URLS", webhook.url.replace(str(webhook.server_port), str(port)))
    training = Training(tmp_path)
    for value in (1, 11, 12, "nan"):
        training.log(value)
    wait_until(lambda: (tmp_path / "result" / "delivery" / "alerts.json").exists())
    wait_until(lambda: Cursor.load(tmp_path / "result", "alerts").error)
    messages = training.end(signal.SIGKILL)
    with servers.serving(Webhook(port)) as late:
        assert sync(tmp_path / "result", timeout=60) == []
        titles = ["started", "loss > 10", "loss: not a number", "killed"]
        # A suspended test machine lets the stalled process be noticed before it is killed.
        wait_until(lambda: [title for title in events_of(late) if title not in STALLED] == titles)
        training = Training(tmp_path)
        training.log(1)
        training.log("raise")
        messages += training.end()
        assert [title for title in events_of(late) if title not in STALLED] == [*titles, "resumed", "failed"]
        assert "Error: ValueError: wrong --api-key ***" in late.alerts[-1]["message"]
    assert "SECRETTOKEN" not in read_files(tmp_path) + messages


STALLED = ["no progress for 0.03 min", "progress again"]


def is_stall_saved(directory: Path) -> bool:
    """Whether a later delivery process knows that the stall was reported."""
    state = Cursor.load(directory, "alerts").state
    return bool(state["monitor"]["is_stalled"] and state["outbox"]["queues"] == [[]])


@pytest.mark.slow
def test_stopped_training_is_reported_once_also_after_kill_of_delivery(tmp_path: Path, webhook: Webhook) -> None:
    training = Training(tmp_path)
    training.log(1)
    wait_until(lambda: "started" in events_of(webhook))
    time.sleep(1)  # Otherwise, the process may be stopped while it holds a lock for which the delivery waits.
    training.process.send_signal(signal.SIGSTOP)
    wait_until(lambda: STALLED[0] in events_of(webhook))
    wait_until(lambda: is_stall_saved(tmp_path / "result"))
    delivery = json.loads((tmp_path / "result" / "delivery" / "lock").read_text())["pid"]
    os.kill(delivery, signal.SIGKILL)
    training.process.send_signal(signal.SIGCONT)
    for _ in range(200):  # a later log call starts another delivery process
        training.log(2)
        if STALLED[1] in events_of(webhook):
            break
        time.sleep(0.3)
    training.end()
    titles = events_of(webhook)
    assert (titles[0], titles[-1], titles.count("started"), titles.count("finished")) == ("started", "finished", 1, 1)
    stalls = [title for title in titles if title in STALLED]
    assert stalls == STALLED * (len(stalls) // 2)


@pytest.mark.slow
def test_mail_contains_title_and_text(tmp_path: Path, webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    with servers.serving(MailServer()) as mail_server:  # type: ignore[type-var]
        monkeypatch.setenv("APPRISE_URLS", mail_server.url)
        run = RecordedRun(tmp_path / "run", AlertSink(on=["finished"]))
        run.log(1, {"a<b": 1.0})
        run.end()
    (mail,) = mail_server.mails
    assert mail["subject"].endswith(": finished")
    (text,) = [part for part in mail.walk() if part.get_content_type() == "text/plain"]
    assert "Last values: a<b 1" in text.get_content()
