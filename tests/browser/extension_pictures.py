"""Pictures of the output of the extensions, from real runs."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Collection
from pathlib import Path

from PIL import Image

from tests.browser import terminal

BROWSER_TESTS = Path(__file__).parent
#: Names of the plots that every_extension.py draws.
PLOT_NAMES = ("loss", "accuracy", "schedules", "statistics", "variables")


def draw(folder: Path, pictures: Path, groups: Collection[str]) -> None:
    """Run the programs and draw the pictures of their output.

    Args:
        folder: Empty directory for the runs.
        pictures: Directory for the pictures.
        groups: ``"plots"``, ``"terminal"``, or both.
    """
    # Copy the programs, so that the pictures show short names and paths.
    for program, name in (("every_extension", "train"), ("diverging", "diverging")):
        shutil.copy(BROWSER_TESTS / f"{program}.py", folder / f"{name}.py")
    shutil.copy(BROWSER_TESTS.parents[1] / "examples" / "digits.py", folder)
    command = "python train.py result"
    if "terminal" in groups:
        is_half_done = re.compile(r"\n8 .*tion: +[1-9]\d%", re.DOTALL)
        screen = terminal.run(
            ["bash", "-c", command], folder, capture_when=lambda text: bool(is_half_done.search(text))
        )
        terminal.draw(pictures / "progress.svg", command, f"$ {command}\n{screen}")
        terminal.draw(pictures / "snapshots.svg", "bash", terminal.run_session(folder, "ls result"))
        failing = "python diverging.py diverged 2>&1 | tail -n 1"
        terminal.draw(
            pictures / "fail_on_non_number.svg", "bash", terminal.run_session(folder, failing, "pte-tracking list")
        )
    else:
        subprocess.run(["bash", "-c", command], cwd=folder, check=True, capture_output=True)
    if "plots" in groups:
        for name in PLOT_NAMES:
            with Image.open(folder / "result" / f"{name}.png") as picture:
                save(picture, pictures / f"{name}.png")


def save(picture: Image.Image, path: Path) -> None:
    """Save a picture with 256 colors, which are enough for charts."""
    picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
