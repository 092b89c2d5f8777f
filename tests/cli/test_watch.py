"""The option --watch of the command show, in a terminal."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

import pte_tracking as pte
from pte_tracking._cli.show import draw_page
from pte_tracking._runs.summary import summarize
from pte_tracking._store.metrics import summarize_metrics
from tests.cli.invocation import invoke

pty = pytest.importorskip("pty", reason="requires pseudo terminals")
_SECONDS = 60


class Watch:
    """Command in a pseudo terminal."""

    def __init__(self, run: Path) -> None:
        self._fd, terminal = pty.openpty()
        command = [sys.executable, "-m", "pte_tracking._cli", "show", str(run), "--watch"]
        env = os.environ | {"TERM": "xterm", "COLUMNS": "80", "LINES": "60"}
        self.process = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=env)
        os.close(terminal)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._fd, selectors.EVENT_READ)
        self.output = ""

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + _SECONDS
        while text not in self.output and time.monotonic() < deadline:
            self._read(deadline)
        assert text in self.output

    def wait(self) -> int:
        deadline = time.monotonic() + _SECONDS
        while self._read(deadline) and time.monotonic() < deadline:
            pass
        return self.process.wait(_SECONDS)

    def _read(self, deadline: float) -> bool:
        if not self._selector.select(max(deadline - time.monotonic(), 0)):
            return False
        try:
            data = os.read(self._fd, 1 << 16)
        except OSError:  # The command has ended.
            return False
        self.output += data.decode(errors="replace")
        return bool(data)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._selector.close()
        os.close(self._fd)


@pytest.fixture
def open_run(tmp_path: Path) -> Iterator[pte.Run]:
    with pte.Run(tmp_path / "run", sinks=[]) as run:
        run.log_metrics({"loss": 0.5}, 1)
        yield run


def test_show_watch_follows_run_until_it_ends(open_run: pte.Run) -> None:
    watch = Watch(open_run.directory)
    try:
        watch.wait_for("0.5")
        open_run.log_metrics({"loss": 0.125}, 2)
        watch.wait_for("0.125")
        open_run.close()
        assert watch.wait() == 0
        assert "FINISHED" in watch.output
    finally:
        watch.close()


def test_show_watch_interrupt_ends_with_last_page(open_run: pte.Run) -> None:
    watch = Watch(open_run.directory)
    try:
        watch.wait_for("RUNNING")
        watch.process.send_signal(signal.SIGINT)
        assert watch.wait() == 0
        assert "Traceback" not in watch.output
    finally:
        watch.close()


@pytest.mark.parametrize("options", [["--watch"], ["--watch", "--json"]])
def test_show_watch_without_terminal_is_refused(options: list[str], run: Path) -> None:
    result = invoke("show", run, *options)
    assert (result.exit_code, result.stderr) == (
        2,
        "--watch: expected a terminal other than TERM=dumb, and no --json\n",
    )


def test_show_watch_in_low_terminal_leaves_constant_parts_out(open_run: pte.Run) -> None:
    open_run.log_params({f"parameter{number}": number for number in range(30)})
    for step in range(2, 5):
        open_run.log_metrics({"loss": 1 / step}, step)
    metrics = summarize_metrics(open_run.directory)
    summary = summarize(open_run.directory, metrics)
    pages = {
        height: draw_page(Console(width=80, height=height), open_run.directory, summary, metrics).splitlines()
        for height in (25, 40, 100)
    }
    assert ["parameter29" in "".join(page) for page in pages.values()] == [False, False, True]
    assert all(len(page) <= height for height, page in pages.items())
    plots = [sum(line.startswith("│") for line in page) for page in pages.values()]
    assert plots == [6, 15, 15]
