"""Resumes on several ranks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ranks import resume_scenarios
from tests.ranks.forked import on_ranks

pytestmark = pytest.mark.slow


def test_resume_that_one_rank_refuses_raises_on_all_and_changes_nothing(tmp_path: Path) -> None:
    outcomes = on_ranks(resume_scenarios.fail_to_resume_on_one_rank, 2, tmp_path)
    errors = ["RuntimeError", "ValueError"]
    assert outcomes == [[[1, 0], [error, True], [5, True, 0], [1, 2]] for error in errors]
