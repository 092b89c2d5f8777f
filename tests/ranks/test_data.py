"""Data on several ranks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ranks import data_scenarios
from tests.ranks.forked import on_ranks

pytestmark = pytest.mark.slow


def test_resume_with_other_data_on_one_rank_names_that_rank(tmp_path: Path) -> None:
    (equal, same), (equal_on_rank_1, other) = on_ranks(data_scenarios.resume_with_other_data_on_one_rank, 2, tmp_path)
    assert equal == equal_on_rank_1 == same == []
    assert len(other) == 1
    assert other[0].startswith("loader 'main' (list) on rank 1: the data after the resume differ from those before.")
