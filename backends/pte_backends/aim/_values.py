"""Conversion of events to objects of Aim."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import aim
import numpy as np
import PIL.Image

from pte_backends._files import find_file
from pte_backends._provenance import read_provenance_file
from pte_tracking.sinks import (
    Audio,
    Figure,
    Histogram,
    Image,
    Provenance,
    RejectedEventError,
    RunView,
    Scalar,
    Text,
)

_MAX_BINS = 512  # of Aim


_AUDIO_SUFFIXES = (".wav", ".mp3", ".flac")  # formats that Aim plays


def build_object(event: Figure | Image | Histogram | Text | Audio, run: RunView) -> Any:
    """Convert an event to an object that Aim tracks.

    Args:
        event: Event to convert.
        run: Run to deliver.

    Returns:
        The object of Aim.

    Raises:
        RejectedEventError: If the file of a picture is missing or damaged.
    """
    if isinstance(event, Text):
        return aim.Text(event.text)
    if isinstance(event, Histogram):
        return _build_distribution(event)
    path = find_file(event, run)
    if isinstance(event, Audio):
        return _build_audio(event, path)
    try:
        with PIL.Image.open(path) as picture:
            return aim.Image(picture, caption=event.caption, format="png")
    except (OSError, ValueError, SyntaxError) as error:  # Pillow raises the last one for a damaged chunk.
        raise RejectedEventError(event.seq, f"File {event.path} is no readable image: {error}") from error


def is_playable(event: Audio) -> bool:
    """Return whether Aim plays the format of a sound."""
    return event.path.endswith(_AUDIO_SUFFIXES)


def _build_audio(event: Audio, path: Path) -> Any:
    return aim.Audio(path.read_bytes(), format=path.suffix.removeprefix("."), caption=event.caption)


def convert_param(value: Scalar) -> Scalar:
    """Return a parameter in a form that Aim stores. Integers of more than 64 bits become text.

    Args:
        value: Value of the parameter.

    Returns:
        The value to store.
    """
    is_large = isinstance(value, int) and not -(2**63) <= value < 2**63
    return str(value) if is_large else value


def _build_distribution(event: Histogram) -> Any:
    """Return a distribution, whose bins have equal widths in Aim."""
    edges = np.linspace(event.edges[0], event.edges[-1], min(len(event.counts), _MAX_BINS) + 1)
    counts = np.asarray(event.counts, dtype=float)
    if len(edges) != len(event.edges) or not np.allclose(edges, event.edges):
        cumulative = np.concatenate([[0.0], np.cumsum(counts)])
        counts = np.diff(np.interp(edges, event.edges, cumulative))
    return aim.Distribution(hist=counts, bin_range=(event.edges[0], event.edges[-1]))


def build_system_params(event: Provenance, run: RunView) -> dict[str, Any]:
    """Build the parameters that Aim shows on the page of the run: the Git repository, packages, and the command.

    Args:
        event: Origin of the session.
        run: Run to deliver.

    Returns:
        The parameters, as Aim's own ``log_system_params`` stores them, without environment variables.
    """
    facts = event.values
    lines = read_provenance_file(event, run, "requirements.txt").splitlines()
    packages = (re.split(r"==| @ |  # ", line) for line in lines)
    params: dict[str, Any] = {
        "packages": {name: version for name, version, *_ in packages},
        "arguments": facts.get("command", "").split()[1:],
        "executable": facts.get("command", "").partition(" ")[0],
    }
    if "git_commit" in facts:
        commit = {"hash": facts["git_commit"], "timestamp": None, "author": None}
        params["git_info"] = {
            "branch": facts.get("git_branch"),
            "remote_origin_url": facts.get("git_remote"),
            "commit": commit,
        }
    return params
