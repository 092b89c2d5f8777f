"""Files below the URL of a mirror."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs

from pte_backends.mirror._url import OBJECT_STORES, protocol_of

_CHUNK_BYTES = 1 << 22


class Store:
    """Directory or prefix of a file system of fsspec.

    Args:
        url: URL of the directory.

    Attributes:
        url: The same URL, for messages.

    Raises:
        OSError: If the file system cannot be reached.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._is_object_store = protocol_of(url) in OBJECT_STORES
        with self._translated_errors():
            # Another part of the program may use the same file system with other settings.
            self._files, self._root = url_to_fs(url, skip_instance_cache=True)

    def read(self, name: str) -> bytes | None:
        """Return the content of a file, or None if it does not exist."""
        with self._translated_errors():
            try:
                content: bytes = self._files.cat_file(self._path(name))
            except FileNotFoundError:
                return None
            return content

    def write(self, name: str, content: bytes) -> None:
        """Replace a file. It never has only a part of the content."""
        self._put(name, [content])

    def upload(self, path: Path, name: str) -> str:
        """Copy a local file, and return the hexadecimal SHA-256 of the bytes that were sent.

        Raises:
            OSError: If the copy has another size.
        """
        digest, size = hashlib.sha256(), 0

        def read() -> Iterator[bytes]:
            nonlocal size
            with open(path, "rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    size += len(chunk)
                    yield chunk

        self._put(name, read())
        with self._translated_errors():
            self._files.invalidate_cache()
            stored = self._files.info(self._path(name))["size"]
        if stored != size:
            raise OSError(f"{self.url}/{name}: the copy has {stored} bytes instead of {size}.")
        return digest.hexdigest()

    def download(self, name: str, path: Path) -> None:
        """Copy a file to a local path."""
        with self._translated_errors():
            self._files.get_file(self._path(name), str(path))

    def list_files(self, folder: str) -> dict[str, int]:
        """Return the sizes in bytes of the files of a folder by name. Empty if the folder does not exist."""
        return {name: entry["size"] for name, entry in self._list(folder).items() if entry["type"] == "file"}

    def list_folders(self, folder: str) -> list[str]:
        """Return the names of the folders in a folder, in ascending order."""
        return sorted(name for name, entry in self._list(folder).items() if entry["type"] == "directory")

    def remove(self, name: str, *, is_folder: bool = False) -> None:
        """Delete a file or a folder if it exists."""
        with self._translated_errors(), contextlib.suppress(FileNotFoundError):
            self._files.invalidate_cache()
            self._files.rm(self._path(name), recursive=is_folder)

    def check_exists(self) -> None:
        """Check that the bucket exists. A missing directory is created by the first copy.

        Raises:
            FileNotFoundError: If it does not exist.
        """
        bucket = self._root.split("/")[0]
        with self._translated_errors():
            if self._is_object_store and not self._files.exists(bucket):
                raise FileNotFoundError(f"{self.url}: {bucket!r} does not exist, or access to it is denied.")

    def _list(self, folder: str) -> dict[str, dict[str, Any]]:
        with self._translated_errors():
            self._files.invalidate_cache()
            try:
                entries = self._files.ls(self._path(folder), detail=True)
            except FileNotFoundError:
                return {}
        return {entry["name"].rstrip("/").rpartition("/")[2]: entry for entry in entries}

    def _put(self, name: str, chunks: Iterable[bytes]) -> None:
        target = self._path(name)
        written = target if self._is_object_store else f"{target}.partial"
        with self._translated_errors():
            if not self._is_object_store:
                self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
            with self._files.open(written, "wb") as file:
                for chunk in chunks:
                    file.write(chunk)
                file.flush()
                with contextlib.suppress(AttributeError, io.UnsupportedOperation):  # not a local file
                    os.fsync(file.fileno())
            if written != target:
                self._files.mv(written, target)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextlib.contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.filename is None and self.url not in str(error):  # such as "The specified bucket does not exist"
                raise type(error)(f"{self.url}: {error}") from error
            raise
        except Exception as error:  # The types of exceptions differ between client libraries.
            kind = PermissionError if "Credentials" in type(error).__name__ else ConnectionError
            raise kind(f"{self.url}: {type(error).__name__}: {error}") from error
