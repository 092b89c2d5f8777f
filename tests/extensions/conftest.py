"""Fixtures for tests of extensions: a state saved to a file, and a pseudo-terminal."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import termios
import threading
from collections.abc import Callable, Iterator
from typing import Any, TextIO

import pytest
import torch


@pytest.fixture
def save_and_load() -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Function that saves a state to a file and loads it, as a resume does."""

    def round_trip(state: dict[str, Any]) -> dict[str, Any]:
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        loaded: dict[str, Any] = torch.load(file, weights_only=True)
        return loaded

    return round_trip


class Terminal:
    """Pseudo-terminal whose output is recorded.

    Attributes:
        out: Output stream of the program under test.
        columns: Width in characters.
    """

    columns = 80

    def __init__(self) -> None:
        self._controller_fd, terminal_fd = pty.openpty()
        fcntl.ioctl(terminal_fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, self.columns, 0, 0))
        self.out: TextIO = os.fdopen(terminal_fd, "w", encoding="utf-8")
        self._written = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def close(self) -> None:
        self.out.close()
        self._reader.join()
        os.close(self._controller_fd)

    def written(self) -> str:
        """Close the terminal and return the complete output."""
        if not self.out.closed:
            self.out.close()
            self._reader.join()
        return self._written.decode()

    def screen(self) -> list[str]:
        """Close the terminal and return the lines visible at the end."""
        lines, row, column = [""], 0, 0
        for part in re.findall(r"\x1b\[A|\r|\n|[^\x1b\r\n]+", self.written()):
            if part == "\x1b[A":
                row -= 1
            elif part == "\r":
                column = 0
            elif part == "\n":
                row += 1
                lines += [""] * (row + 1 - len(lines))
            else:
                lines[row] = lines[row].ljust(column)[:column] + part + lines[row][column + len(part) :]
                column += len(part)
        return [line.rstrip() for line in lines]

    def _read(self) -> None:
        try:
            while chunk := os.read(self._controller_fd, 4096):
                self._written += chunk
        except OSError:
            pass  # Linux reports the closed other end as an error.


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    if not terminal.out.closed:
        terminal.close()
