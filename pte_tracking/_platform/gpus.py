"""GPUs as the NVIDIA driver reports them, without a client library and without initializing CUDA."""

from __future__ import annotations

import re
from pathlib import Path

_DRIVER = Path("/proc/driver/nvidia")  # Linux only
_VERSION = re.compile(r"\s(\d{3,}\.\d+(?:\.\d+)?)\s")
_MODEL = re.compile(r"^Model:\s*(.+?)\s*$", re.MULTILINE)


def nvidia_driver(folder: Path = _DRIVER) -> tuple[str, list[str]]:
    """Return the version of the driver, empty if unknown, and the names of the GPUs of this machine.

    Args:
        folder: Directory with the files of the driver.
    """
    try:
        version = _VERSION.search((folder / "version").read_text(errors="replace"))
        texts = [path.read_text(errors="replace") for path in sorted(folder.glob("gpus/*/information"))]
    except OSError:
        return "", []
    return version[1] if version else "", [model[1] for text in texts if (model := _MODEL.search(text))]
