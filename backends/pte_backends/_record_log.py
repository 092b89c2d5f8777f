"""Log of records in the format of LevelDB, as Weights & Biases and SwanLab write it.

Records are split into pieces that fit into blocks of 32 KiB
(https://github.com/google/leveldb/blob/main/doc/log_format.md). There are two differences. The file starts with a
header of seven bytes, which is part of the first block, and the checksum is zlib's CRC-32 of kind and data.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

from pte_tracking.sinks import write_at

BLOCK_BYTES = 32 * 1024
#: Checksum, length, and kind of a piece.
PIECE_HEADER = struct.Struct("<IHB")
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


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
        space = BLOCK_BYTES - (position + len(framed)) % BLOCK_BYTES
        if space < PIECE_HEADER.size:
            framed += bytes(space)
            space = BLOCK_BYTES
        piece = record[start : start + space - PIECE_HEADER.size]
        start += len(piece)
        is_last = start == len(record)
        kind = (FULL if is_last else FIRST) if is_first else (LAST if is_last else MIDDLE)
        framed += PIECE_HEADER.pack(zlib.crc32(piece, zlib.crc32(bytes([kind]))), len(piece), kind) + piece
        is_first = False
    return bytes(framed)


def write_data(fd: int, path: Path, data: bytes, position: int) -> None:
    """Write data at the end of the valid part of a file, completely or not at all.

    Args:
        fd: Descriptor of the file.
        path: Path of the file, for the error message.
        data: Data to write.
        position: Size of the valid part in bytes.

    Raises:
        OSError: If the disk is full.
    """
    if write_at(fd, data, position) < len(data):
        os.ftruncate(fd, position)
        raise OSError(f"{path}: writing {len(data)} bytes failed, the disk may be full.")
