"""Framing of records in a SwanLab run file.

The format is the log format of LevelDB (https://github.com/google/leveldb/blob/main/doc/log_format.md) with another
header and zlib's CRC-32 of kind and data as the checksum. Records are split into pieces that fit into blocks of 32 KiB.
"""

from __future__ import annotations

import struct
import zlib

#: Identification, magic number, and version of the format. ``swanlab sync`` refuses other versions.
FILE_HEADER = struct.pack("<4sHB", b":SWL", 0xE1D6, 2)
_BLOCK_BYTES = 32 * 1024
_PIECE_HEADER = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def frame(record: bytes, position: int) -> bytes:
    """Frame a record.

    Args:
        record: Serialized record.
        position: Position in the file where the record starts, in bytes.

    Returns:
        The pieces of the record. They start with padding if the current block has no space for a piece.
    """
    framed, start, is_first = bytearray(), 0, True
    while is_first or start < len(record):
        space = _BLOCK_BYTES - (position + len(framed)) % _BLOCK_BYTES
        if space < _PIECE_HEADER.size:
            framed += bytes(space)
            space = _BLOCK_BYTES
        piece = record[start : start + space - _PIECE_HEADER.size]
        start += len(piece)
        is_last = start == len(record)
        kind = (_FULL if is_last else _FIRST) if is_first else (_LAST if is_last else _MIDDLE)
        framed += _PIECE_HEADER.pack(zlib.crc32(piece, zlib.crc32(bytes([kind]))), len(piece), kind) + piece
        is_first = False
    return bytes(framed)
