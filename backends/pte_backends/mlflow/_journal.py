"""Journal of a run as artifacts of its MLflow run.

The journal is stored in pieces. With it, a run resumes from MLflow on an empty disk and keeps its earlier rows.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from pte_backends.mlflow._artifacts import ArtifactUploader
from pte_tracking.sinks import JOURNAL, AnyEvent, RunView, find_events

JOURNAL_DIRECTORY = "pte/journal"
_CHUNK = 1 << 20
_PIECE_NAME = re.compile(r"(\d+)-(\d+)\.jsonl")


def upload(run: RunView, uploader: ArtifactUploader, position: int, event: AnyEvent) -> int:
    """Store the journal from a position to the end of an event.

    Args:
        run: Run to deliver.
        uploader: Uploader for the artifacts of the MLflow run.
        position: Number of journal bytes that are stored already.
        event: Event to end with. If it ends before ``position``, nothing is stored.

    Returns:
        The number of journal bytes that are stored now.
    """
    path = run.directory / JOURNAL
    ends = (
        end_position
        for candidate, end_position in find_events(path, type(event), position)
        if candidate.seq == event.seq
    )
    end = next(ends, None)
    if end is None:
        return position
    with open(path, "rb") as source, tempfile.NamedTemporaryFile() as piece:
        source.seek(position)
        _copy_bytes(source, piece, end - position)
        piece.flush()
        uploader.upload_file(Path(piece.name), f"{JOURNAL_DIRECTORY}/{position:015d}-{end:015d}.jsonl")
    return end


def join_pieces(pieces: Iterable[Path], target: Path) -> None:
    """Join downloaded pieces up to the first gap.

    Args:
        pieces: Files whose names contain their start and end position.
        target: Journal to write.
    """
    spans = {(int(match[1]), int(match[2])): path for path in pieces if (match := _PIECE_NAME.fullmatch(path.name))}
    with open(target, "wb") as joined:
        while candidates := [span for span in spans if span[0] <= joined.tell() < span[1]]:
            longest = max(candidates, key=lambda span: span[1])
            with open(spans[longest], "rb") as piece:
                piece.seek(joined.tell() - longest[0])
                _copy_bytes(piece, joined, longest[1] - joined.tell())


def _copy_bytes(source: IO[bytes], target: IO[bytes], size_bytes: int) -> None:
    while size_bytes and (chunk := source.read(min(size_bytes, _CHUNK))):
        target.write(chunk)
        size_bytes -= len(chunk)
    if size_bytes:
        raise EOFError(f"{source.name} is {size_bytes} bytes too short.")
