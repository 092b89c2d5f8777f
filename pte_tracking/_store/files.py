"""Atomic and durable file operations, digests, and safe file names."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from pathlib import Path

from pte_tracking._platform.files import replace_file, sync_directory, sync_file
from pte_tracking._store.printable import describe_value

_CHUNK_BYTES = 1 << 20
#: Names that Windows refuses, also with an extension.
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def absolute_path(path: str | os.PathLike[str], directory: Path) -> Path:
    """Return an absolute path: below a directory if the path leads there through symbolic links.

    Args:
        path: Path. The last part may be a symbolic link, which is not followed.
        directory: Real path of the directory.

    Raises:
        TypeError: If ``path`` is not a path.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path: expected a path, got {describe_value(path)}")
    whole = Path(os.path.abspath(path))
    real = Path(os.path.realpath(whole.parent), whole.name)
    return real if directory in real.parents and directory not in whole.parents else whole


def write_atomically(path: Path, data: bytes, *, is_durable: bool = False) -> None:
    """Replace a file atomically.

    Readers see either the old or the new content, even if the process is killed.

    Args:
        path: File to create or replace.
        data: New content.
        is_durable: Whether the new content survives a loss of power. Otherwise, the file may be empty after it.

    Raises:
        OSError: If the file cannot be written. The old content is kept.
    """
    temporary = create_temporary(path)
    try:
        (write_durably if is_durable else Path.write_bytes)(temporary, data)
        replace_file(temporary, path)
        if is_durable:
            sync_directory(path.parent)
    except BaseException:  # also an exception of a signal handler
        temporary.unlink(missing_ok=True)
        raise


def create_temporary(path: Path) -> Path:
    """Create an empty file next to a path, under a hidden name that no other program can have prepared.

    Args:
        path: File that the new one will replace.

    Raises:
        OSError: If the file cannot be created.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    return temporary


def write_durably(path: Path, data: bytes) -> None:
    """Write a new file and flush it to disk."""
    path.unlink(missing_ok=True)  # a crash may have left it
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_tree(path: Path) -> None:
    """Flush a file, or a directory and all files in it, to disk."""
    if not path.is_dir():
        sync_file(path)
        return
    for entry in path.iterdir():
        sync_tree(entry)
    sync_directory(path)


def make_durable_directory(directory: Path) -> None:
    """Create a directory and its missing parents, so that they survive a loss of power. It may exist.

    Args:
        directory: Directory to create.

    Raises:
        OSError: If the directory cannot be created.
    """
    if directory.is_dir():
        return
    make_durable_directory(directory.parent)
    directory.mkdir(exist_ok=True)
    sync_directory(directory.parent)


def safe_file_name(key: str) -> str:
    """Return a file name for a key.

    Args:
        key: Any string.

    Returns:
        The key itself if it has at most 100 characters, all of them ASCII letters, digits, or ``_.=+-``, no leading or
        trailing period, and is not the name of a device on Windows. Otherwise a similar name with a digest of the key.

    Example:
        >>> from pte_tracking.sinks import safe_file_name
        >>> safe_file_name("loss")
        'loss'
        >>> safe_file_name("val/loss")
        'val_loss-cd4153b9'
    """
    plain = re.sub(r"[^\w.=+-]", "_", key, flags=re.ASCII)[:100]
    is_device = _DEVICE.fullmatch(key) is not None
    if plain == key and not is_device and key.strip(".") == key:
        return key
    digest = hashlib.sha256(key.encode()).hexdigest()[:8]
    return f"{'_' * is_device}{plain.strip('.')}-{digest}"


def mtime_ns(path: Path) -> int:
    """Return the modification time of a file in nanoseconds since the Unix epoch, or 0 if it does not exist."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def file_sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    return file_digest(path, hashlib.sha256()).hex()


def file_md5(path: Path) -> bytes:
    """Return the MD5 of a file, which some object stores use as a checksum.

    Args:
        path: File to read.

    Returns:
        The 16 bytes of the digest.

    Raises:
        OSError: If the file cannot be read.

    Example:
        >>> import pathlib, tempfile
        >>> from pte_tracking.sinks import file_md5
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     path = pathlib.Path(directory, "empty")
        ...     path.touch()
        ...     file_md5(path).hex()
        'd41d8cd98f00b204e9800998ecf8427e'
    """
    return file_digest(path, hashlib.md5(usedforsecurity=False))


def file_digest(path: Path, algorithm: hashlib._Hash) -> bytes:
    """Return the digest of a file.

    Args:
        path: File to read.
        algorithm: New hash object, such as ``hashlib.sha256()``.
    """
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK_BYTES):
            algorithm.update(chunk)
    return algorithm.digest()
