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

_HEADER_BYTES, _FOOTER_BYTES = 12, 4
_LENGTH = struct.Struct("<Q")
# Field 1000 of type fixed64, whose tag (1000 << 3 | 1) is these two bytes as a varint; then the number.
_LABEL = struct.Struct("<2sQ")
_LABEL_TAG = b"\xc1\x3e"


def encode_record(event: Any, seq: int = 0) -> bytes:
    """The record of an ``Event`` message."""
    return _frame(event.SerializeToString() + _LABEL.pack(_LABEL_TAG, seq))


def extract_message(raw: bytes) -> bytes:
    """The serialised ``Event`` of a record, its label included."""
    return raw[_HEADER_BYTES:-_FOOTER_BYTES]


def read_records(path: Path, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """The whole records from a position on, each behind its label; it ends before one that is cut or is not ours."""
    with open(path, "rb") as file:
        remaining_bytes = os.fstat(file.fileno()).st_size - start
        file.seek(start)
        while remaining_bytes >= _HEADER_BYTES + _FOOTER_BYTES:
            header = file.read(_HEADER_BYTES)
            length = _LENGTH.unpack_from(header)[0]
            remaining_bytes -= _HEADER_BYTES + length + _FOOTER_BYTES
            if remaining_bytes < 0 or length < _LABEL.size:
                return
            data = file.read(length + _FOOTER_BYTES)
            field, seq = _LABEL.unpack_from(data, length - _LABEL.size)
            if field != _LABEL_TAG:
                return
            yield seq, header + data


def is_intact(raw: bytes) -> bool:
    """Whether a record's checksums hold."""
    return _frame(extract_message(raw)) == raw


def _frame(data: bytes) -> bytes:
    buffer = io.BytesIO()
    RecordWriter(buffer).write(data)
    return buffer.getvalue()
