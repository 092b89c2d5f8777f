"""Files written whole or not at all, and file names made from any key."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

_CHUNK_BYTES = 1 << 20


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file: readers find the old content or the new, and a killed process leaves the old one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def write_durably(path: Path, data: bytes) -> None:
    """Write a file, and wait until it is on the disk."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_file(path: Path) -> None:
    """Wait until all of a file that is written is on the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def sync_directory(directory: Path) -> None:
    """Make what was renamed in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def safe_file_name(key: str) -> str:
    """A file name for a key: the key itself where it is plain and short, else a likeness of it with a digest."""
    plain = re.sub(r"[^\w.=+-]", "_", key, flags=re.ASCII)[:100]
    if plain == key and not key.startswith("."):
        return key
    return f"{plain.lstrip('.')}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def mtime_ns(path: Path) -> int:
    """When a file was changed last, in nanoseconds since the epoch; 0 if it is not there."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    return file_digest(path, hashlib.sha256()).hex()


def file_md5(path: Path) -> bytes:
    """The MD5 of a file's content, for products that know files by it."""
    return file_digest(path, hashlib.md5(usedforsecurity=False))


def file_digest(path: Path, algorithm: hashlib._Hash) -> bytes:
    """The digest of a file's content."""
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK_BYTES):
            algorithm.update(chunk)
    return algorithm.digest()
