"""Header and reader of the W&B transaction log."""

from __future__ import annotations

import struct
import zlib

from pte_backends._record_log import BLOCK_BYTES, FULL, LAST, PIECE_HEADER

#: File header: ``:W&B``, a magic number, and the version of the format.
FILE_HEADER = b":W&B" + struct.pack("<HB", 0xBEE1, 0)


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
        block_space = BLOCK_BYTES - position % BLOCK_BYTES
        if block_space < PIECE_HEADER.size:
            position += block_space
            continue
        checksum, size, kind = PIECE_HEADER.unpack_from(content, position)
        piece = content[position + PIECE_HEADER.size : position + PIECE_HEADER.size + size]
        if len(piece) != size or zlib.crc32(bytes([kind]) + piece) != checksum:
            raise ValueError(f"The file is damaged at byte {position}.")
        position += PIECE_HEADER.size + size
        record += piece
        if kind in (FULL, LAST):
            records.append(record)
            record = b""
    return records
