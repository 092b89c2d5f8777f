"""Framing of records in the W&B transaction log.

The format is the log format of LevelDB (https://github.com/google/leveldb/blob/main/doc/log_format.md): blocks of
32 KiB, in which each piece of a record has a checksum, a length and a kind. There are two differences. The file starts
with a header of seven bytes, which is part of the first block, and the checksum is zlib's CRC-32 of kind and data.
"""

from __future__ import annotations

import struct
import zlib

#: File header: ``:W&B``, a magic number, and the version of the format.
FILE_HEADER = b":W&B" + struct.pack("<HB", 0xBEE1, 0)
_BLOCK_BYTES = 32 * 1024
_PIECE_HEADER = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def frame(data: bytes, position: int) -> bytes:
    """Frame a record.

    Args:
        data: Serialized record.
        position: Position in the file where the record starts, in bytes.

    Returns:
        The pieces of the record, with padding at the end of a block.
    """
    encoded, is_first = b"", True
    while True:
        block_space = _BLOCK_BYTES - (position + len(encoded)) % _BLOCK_BYTES
        if block_space < _PIECE_HEADER.size:
            encoded += bytes(block_space)
            block_space = _BLOCK_BYTES
        piece, data = data[: block_space - _PIECE_HEADER.size], data[block_space - _PIECE_HEADER.size :]
        kind = (_FULL if is_first else _LAST) if not data else (_FIRST if is_first else _MIDDLE)
        encoded += _PIECE_HEADER.pack(zlib.crc32(bytes([kind]) + piece), len(piece), kind) + piece
        is_first = False
        if not data:
            return encoded


def parse(content: bytes) -> list[bytes]:
    """Parse all records of a file.

    Args:
        content: Content of the file.

    Returns:
        The serialized records.

    Raises:
        ValueError: If the file has another format or is damaged.
    """
    if not content.startswith(FILE_HEADER):
        raise ValueError("The file is not a Weights & Biases transaction log.")
    records, record, position = [], b"", len(FILE_HEADER)
    while position < len(content):
        block_space = _BLOCK_BYTES - position % _BLOCK_BYTES
        if block_space < _PIECE_HEADER.size:
            position += block_space
            continue
        checksum, size, kind = _PIECE_HEADER.unpack_from(content, position)
        piece = content[position + _PIECE_HEADER.size : position + _PIECE_HEADER.size + size]
        if len(piece) != size or zlib.crc32(bytes([kind]) + piece) != checksum:
            raise ValueError(f"The file is damaged at byte {position}.")
        position += _PIECE_HEADER.size + size
        record += piece
        if kind in (_FULL, _LAST):
            records.append(record)
            record = b""
    return records
