"""What a test needs beside Python: without it the test is skipped, or fails where everything has to be there."""

from __future__ import annotations

import os

import pytest


def check_requirement(missing: str | None) -> None:
    """Go on, if nothing is missing.

    Args:
        missing: What is, and how one gets it.
    """
    if missing and os.environ.get("PTE_REQUIRE_ALL"):
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)
