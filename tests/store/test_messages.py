"""Messages of the library, in programs with and without logging set up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

LOG = "import logging; logging.getLogger('pte_tracking').{level}('a message')"


def run_script(*lines: str) -> tuple[str, str]:
    script = "\n".join(["import pte_tracking", *lines])
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return result.stdout, result.stderr


@pytest.mark.parametrize("level", ["info", "warning"])
def test_message_without_logging_setup_appears_once_on_stderr(level: str) -> None:
    assert run_script(LOG.format(level=level)) == ("", "a message\n")


def test_debug_message_without_logging_setup_does_not_appear() -> None:
    assert run_script(LOG.format(level="debug")) == ("", "")


@pytest.mark.parametrize(
    "setup",
    [
        "logging.basicConfig(format='%(levelname)s %(message)s')",
        "handler = logging.StreamHandler()\n"
        "handler.setFormatter(logging.Formatter('%(levelname)s %(message)s'))\n"
        "logging.getLogger('pte_tracking').addHandler(handler)",
    ],
    ids=["root", "own logger"],
)
def test_message_with_handler_of_program_appears_once(setup: str) -> None:
    assert run_script("import logging", setup, LOG.format(level="info")) == ("", "INFO a message\n")


def test_message_after_program_set_level_respects_it() -> None:
    level = "import logging; logging.getLogger('pte_tracking').setLevel('ERROR')"
    assert run_script(level, LOG.format(level="warning")) == ("", "")


def test_message_without_stderr_is_dropped() -> None:
    assert run_script("import sys", "sys.stderr = None", LOG.format(level="warning")) == ("", "")


@pytest.mark.parametrize(("bar", "count"), [("", 0), ("bar = tqdm.tqdm(total=2, ncols=20)", 2)], ids=["no bar", "bar"])
def test_message_creates_lock_of_tqdm_only_for_bars(bar: str, count: int) -> None:
    script = ["import tqdm", bar, LOG.format(level="info"), "print(hasattr(tqdm.tqdm, '_lock'))"]
    out, errors = run_script(*script)
    assert out == f"{bool(bar)}\n"
    lines = errors.splitlines()
    assert "a message" in lines
    assert sum("0/2" in line for line in lines) == count  # drawn again below the message


def test_print_report_without_bar_creates_no_lock_of_tqdm(tmp_path: Path) -> None:
    out, _ = run_script(
        "import tqdm",
        "from pte_tracking import extensions",
        "reports = [extensions.LogReport(), extensions.PrintReport(['epoch', 'loss'])]",
        f"manager = pte_tracking.ExtensionsManager({{}}, 1, reports, out_dir={str(tmp_path)!r}, sinks=[])",
        "for loss in manager.iterations([0.5]):",
        "    pte_tracking.report({'loss': loss})",
        "print(hasattr(tqdm.tqdm, '_lock'))",
    )
    assert out == "epoch       loss\n1           0.5\nFalse\n"
