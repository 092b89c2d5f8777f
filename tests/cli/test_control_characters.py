"""Names, values, and damaged lines with control characters, shown in a terminal."""

import json
import os
import sys
from pathlib import Path

import pytest

import pte_tracking as pte
from pte_tracking._cli.rendering import echo
from pte_tracking._store.printable import escape_controls

HOSTILE = "\x1b]0;title\x07\x1b[2J\x9b31m\u202ename\r"


def run_in_terminal(*arguments: str) -> str:
    pty = pytest.importorskip("pty")
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-m", "pte_tracking._cli", *arguments])
    output = b""
    try:
        while chunk := os.read(terminal, 65536):
            output += chunk
    except OSError:  # the other end is closed
        pass
    finally:
        os.close(terminal)
        os.waitpid(child, 0)
    return output.decode()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / f"r{HOSTILE}"
    with pte.Run(directory, sinks=["json"], name=HOSTILE, params={HOSTILE: HOSTILE}) as opened:
        for step in range(1, 4):
            opened.log_metrics({f"loss{HOSTILE}": 1.0 / step}, step)
    with open(directory / "journal.jsonl", "a") as file:
        file.write(f"damaged {HOSTILE}\n")
    (directory / "delivery/log.txt").write_text(f"2024-01-01 00:00:00,000 WARNING {HOSTILE}\n")
    return directory


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        *(
            ("list", ".."),
            ("list", "--json", ".."),
            ("show", "."),
            ("show", "--json", "."),
            ("verify", "."),
            ("sync", "."),
        ),
        *(("compare", ".", "."), ("export", "."), ("export", "--format", "json", "."), ("show", "../missing")),
    ],
    ids=" ".join,
)
def test_command_in_terminal_prints_no_control_characters_of_the_run(
    command: tuple[str, ...], run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run)
    output = run_in_terminal(*(str(run / part) if part.startswith(".") else part for part in command))
    assert output.strip()
    for sequence in ("\x1b]", "\x1b[2J", "\x07", "\x9b", "\u202e"):
        assert sequence not in output


def test_echo_escapes_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    echo(f"{HOSTILE}\t日本語　👩‍🚀\n")
    assert capsys.readouterr().out == "\\u001b]0;title\\u0007\\u001b[2J\\u009b31m\\u202ename\\u000d\\t日本語　👩‍🚀\\n\n"


def test_escape_controls_of_json_keeps_its_meaning() -> None:
    text = json.dumps({"key": HOSTILE}, ensure_ascii=False)
    assert json.loads(escape_controls(text)) == {"key": HOSTILE}
