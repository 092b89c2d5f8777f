"""Fixtures for tests of extensions: a state saved to a file, and a pseudo-terminal."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from tests.terminals import Terminal


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


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    if not terminal.out.closed:
        terminal.close()
