"""Output of the commands for terminals of different widths, colors, and encodings, and on one line per entry."""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import pte_tracking as pte
from pte_tracking import extensions
from tests.cli.invocation import invoke

pty = pytest.importorskip("pty", reason="requires pseudo terminals")
termios = pytest.importorskip("termios")
fcntl = pytest.importorskip("fcntl")

METRICS = ("train/loss", "val/loss", "val/segmentation/mean_iou", "train/gradient_norm/encoder", "optim/lr/main")
#: Codes of the colors of the theme of the terminal, except black, yellow, and white, and of bold, dim, italic.
READABLE = {"0", "1", "2", "3", "31", "32", "34", "35", "36"}


def run_in_terminal(width: int, folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> str:
    fd, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-m", "pte_tracking._cli", *arguments],
        cwd=folder,
        env={**inherited, "TERM": "xterm-256color", **(env or {})},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    output = b""
    try:
        while chunk := os.read(fd, 1 << 16):
            output += chunk
    except OSError:  # the other end is closed
        pass
    os.close(fd)
    assert process.wait(60) == 0, output
    return output.decode().replace("\r\n", "\n")


def strip_styles(text: str) -> str:
    return re.sub("\x1b\\[[0-9;]*m", "", text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with six runs."""
    folder = tmp_path_factory.mktemp("runs")
    for number in range(6):
        directory = folder / f"augmentation-sweep/lr=0.{number}"
        params = {"optim/lr": number / 10, "note": "long " * 20}
        with pte.Run(directory, sinks=["json", "csv"], params=params, group="augmentation", name=f"r{number}") as run:
            run.set_ranking("val/segmentation/mean_iou", "max")
            for step in range(1, 13):
                values = {key: (number + 1) / (step + index) for index, key in enumerate(METRICS)}
                run.log_metrics(values, 100 * step, epoch=step)
            for step, iou in ((600, 0.75), (1200, 0.5)):
                path = directory / f"snapshot_iter_{step}"
                path.write_bytes(b"weights")
                digest = hashlib.sha256(b"weights").hexdigest()
                run.log_checkpoint(path, step, digest, 7, None, {"val/segmentation/mean_iou": iou, "train/loss": 9.0})
    return folder


COMMANDS = (
    ["list"],
    ["show", "augmentation-sweep/lr=0.1"],
    ["compare", "."],
    ["compare", "augmentation-sweep/lr=0.1", "augmentation-sweep/lr=0.2"],
    ["backends"],
    ["export", "--help"],
)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_command_in_80_columns_divides_no_name_and_uses_readable_colors(command: list[str], folder: Path) -> None:
    output = run_in_terminal(80, folder, *command)
    assert set(";".join(re.findall("\x1b\\[([0-9;]*)m", output)).split(";")) <= READABLE | {""}
    lines = strip_styles(output).splitlines()
    # A line of a message or a path that is copied is divided by the terminal.
    assert all(len(line) <= 80 for line in lines if not line.startswith(("Code: ", "Environment: ", "Delivery: ")))
    if command[0] in ("list", "compare"):
        for number in (1, 2):
            assert any(f" augmentation-sweep/lr=0.{number} " in f"{line} " for line in lines)


@pytest.mark.slow
def test_show_colors_two_curves_and_plots_one_without_colors(folder: Path) -> None:
    colored = run_in_terminal(80, folder, "show", "augmentation-sweep/lr=0.1")
    assert "\x1b[35m──\x1b[0m val/loss\n" in colored
    assert "\x1b[36m──\x1b[0m train/loss\n" in colored
    for env in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        plain = run_in_terminal(80, folder, "show", "augmentation-sweep/lr=0.1", env=env)
        assert "── val/loss\n" in plain
        assert "── train/loss" not in plain
        assert not re.search("\x1b\\[[0-9;]*3[0-9]m", plain)


def test_show_output_without_braille_leaves_the_plot_out(folder: Path) -> None:
    command = [sys.executable, "-m", "pte_tracking._cli", "show", "augmentation-sweep/lr=0.1"]
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    output = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=True).stdout
    assert "Last rows" in output
    assert "?" not in output


def test_show_marks_best_checkpoint_and_names_its_value(folder: Path) -> None:
    lines = invoke("show", folder / "augmentation-sweep/lr=0.1").stdout.splitlines()
    start = lines.index(next(line for line in lines if line.startswith("Checkpoints")))
    header, first, second, note = lines[start + 1 : start + 5]
    assert header.split() == ["Checkpoint", "Step", "Size", "val/segmentation/mean_iou", "Best"]
    assert first.split() == ["snapshot_iter_600", "600", "7", "bytes", "0.75", "best"]
    assert second.split() == ["snapshot_iter_1200", "1200", "7", "bytes", "0.5"]
    assert note == "Best: highest val/segmentation/mean_iou, as a mean since the previous snapshot."


def test_show_of_snapshots_without_the_metric_of_keep_best_says_so(tmp_path: Path) -> None:
    saved = extensions.snapshot(trigger=(1, "iteration"), keep_best=("val_loss", "min", 1))
    manager = pte.ExtensionsManager({}, max_iterations=2, extensions=[saved], out_dir=tmp_path, sinks=[])
    for _ in manager.iterations([1, 2]):
        pte.report({"val/loss": 1.0})
    assert "Best: none, because no snapshot has a finite value of val_loss.\n" in invoke("show", tmp_path).stdout


def test_show_without_ranking_names_the_metric_of_checkpoints(tmp_path: Path) -> None:
    with pte.Run(tmp_path, sinks=[]) as run:
        (tmp_path / "snapshot").write_bytes(b"weights")
        run.log_checkpoint("snapshot", 5, "0" * 64, 7, None, {"val/loss": 0.25, "train/loss": 0.5})
    output = invoke("show", tmp_path).stdout
    assert "val/loss: latest value at the snapshot, not a mean over an interval.\n" in output
    assert "Best" not in output
    assert [line.split()[-1] for line in output.splitlines() if line.startswith(" snapshot")] == ["0.25"]


MULTILINE = "first\nsecond\tthird\x1b[31m"
ESCAPED = "first\\nsecond\\tthird\\u001b[31m"


def test_text_of_a_run_is_printed_on_one_line(tmp_path: Path) -> None:
    for number in range(2):
        params = {"note": f"{MULTILINE}{number}", f"key{MULTILINE}": number}
        directory = tmp_path / f"run{number}"
        with pte.Run(directory, sinks=["json"], name=MULTILINE, group=f"{MULTILINE}{number}", params=params) as run:
            for step in (1, 2):
                run.log_metrics({f"loss{MULTILINE}": step / 10}, step)
    shown = invoke("show", tmp_path / "run0").stdout.splitlines()
    assert shown[0].startswith(f"{ESCAPED}  FINISHED")
    assert f"Group: {ESCAPED}0" in shown
    assert f" ── loss{ESCAPED}" in shown
    listed = invoke("list", tmp_path).stdout.splitlines()
    assert len(listed) == 3
    assert all(f"{ESCAPED}{number} " in line for number, line in enumerate(listed[1:]))
    compared = invoke("compare", tmp_path).stdout
    assert " note            " in compared
    assert f"{ESCAPED}0" in compared
    for text in (*shown, *listed, compared):
        assert "first\n" not in text
        assert "\x1b" not in text
    error = invoke("list", tmp_path, "--best", MULTILINE).stderr
    assert len(error.splitlines()) == 1


def test_name_with_codes_of_emojis_is_printed_unchanged(tmp_path: Path) -> None:
    with pte.Run(tmp_path, sinks=[], name="a:rocket:b", params={":smile:": "[bold]x"}):
        pass
    output = invoke("show", tmp_path).stdout
    assert output.startswith("a:rocket:b  FINISHED")
    assert [line.split() for line in output.splitlines() if ":smile:" in line] == [[":smile:", "[bold]x"]]


def test_list_shows_best_value_of_metric_that_ranks_snapshots(tmp_path: Path) -> None:
    for name, lowest in (("first", 2.0), ("second", 1.0)):
        with pte.Run(tmp_path / name, sinks=[]) as run:
            run.log_metrics({"val/loss": 0.5, "val/distance_score": lowest}, 1)
            run.log_metrics({"val/loss": 0.6, "val/distance_score": 3.0}, 2)
            run.set_ranking("val/distance_score", "min")
    runs = json.loads(invoke("list", tmp_path, "--json", "--sort", "val/distance_score").stdout)
    assert [item["best"] for item in runs] == [
        {"key": "val/distance_score", "value": 1.0, "step": 1},
        {"key": "val/distance_score", "value": 2.0, "step": 1},
    ]
    assert "Best val/distance_score" in invoke("list", tmp_path).stdout
    (_, other) = json.loads(invoke("list", tmp_path, "--json", "--best", "val/loss").stdout)
    assert other["best"]["value"] == 0.5
