"""Records of an event file: ``Event`` messages framed as TFRecords, each labelled with the ``seq`` that it came from.

The label travels as a field that TensorBoard's ``Event`` does not have; every reader of protocol buffers skips
such fields. Thanks to it a file can be cut at any event of the journal by looking at nothing but the file.
Label 0 marks what belongs to the file and not to the history: it is made anew whenever the file is.

A TFRecord is the length of its data (8 bytes, little endian), a checksum of the length (4), the data, and a checksum of
the data (4); see https://www.tensorflow.org/tutorials/load_data/tfrecord.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tensorboard.summary.writer.record_writer import RecordWriter

_HEAD, _FOOT = 12, 4
_LENGTH = struct.Struct("<Q")
# Field 1000 of type fixed64, whose tag (1000 << 3 | 1) is these two bytes as a varint; then the number.
_LABEL = struct.Struct("<2sQ")
_FIELD = b"\xc1\x3e"


def record(event: Any, seq: int = 0) -> bytes:
    """The record of an ``Event`` message."""
    return _framed(event.SerializeToString() + _LABEL.pack(_FIELD, seq))


def message(raw: bytes) -> bytes:
    """The serialised ``Event`` of a record, its label included."""
    return raw[_HEAD:-_FOOT]


def read(path: Path, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """The whole records from a position on, each behind its label; it ends before one that is cut or is not ours."""
    with open(path, "rb") as file:
        left = os.fstat(file.fileno()).st_size - start
        file.seek(start)
        while left >= _HEAD + _FOOT:
            head = file.read(_HEAD)
            length = _LENGTH.unpack_from(head)[0]
            left -= _HEAD + length + _FOOT
            if left < 0 or length < _LABEL.size:
                return
            rest = file.read(length + _FOOT)
            field, seq = _LABEL.unpack_from(rest, length - _LABEL.size)
            if field != _FIELD:
                return
            yield seq, head + rest


def is_intact(raw: bytes) -> bool:
    """Whether a record's checksums hold."""
    return _framed(message(raw)) == raw


def _framed(data: bytes) -> bytes:
    buffer = io.BytesIO()
    RecordWriter(buffer).write(data)
    return buffer.getvalue()
