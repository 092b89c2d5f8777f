"""Records of an event file.

A record is an ``Event`` message framed as a TFRecord, with the sequence number of its journal event as a label. The
label is a field that TensorBoard's ``Event`` does not define, and that every reader of protocol buffers skips. It
allows truncating a file at any event of the journal without reading the journal. Negative labels belong to samples of
system metrics, which are not in the journal. Label 0 marks records that belong to the file and not to the history. They
are written again in each new file.

A TFRecord consists of the length of its data (8 bytes, little endian), a checksum of the length (4 bytes), the data,
and a checksum of the data (4 bytes); see https://www.tensorflow.org/tutorials/load_data/tfrecord.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pte_backends.tensorboard._checksum import masked_checksum

_HEADER_BYTES, _FOOTER_BYTES = 12, 4
_LENGTH, _CHECKSUM = struct.Struct("<Q"), struct.Struct("<I")
# Field 1000 of type sfixed64: its tag (1000 << 3 | 1) as a two-byte varint, then the number.
_LABEL = struct.Struct("<2sq")
_LABEL_TAG = b"\xc1\x3e"


def encode_record(event: Any, seq: int = 0) -> bytes:
    """Encode an ``Event`` message as a record.

    Args:
        event: ``Event`` message.
        seq: Sequence number for the label. Defaults to 0: the record does not belong to the history.

    Returns:
        The record.
    """
    return _frame(event.SerializeToString() + _LABEL.pack(_LABEL_TAG, seq))


def extract_message(raw: bytes) -> bytes:
    """Return the serialized ``Event`` of a record, including its label.

    Args:
        raw: Record.
    """
    return raw[_HEADER_BYTES:-_FOOTER_BYTES]


def read_records(path: Path, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """Read the complete records of an event file.

    Reading stops before the first record that is truncated or has no label.

    Args:
        path: Event file.
        start: Position of the first record, in bytes. Defaults to 0.

    Yields:
        The label and the record.
    """
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
    """Whether the checksums of a record are correct.

    Args:
        raw: Record.
    """
    return _frame(extract_message(raw)) == raw


def _frame(data: bytes) -> bytes:
    length = _LENGTH.pack(len(data))
    return b"".join(
        (length, _CHECKSUM.pack(masked_checksum(length)), data, _CHECKSUM.pack(masked_checksum(data))),
    )
