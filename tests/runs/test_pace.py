"""The delivery takes little of a machine whose cores are all in use."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pte_tracking._delivery import throttle

TICKS = os.sysconf("SC_CLK_TCK")


@pytest.fixture
def stat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the machine tells of its processors: user, nice, system, idle and waiting ticks."""
    path = tmp_path / "stat"
    path.write_text("cpu  0 0 0 0 0 0\ncpu0 0\n")
    monkeypatch.setattr(throttle, "_STAT", path)
    monkeypatch.setattr(throttle, "_LOOK_EVERY", 0.0)
    return path


@pytest.mark.parametrize(("cores_idle", "is_short"), [(0.0, True), (1.0, True), (2.0, False), (64.0, False)])
def test_it_rests_where_cores_are_short_and_only_there(stat: Path, cores_idle: float, is_short: bool) -> None:
    made = throttle.Pace()
    begun = time.monotonic()
    time.sleep(0.5)  # of which the machine may take a part before the pace is asked
    ticks = int((time.monotonic() - begun) * cores_idle * TICKS)
    stat.write_text(f"cpu  5 0 0 {ticks - ticks // 3} {ticks // 3} 0\n")
    assert (made.pause(0.1) > 1.0) == is_short


def test_it_never_rests_longer_than_some_seconds(stat: Path) -> None:
    made = throttle.Pace()
    time.sleep(0.1)
    assert made.pause(1000.0) == 5.0


@pytest.mark.parametrize("told", [None, "", "intr 1\n", "cpu  a b c d e\n"])
def test_where_the_machine_does_not_tell_it_does_not_rest(stat: Path, told: str | None) -> None:
    stat.unlink()
    if told is not None:
        stat.write_text(told)
    assert throttle.Pace().pause(1.0) == 0.0


@pytest.mark.parametrize(
    ("worked", "is_small", "rests"),
    [(0.01, True, 0.99), (0.2, True, 3.8), (10.0, True, 60.0), (0.2, False, 0.8), (10.0, False, 0.0)],
)
def test_a_server_is_left_to_others_the_longer_the_slower_it_is(worked: float, is_small: bool, rests: float) -> None:
    assert throttle.turn(worked, is_small=is_small) == pytest.approx(max(rests, 0.0))
