"""Terminal output of programs as pictures."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import SVG_EXPORT_THEME, TerminalTheme
from rich.text import Text

_COLUMNS, _ROWS = 100, 40
_TIMEOUT_SECONDS = 300.0
#: Cursor movements that tqdm uses.
_MOVES = re.compile("(\r|\n|\x1b\\[A)")


def run(command: Sequence[str], folder: Path, capture_when: Callable[[str], bool] | None = None) -> str:
    """Run a program in a terminal until it exits.

    Args:
        command: Program and its arguments.
        folder: Working directory.
        capture_when: Predicate on the screen content. The first content for which the predicate is true is returned
            instead of the final content.

    Returns:
        Screen content with escape sequences for colors.

    Raises:
        RuntimeError: If the program fails, or if ``capture_when`` was never true.
    """
    terminal_fd, program_fd = pty.openpty()
    fcntl.ioctl(program_fd, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, _COLUMNS, 0, 0))
    env = {**os.environ, "TERM": "xterm-256color"}
    program = subprocess.Popen(
        command, cwd=folder, env=env, stdin=program_fd, stdout=program_fd, stderr=program_fd, start_new_session=True
    )
    os.close(program_fd)
    sent, captured, deadline = b"", None, time.monotonic() + _TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        try:
            sent += os.read(terminal_fd, 1 << 16)
        except OSError:  # Reading raises OSError after the program has closed the terminal.
            break
        if captured is None and capture_when is not None and capture_when(text := render_screen(sent)):
            captured = text
    os.close(terminal_fd)
    status = program.wait(20)
    if status or (capture_when and captured is None):
        raise RuntimeError(f"{command} exited with status {status}. Output:\n{render_screen(sent)}")
    return captured or render_screen(sent)


def run_session(folder: Path, *commands: str) -> str:
    """Run commands in a shell, and return each with its output."""
    return "\n".join(f"$ {command}\n{run(['bash', '-c', command], folder)}" for command in commands)


def render_screen(sent: bytes) -> str:
    """Return the screen content after a terminal has received ``sent``."""
    lines: list[str] = [""]
    row, column = 0, 0
    for token in _MOVES.split(sent.decode(errors="ignore")):
        if token == "\r":
            column = 0
        elif token == "\x1b[A":
            row = max(row - 1, 0)
        elif token == "\n":
            row += 1
            if row == len(lines):
                lines.append("")
        else:
            lines[row] = lines[row][:column].ljust(column) + token + lines[row][column + len(token) :]
            column += len(token)
    return "\n".join(line.rstrip() for line in lines).rstrip()


def draw(path: Path, title: str, text: str, theme: TerminalTheme = SVG_EXPORT_THEME) -> None:
    """Draw a terminal window as SVG.

    Args:
        path: Path of the SVG file.
        title: Title of the window.
        text: Content with escape sequences for colors.
        theme: Colors. Defaults to a dark theme.
    """
    text = re.sub(r"/tmp/tmp\w+", "/home/ann", text)
    widest = max(Text.from_ansi(line).cell_len for line in text.splitlines())
    width = min(widest, _COLUMNS) + 1
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    # Rich cuts the lower edge of the last line, such as underscores.
    console.print(Text.from_ansi(f"{text}\n "), overflow="fold")
    svg = console.export_svg(title=title, theme=theme, unique_id=path.stem)
    # The border of Rich is invisible around a light window on a light page.
    svg = svg.replace("rgba(255,255,255,0.35)", "rgba(128,128,128,0.5)")
    # Remove the web font. The picture must not load external files.
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    path.write_text("\n".join(line.strip() for line in svg.splitlines() if line.strip()) + "\n")
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
