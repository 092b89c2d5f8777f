"""Summary values of tables, sounds, and videos."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import msgspec
from tensorboard.compat.proto import summary_pb2

from pte_backends.tensorboard import _values
from pte_tracking.sinks import Audio, Table, Text, Video, read_table

_MAX_ROWS, _MAX_COLUMNS, _MAX_CELL_CHARACTERS = 100, 30, 200
_GIF_SIGNATURES = (b"GIF87a", b"GIF89a")


def convert_table(event: Table, path: Path) -> Text:
    """Convert a table to a Markdown text of at most 100 rows, because TensorBoard does not support tables.

    Args:
        event: Table event.
        path: File of the table.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it does not contain a table.
    """
    table = read_table(path)
    columns = table.columns[:_MAX_COLUMNS]
    rows = [[_format_cell(cell) for cell in row[:_MAX_COLUMNS]] for row in table.data[:_MAX_ROWS]]
    lines = [event.caption, ""] if event.caption else []
    if columns:
        lines += [_join([_format_cell(name) for name in columns]), _join(["---"] * len(columns)), *map(_join, rows)]
    if len(table.data) > len(rows) or len(table.columns) > len(columns):
        shown, total = (len(rows), len(columns)), (len(table.data), len(table.columns))
        lines += ["", f"{shown[0]} of {total[0]:,} rows and {shown[1]} of {total[1]:,} columns are shown."]
    elif not rows:
        lines += ["", "The table is empty."]
    return Text(event.seq, event.time, event.key, event.step, "\n".join(lines))


def build_audio(event: Audio, path: Path) -> Any:
    """Build the value of a sound. TensorBoard has a name for the encoding WAV only.

    Args:
        event: Audio event.
        path: WAV file.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is no WAV file.
    """
    data = path.read_bytes()
    if not data.startswith(b"RIFF"):
        raise ValueError(f"TensorBoard plays WAV files only, got {path.name}.")
    metadata = _values.build_metadata(_values.AUDIO)
    metadata.summary_description = event.caption
    return summary_pb2.Summary.Value(tag=event.key, metadata=metadata, tensor=_values.build_string_vector([data]))


def build_video(event: Video, path: Path) -> Any:
    """Build the value of a video, which TensorBoard shows as an animated image.

    Args:
        event: Video event.
        path: GIF file.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is no GIF file.
    """
    data = path.read_bytes()
    if not data.startswith(_GIF_SIGNATURES) or len(data) < 10:
        raise ValueError(f"TensorBoard plays GIF files only, got {path.name}.")
    width, height = struct.unpack_from("<HH", data, 6)
    picture = summary_pb2.Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=data)
    return summary_pb2.Summary.Value(tag=event.key, image=picture, metadata=_values.build_description(event.caption))


def _format_cell(cell: Any) -> str:
    text = cell if isinstance(cell, str) else "" if cell is None else msgspec.json.encode(cell).decode()
    if len(text) > _MAX_CELL_CHARACTERS:
        text = f"{text[:_MAX_CELL_CHARACTERS]}…"
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")


def _join(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
