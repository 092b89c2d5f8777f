"""A training that is killed while it logs a video resumes, and every backend shows each video once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pte_tracking.sinks import JOURNAL, Video, read_effective

pytestmark = pytest.mark.slow

SCRIPT = """
import os, signal, sys
import numpy as np
import pte_tracking as pte
from pte_tracking._runs import attachments
from pte_tracking._runs.writer import RunWriter
from pte_tracking._store.files import create_temporary
first, last, point = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
write, add = attachments.write_atomically, RunWriter.add

def write_half(path, content):
    temporary = create_temporary(path)
    temporary.write_bytes(content[: len(content) // 2])
    os.kill(os.getpid(), signal.SIGKILL)

def die(*args, **options):
    os.kill(os.getpid(), signal.SIGKILL)

with pte.Run("result", sinks=["tensorboard"], resume=True, close_timeout=60) as run:
    run.resume_at(first - 1)
    for step in range(first, last + 1):
        run.log_metrics({"loss": step / 8}, step)
        if step == last and point == "file":
            attachments.write_atomically = write_half
        if step == last and point == "event":
            RunWriter.add = die
        run.log_video("video", np.full((3, 8, 8), 20 * step, np.uint8), step)
    if point == "end":
        os.kill(os.getpid(), signal.SIGKILL)
"""


def train(folder: Path, first: int, last: int, point: str = "") -> int:
    """Log videos from one step to another, and kill the training at a point of the last one."""
    command = [sys.executable, "-c", SCRIPT, str(first), str(last), point]
    return subprocess.run(command, cwd=folder, env=dict(os.environ), check=False, timeout=120).returncode


@pytest.mark.parametrize(("point", "logged"), [("file", 2), ("event", 2), ("end", 3)])
def test_killed_training_resumes_with_complete_videos(tmp_path: Path, point: str, logged: int) -> None:
    assert train(tmp_path, 1, 3, point) == -signal.SIGKILL
    result = tmp_path / "result"
    killed = [event for event, _ in read_effective(result / JOURNAL) if isinstance(event, Video)]
    assert [event.step for event in killed] == list(range(1, logged + 1))
    assert train(tmp_path, 3, 4) == 0
    videos = [event for event, _ in read_effective(result / JOURNAL) if isinstance(event, Video)]
    assert [event.step for event in videos] == [1, 2, 3, 4]
    shown = EventAccumulator(str(result)).Reload().Images("video")
    assert [image.step for image in shown] == [1, 2, 3, 4]
    for event, image in zip(videos, shown, strict=True):
        path = result / event.path
        assert image.encoded_image_string == path.read_bytes()
        with Image.open(path) as picture:
            picture.load()
            assert picture.convert("L").getpixel((0, 0)) == pytest.approx(20 * event.step, abs=1)
    assert {path.name for path in path.parent.glob("[!.]*")} == {f"step_{step}.gif" for step in range(1, 5)}
