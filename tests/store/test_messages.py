"""Messages of the library, in programs with and without logging set up."""

from __future__ import annotations

import subprocess
import sys

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
