"""Digest of a batch, by which a resume recognizes the batch.

At most 64 kB of a batch are read, spread over its parts, and nothing is read from a device: a tensor there contributes
its shape and data type. The digest of a batch is the same in each process. It is a checksum and does not protect
against manipulation.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch

from pte_tracking._data.batch_content import Content, content_of, is_unmodified
from pte_tracking._data.batch_parts import find_parts

#: Kind and checksum of each part by path. The checksum is None if the content was not read.
BatchDigest: TypeAlias = dict[str, tuple[str, int | None]]

_logger = logging.getLogger("pte_tracking")

_MAX_BYTES = 1 << 16
_MAX_PARTS = 16  # of a digest, which is a line of the journal
_REST = "..."


def digest_new_batch(batch: object) -> BatchDigest:
    """Return the digest of a batch before the loop receives it.

    Args:
        batch: Nested lists, tuples, dictionaries, and objects of tensors, arrays, texts, and numbers.
    """
    return _digest(batch, lambda part: True)


def digest_used_batch(batch: object) -> BatchDigest:
    """Return the digest of a batch that the loop may have modified in place. What may be modified is not read.

    Args:
        batch: The batch, as in :func:`digest_new_batch`.
    """
    return _digest(batch, is_unmodified)


def differing_parts(earlier: BatchDigest, current: BatchDigest) -> list[str]:
    """Return the paths of the parts that differ. A part that only one digest has does not count.

    Args:
        earlier: Digest of the batch before the resume.
        current: Digest of the batch after the resume.
    """
    return [path for path in earlier if path in current and _differs(earlier[path], current[path])]


def is_content_equal(earlier: BatchDigest, current: BatchDigest) -> bool:
    """Return whether no part differs and the content of at least one part was compared."""
    is_compared = any(None not in (earlier[path][1], current[path][1]) for path in earlier.keys() & current.keys())
    return is_compared and not differing_parts(earlier, current)


def _differs(earlier: tuple[str, int | None], current: tuple[str, int | None]) -> bool:
    return earlier[0] != current[0] or (earlier[1] != current[1] and None not in (earlier[1], current[1]))


def _digest(batch: object, is_readable: Callable[[object], bool]) -> BatchDigest:
    try:
        with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
            contents = {path: _find_content(part, is_readable) for path, part in find_parts(batch).items()}
            checksums = _read(contents)
    except Exception as error:  # Objects of other libraries may raise anything, and the training continues.
        _logger.debug("the data are not checked after a resume: %r", error)
        return {}
    entries = {path: (content.kind, checksums.get(path)) for path, content in contents.items()}
    if len(entries) <= _MAX_PARTS:
        return entries
    paths = list(entries)
    first, rest = paths[: _MAX_PARTS - 1], paths[_MAX_PARTS - 1 :]
    return {**{path: entries[path] for path in first}, _REST: _merge({path: entries[path] for path in rest})}


def _find_content(part: object, is_readable: Callable[[object], bool]) -> Content:
    try:
        content = content_of(part)
        return content if is_readable(part) else content._replace(size=None)
    except Exception:
        return Content(type(part).__qualname__, None, lambda limit: b"")


def _read(contents: Mapping[str, Content]) -> dict[str, int]:
    """Return the checksums. Small parts are read completely, and large ones share the rest of the bytes."""
    sizes = sorted((content.size, path) for path, content in contents.items() if content.size is not None)
    checksums, remaining = {}, _MAX_BYTES
    for index, (size, path) in enumerate(sizes):
        limit = min(size, remaining // (len(sizes) - index))
        remaining -= limit
        try:
            checksums[path] = zlib.crc32(contents[path].read(limit))
        except Exception:
            continue
    return checksums


def _merge(entries: BatchDigest) -> tuple[str, int | None]:
    is_read = all(checksum is not None for _, checksum in entries.values())
    content = repr(sorted(entries.items())).encode("utf-8", "backslashreplace")
    return f"{len(entries)} parts", zlib.crc32(content) if is_read else None
