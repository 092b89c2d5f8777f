"""Pseudo-terminals for tests."""

from __future__ import annotations

import os
import re
import struct
import threading
from typing import TextIO

import pytest


class Terminal:
    """Pseudo-terminal whose output is recorded.

    Args:
        columns: Width in characters that the terminal reports.
        rows: Height in lines that the terminal reports.

    Attributes:
        out: Output stream of the program under test.
    """

    columns = 80

    def __init__(self, columns: int = columns, rows: int = 24) -> None:
        fcntl, pty, termios = (pytest.importorskip(name) for name in ("fcntl", "pty", "termios"))
        self._controller_fd, terminal_fd = pty.openpty()
        fcntl.ioctl(terminal_fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
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
        for part in re.findall(r"\x1b\[[AK]|\r|\n|[^\x1b\r\n]+", self.written()):
            if part == "\x1b[A":
                row -= 1
            elif part == "\x1b[K":
                lines[row] = lines[row][:column]
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
