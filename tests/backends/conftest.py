"""Stores of the backends."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def aim_repository(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Directory of an Aim repository, which all runs share, because its creation takes seconds."""
    return str(tmp_path_factory.mktemp("aim"))
