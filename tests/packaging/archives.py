"""Build of the archives of this project."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def build(kind: str, directory: Path, source: Path = ROOT) -> Path:
    """Build an archive.

    Args:
        kind: ``"wheel"`` or ``"sdist"``.
        directory: Directory of the archive.
        source: Directory of the project.
    """
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(directory)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    subprocess.run(command, cwd=source, check=True, capture_output=True, env=environment)
    (archive,) = directory.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return archive
