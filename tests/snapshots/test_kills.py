"""What a killed training leaves is enough to end as if nobody had killed it."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.snapshots import small_training as small


@pytest.mark.slow
@pytest.mark.parametrize("front_end", small.FRONT_ENDS)
def test_killed_at_any_place_it_ends_alike(front_end: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.snapshots.kills", front_end, tmp_path],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr[-5000:]
