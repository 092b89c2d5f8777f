"""The run's journal at MLflow, piece by piece: with it a run goes on, its earlier rows in place, on an empty disk."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from pte_backends.mlflow._artifacts import Files
from pte_tracking.sinks import JOURNAL, AnyEvent, RunView, find_events

FOLDER = "pte/journal"
_CHUNK = 1 << 20
_PIECE = re.compile(r"(\d+)-(\d+)\.jsonl")


def upload(run: RunView, files: Files, position: int, event: AnyEvent) -> int:
    """Store the journal from a position to the end of an event.

    Args:
        run: The run.
        files: The artifacts of the MLflow run.
        position: Up to where it is stored already.
        event: The event; nothing is done if it stands before that.

    Returns:
        Up to where it is stored now.
    """
    path = run.directory / JOURNAL
    ends = (behind for found, behind in find_events(path, type(event), position) if found.seq == event.seq)
    end = next(ends, None)
    if end is None:
        return position
    with open(path, "rb") as source, tempfile.NamedTemporaryFile() as piece:
        source.seek(position)
        _copy(source, piece, end - position)
        piece.flush()
        files.put(Path(piece.name), f"{FOLDER}/{position:015d}-{end:015d}.jsonl")
    return end


def join(pieces: Iterable[Path], target: Path) -> None:
    """Put downloaded pieces together, as far as they are without a gap.

    Args:
        pieces: The files, named by what they hold.
        target: The journal to write.
    """
    spans = {(int(match[1]), int(match[2])): path for path in pieces if (match := _PIECE.fullmatch(path.name))}
    with open(target, "wb") as joined:
        while following := [span for span in spans if span[0] <= joined.tell() < span[1]]:
            longest = max(following, key=lambda span: span[1])
            with open(spans[longest], "rb") as piece:
                piece.seek(joined.tell() - longest[0])
                _copy(piece, joined, longest[1] - joined.tell())


def _copy(source: IO[bytes], target: IO[bytes], size: int) -> None:
    while size and (chunk := source.read(min(size, _CHUNK))):
        target.write(chunk)
        size -= len(chunk)
    if size:
        raise EOFError(f"{source.name} is {size} bytes too short")
