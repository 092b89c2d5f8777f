"""Check for software that a test requires in addition to the Python packages."""

from __future__ import annotations

import os

import pytest


def check_requirement(missing: str | None) -> None:
    """Skip the test if a requirement is missing. Fail instead if ``PTE_REQUIRE_ALL`` is set.

    Args:
        missing: Message that names the missing requirement and the command that installs it. None if all are met.
    """
    if missing and os.environ.get("PTE_REQUIRE_ALL"):
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)
