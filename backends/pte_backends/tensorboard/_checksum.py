"""Checksums of TFRecords.

TensorBoard has the same function, whose import also imports NumPy, fsspec, and boto3 where they are installed. That
takes longer than the delivery of a short run.
"""

from __future__ import annotations

_POLYNOMIAL = 0x82F63B78  # CRC-32C (Castagnoli), with reversed bits
_MASK_DELTA = 0xA282EAD8


def _table_entry(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)
    return byte


_TABLE = [_table_entry(byte) for byte in range(256)]


def masked_checksum(data: bytes) -> int:
    """Return the masked CRC-32C of data.

    Args:
        data: Data of any length.
    """
    table, checksum = _TABLE, 0xFFFFFFFF
    for byte in data:
        checksum = table[(checksum ^ byte) & 0xFF] ^ checksum >> 8
    checksum ^= 0xFFFFFFFF
    return ((checksum >> 15 | checksum << 17) + _MASK_DELTA) & 0xFFFFFFFF
