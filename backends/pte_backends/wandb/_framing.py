"""The file of records that Weights & Biases calls its transaction log.

It is the log format of LevelDB (github.com/google/leveldb/blob/main/doc/log_format.md): blocks of 32 KiB, in which each
piece of a record has a checksum, a length and a kind. Two things differ: the file begins with seven bytes of its own,
which count as part of the first block, and the checksum is zlib's CRC-32 of kind and data.
"""

from __future__ import annotations

import struct
import zlib

#: ``:W&B``, a magic number, and the version of the format.
BEGINNING = b":W&B" + struct.pack("<HB", 0xBEE1, 0)
_BLOCK = 32 * 1024
_HEAD = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def frame(data: bytes, position: int) -> bytes:
    """One record, cut into the pieces that it takes from a position of the file on."""
    framed, is_first = b"", True
    while True:
        left = _BLOCK - (position + len(framed)) % _BLOCK
        if left < _HEAD.size:
            framed += bytes(left)
            left = _BLOCK
        piece, data = data[: left - _HEAD.size], data[left - _HEAD.size :]
        kind = (_FULL if is_first else _LAST) if not data else (_FIRST if is_first else _MIDDLE)
        framed += _HEAD.pack(zlib.crc32(bytes([kind]) + piece), len(piece), kind) + piece
        is_first = False
        if not data:
            return framed


def parse(content: bytes) -> list[bytes]:
    """All records of a file.

    Raises:
        ValueError: It is no such file, or damaged.
    """
    if not content.startswith(BEGINNING):
        raise ValueError("it does not begin as a file of Weights & Biases does")
    records, record, position = [], b"", len(BEGINNING)
    while position < len(content):
        left = _BLOCK - position % _BLOCK
        if left < _HEAD.size:
            position += left
            continue
        checksum, size, kind = _HEAD.unpack_from(content, position)
        piece = content[position + _HEAD.size : position + _HEAD.size + size]
        if len(piece) != size or zlib.crc32(bytes([kind]) + piece) != checksum:
            raise ValueError(f"the piece at byte {position} is damaged")
        position += _HEAD.size + size
        record += piece
        if kind in (_FULL, _LAST):
            records.append(record)
            record = b""
    return records
