"""The file of records that Weights & Biases calls its transaction log.

It is the log format of LevelDB (github.com/google/leveldb/blob/main/doc/log_format.md): blocks of 32 KiB, in which each
piece of a record has a checksum, a length and a kind. Two things differ: the file begins with seven bytes of its own,
which count as part of the first block, and the checksum is zlib's CRC-32 of kind and data.
"""

from __future__ import annotations

import struct
import zlib

#: ``:W&B``, a magic number, and the version of the format.
FILE_HEADER = b":W&B" + struct.pack("<HB", 0xBEE1, 0)
_BLOCK_BYTES = 32 * 1024
_PIECE_HEADER = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def frame(data: bytes, position: int) -> bytes:
    """One record, cut into the pieces that it takes from a position of the file on."""
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
    """All records of a file.

    Raises:
        ValueError: It is no such file, or damaged.
    """
    if not content.startswith(FILE_HEADER):
        raise ValueError("it does not begin as a file of Weights & Biases does")
    records, record, position = [], b"", len(FILE_HEADER)
    while position < len(content):
        block_space = _BLOCK_BYTES - position % _BLOCK_BYTES
        if block_space < _PIECE_HEADER.size:
            position += block_space
            continue
        checksum, size, kind = _PIECE_HEADER.unpack_from(content, position)
        piece = content[position + _PIECE_HEADER.size : position + _PIECE_HEADER.size + size]
        if len(piece) != size or zlib.crc32(bytes([kind]) + piece) != checksum:
            raise ValueError(f"the piece at byte {position} is damaged")
        position += _PIECE_HEADER.size + size
        record += piece
        if kind in (_FULL, _LAST):
            records.append(record)
            record = b""
    return records
