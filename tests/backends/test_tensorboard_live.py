"""Runs in real TensorBoard servers, running and restarted, with and without the data server."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pte_tracking._runs.run import Run

pytestmark = [
    pytest.mark.slow,
    # The delivery process may end shortly after the run that started it.
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),
]

TIMEOUT_SECONDS = 60.0


def convert_to_json(shown: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Convert tuples to lists, as JSON does."""
    converted: dict[str, list[Any]] = json.loads(json.dumps(shown))
    return converted


def read_table(page: str) -> Any:
    """Return the numbers in the table of a text, or a text without a table."""
    cells = re.findall("<td[^>]*>(.*?)</td>", page)
    return [float(cell) for cell in cells] if cells else page


class Server:
    """TensorBoard server that reloads every second."""

    def __init__(self, directory: Path, load_fast: str) -> None:
        command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(directory), f"--load_fast={load_fast}"]
        command += ["--host", "127.0.0.1", "--port", "0", "--reload_interval", "1"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr
        for line in self.process.stderr:
            if result := re.search(r"at (http://\S+?)/? ", line):
                self.url = result[1]
                return
        raise RuntimeError(f"TensorBoard ended with {self.process.wait()}")

    def stop(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=TIMEOUT_SECONDS)

    def get(self, path: str, body: dict[str, Any] | None = None, **query: Any) -> Any:
        url = f"{self.url}/data/plugin/{path}?{urllib.parse.urlencode(query)}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)

    def read_bytes(self, path: str) -> bytes:
        with urllib.request.urlopen(f"{self.url}/data/plugin/{path}", timeout=60) as response:
            content: bytes = response.read()
        return content

    def points(self) -> dict[str, list[Any]]:
        """Return all points of the run by tag: scalars with values, images and histograms by step, and texts."""
        self.get("timeseries/tags")  # Request of the default page.
        points: dict[str, list[Any]] = {}
        for tag in self.get("scalars/tags").get("result", {}):
            points[tag] = [(step, value) for _, step, value in self.get("scalars/scalars", run="result", tag=tag)]
        for tag in self.get("images/tags").get("result", {}):
            images = self.get("images/images", run="result", tag=tag, sample=0)
            points[tag] = [image["step"] for image in images]
        for tag in self.get("histograms/tags").get("result", {}):
            points[tag] = [step for _, step, _ in self.get("histograms/histograms", run="result", tag=tag)]
        for tag in self.get("text/tags").get("result", []):
            texts = self.get("text/text", run="result", tag=tag)
            points[tag] = [(text["step"], read_table(text["text"])) for text in texts]
        for tag in self.get("audio/tags").get("result", {}):
            points[tag] = [
                sound["step"]
                for sound in self.get("audio/audio", run="result", tag=tag, sample=0)
                if self.read_bytes(f"audio/individualAudio?{sound['query']}").startswith(b"RIFF")
                and sound["contentType"] == "audio/wav"
            ]
        return convert_to_json({tag: result for tag, result in points.items() if result})

    def layout(self) -> list[dict[str, Any]]:
        categories = self.get("custom_scalars/layout").get("category", [])
        return [chart for category in categories for chart in category.get("chart", [])]

    def chart_titles(self) -> list[str]:
        return [chart["title"] for chart in self.layout()]

    def charts(self) -> dict[str, list[str]]:
        return {
            chart["title"]: [
                tag
                for pattern in chart["multiline"]["tag"]
                for tag in self.get("custom_scalars/scalars", run="result", tag=pattern)["tag_to_events"]
            ]
            for chart in self.layout()
        }

    def session(self) -> tuple[dict[str, Any], str, dict[str, float]]:
        """Return the hyperparameters, the status, and the metrics on the HPARAMS page."""
        statuses = [f"STATUS_{status}" for status in ("UNKNOWN", "SUCCESS", "FAILURE", "RUNNING")]
        body = {"startIndex": 0, "sliceSize": 9, "allowedStatuses": statuses, "colParams": []}
        [group] = self.get("hparams/session_groups", body)["sessionGroups"]
        metrics = {value["name"]["tag"]: value["value"] for value in group["metricValues"]}
        return group["hparams"], group["sessions"][0]["status"], metrics


def wait_for_result(get: Callable[[], Any], expected: Any) -> None:
    """Wait until a request returns the expected result. A request may fail while the server reads."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    result: Any = None
    while result != expected and time.monotonic() < deadline:
        try:
            result = get()
        except OSError as error:
            result = error
        if result != expected:
            time.sleep(0.3)
    assert result == expected


@pytest.fixture(params=["true", "false"], ids=["data server", "own reader"])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Server]]:
    """Start a TensorBoard on the parent of the run directory."""
    if request.param == "true" and not pytest.importorskip("tensorboard_data_server").server_binary():
        pytest.skip("TensorBoard's data server is not available for this platform")
    servers: list[Server] = []

    def start() -> Server:
        servers.append(Server(tmp_path, request.param))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def log(run: Run, steps: range, shift: float = 0.0) -> None:
    """Log a row per step. From step 5 on, log additional metrics and media."""
    for step in steps:
        late = {"val/loss": step + shift + 0.25} if step >= 5 else {}
        run.log_metrics({"train/loss": step + shift} | late, step, epoch=step / 4)
        if step >= 5:
            run.log_image("picture", PIL.Image.new("L", (2, 2), step), step)
            run.log_histogram("weights", [0.0, 1.0, step], step)
            run.log_text("note", f"{step + shift}", step)
            run.log_audio("tone", np.zeros(step), step, sample_rate=8000)
            run.log_video("clip", np.full((2, 2, 2), step, np.uint8), step)
            run.log_table("cells", {"value": [step + shift]}, step)


def points(first: range, later_steps: range, shift: float) -> dict[str, list[Any]]:
    """Return the points that ``log(run, first)`` and ``log(run, later_steps, shift)`` produce."""
    steps = [(step, 0.0) for step in first] + [(step, shift) for step in later_steps]
    late = [(step, offset) for step, offset in steps if step >= 5]
    shown: dict[str, list[Any]] = {
        "train/loss": [(step, step + offset) for step, offset in steps],
        "epoch": [(step, step / 4) for step, _ in steps],
        "val/loss": [(step, step + offset + 0.25) for step, offset in late],
        "picture": [step for step, _ in late],
        "weights": [step for step, _ in late],
        "note": [(step, f"<p>{step + offset}</p>") for step, offset in late],
        "tone": [step for step, _ in late],
        "clip": [step for step, _ in late],
        "cells": [(step, [step + offset]) for step, offset in late],
    }
    return {tag: result for tag, result in shown.items() if result}


def test_running_and_fresh_servers_show_run_after_rewind(tmp_path: Path, start: Callable[[], Server]) -> None:
    def shows(first: range, later_steps: range = range(0), shift: float = 0.0) -> None:
        expected = convert_to_json(points(first, later_steps, shift))
        for server in (running, start()):
            wait_for_result(server.points, expected)

    run = Run(tmp_path / "result", sinks=["tensorboard"], params={"lr": 0.5})
    log(run, range(1, 4))
    snapshot = run.position(3)
    log(run, range(4, 9))
    run.log_metrics({"removed/metric": 1.0}, 8)
    running = start()
    wait_for_result(lambda: running.points().get("removed/metric"), [[8, 1.0]])
    run.close("FAILED")
    wait_for_result(lambda: running.session()[:2], ({"lr": 0.5}, "STATUS_FAILURE"))
    assert running.charts() == {"loss": ["train/loss", "val/loss"]}

    resumed = Run(tmp_path / "result", sinks=["tensorboard"], params={"lr": 0.5})
    resumed.open(snapshot)
    resumed.rewind()
    shows(range(1, 4))
    log(resumed, range(4, 7), 0.5)
    shows(range(1, 4), range(4, 7), 0.5)
    resumed.close()
    fresh = start()
    wait_for_result(fresh.session, ({"lr": 0.5}, "STATUS_SUCCESS", {"train/loss": 6.5, "val/loss": 6.75, "epoch": 1.5}))
    wait_for_result(fresh.charts, {"loss": ["train/loss", "val/loss"]})
    wait_for_result(running.charts, {"loss": ["train/loss", "val/loss"]})
    shows(range(1, 4), range(4, 7), 0.5)


def test_running_server_shows_new_run_in_reused_directory(tmp_path: Path, start: Callable[[], Server]) -> None:
    with Run(tmp_path / "result", sinks=["tensorboard"]) as earlier:
        log(earlier, range(1, 9))
        earlier.log_metrics({"removed/metric": 1.0}, 8)
    running = start()
    wait_for_result(lambda: running.points().get("removed/metric"), [[8, 1.0]])
    expected = convert_to_json(points(range(0), range(2, 4), 0.5))
    with Run(tmp_path / "result", sinks=["tensorboard"]) as run:
        log(run, range(2, 4), 0.5)
        wait_for_result(running.points, expected)
    for server in (running, start()):
        time.sleep(1.5)  # Wait for the next reload.
        wait_for_result(server.points, expected)
        wait_for_result(server.chart_titles, ["loss"])  # The archived run is still listed.


def test_non_finite_values_and_unusual_keys_are_shown(tmp_path: Path, start: Callable[[], Server]) -> None:
    unusual_values = {
        "nan": float("nan"),
        "inf": float("inf"),
        "-inf": float("-inf"),
        "学習/損失 %&?#": 0.5,
        " ": 2.0,
        "a//b": 1e30,
    }
    run = Run(tmp_path / "result", sinks=["tensorboard"])
    run.log_metrics(unusual_values, 0)
    run.close()
    server = start()
    wait_for_result(lambda: len(server.points()), len(unusual_values))
    shown = {tag: value for tag, [[_, value]] in server.points().items()}
    assert shown.pop("a//b") == pytest.approx(1e30)
    assert shown == {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity", "学習/損失 %&?#": 0.5, " ": 2.0}


def test_written_events_survive_sigkill_of_writer(tmp_path: Path) -> None:
    code = (
        "import sys, types, pte_backends.tensorboard\n"
        "from pathlib import Path\n"
        "from pte_tracking._store.events import Metrics\n"
        f"run = types.SimpleNamespace(directory=Path({str(tmp_path)!r}), id='0' * 32, start_time=1.0)\n"
        "connection = pte_backends.tensorboard.TensorBoardSink().open(run, {})\n"
        "for seq in range(1, 10**6):\n"
        "    connection.write([Metrics(seq, float(seq), seq, {'a': seq / 3})])\n"
        "    print(seq, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout
        written_seqs = [int(next(writer.stdout)) for _ in range(200)]
        writer.send_signal(signal.SIGKILL)
        written_seqs += map(int, writer.stdout)
    result = EventAccumulator(str(tmp_path), {"scalars": 0}).Reload().Scalars("a")
    assert [event.step for event in result][: len(written_seqs)] == written_seqs
