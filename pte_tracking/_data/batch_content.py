"""Content of one part of a batch, of which a limited number of bytes is read.

The bytes are read in blocks at equal distances, from the first to the last element, so any order of the memory
yields the same bytes for the same elements.
"""

from __future__ import annotations

import ctypes
import reprlib
import sys
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pte_tracking._data.batch_parts import is_array

_BLOCK_BYTES = 256
_MAX_KIND_LENGTH = 80
_MAX_CHARACTER_BYTES = 4


class Content(NamedTuple):
    """Content of a part.

    Attributes:
        kind: Type of the part, with its data type and shape or its length.
        size: Number of bytes. None if the content cannot be read.
        read: Reads at most the given number of bytes.
    """

    kind: str
    size: int | None
    read: Callable[[int], bytes]


def content_of(part: object) -> Content:
    """Return the content of a part.

    Args:
        part: A tensor, an array, a text, a number, or another object. The content of other objects is not read.
    """
    if isinstance(part, Tensor):
        return _tensor_content(part)
    if is_array(part):
        return _array_content(part)
    kind = type(part).__qualname__[:_MAX_KIND_LENGTH]
    if isinstance(part, str):
        size = len(part) * (1 if part.isascii() else _MAX_CHARACTER_BYTES)
        return Content(kind, size, lambda limit: _ends(part, limit, size).encode("utf-8", "surrogatepass"))
    if isinstance(part, bytes | bytearray):
        return Content(kind, len(part), lambda limit: bytes(_ends(part, limit, len(part))))
    if isinstance(part, int | float | complex | None):
        text = reprlib.repr(part)  # the repr of an integer of thousands of digits is slow, or an error
        return Content(kind, len(text), lambda limit: text.encode())
    if isinstance(part, list | tuple | deque):
        return _unread(f"{kind} of {len(part)}")
    return _unread(kind)


def is_unmodified(part: object) -> bool:
    """Return whether nothing has changed a part in place since its construction.

    Tensors count their modifications. Arrays do not, so they may have been modified.

    Args:
        part: The part.
    """
    if isinstance(part, Tensor):
        return not part.is_inference() and part._version == 0
    return not (is_array(part) or isinstance(part, bytearray))


def _unread(kind: str) -> Content:
    return Content(kind, None, lambda limit: b"")


def _ends(text: Any, limit: int, size: int) -> Any:
    """Return a text, or its start and end if it has more bytes than a limit."""
    if size <= limit:
        return text
    half = limit * len(text) // size // 2
    return text[:half] + text[len(text) - half :]


def _tensor_content(tensor: Tensor) -> Content:
    dtype = str(tensor.dtype).removeprefix("torch.")
    if tensor.is_nested:
        return _unread(f"nested {dtype}")
    kind = f"{dtype}{list(tensor.shape)}"
    # An operation of a class with its own dispatch may run any code, such as an exchange between ranks.
    if tensor.device.type != "cpu" or type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__:
        return _unread(kind)
    if tensor.layout is not torch.strided:
        kind = f"{str(tensor.layout).removeprefix('torch.')} {kind}"
        return _joined(kind, [_tensor_content(component) for component in _sparse_components(tensor)])
    has_memory = tensor.untyped_storage().nbytes() > 0 or tensor.numel() == 0  # the training may have freed it
    if tensor.is_quantized or tensor.is_neg() or not has_memory:  # no part of these can be read without a copy
        return _unread(kind)
    return Content(kind, tensor.numel() * tensor.element_size(), lambda limit: _read_tensor(tensor, limit))


def _sparse_components(tensor: Tensor) -> list[Tensor]:
    if tensor.layout is torch.sparse_coo:
        return [tensor._indices(), tensor._values()]
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    return []


def _joined(kind: str, components: list[Content]) -> Content:
    sizes = [component.size for component in components]
    if not components or None in sizes:
        return _unread(kind)
    share = len(components)
    return Content(
        kind,
        sum(size or 0 for size in sizes),
        lambda limit: b"".join(component.read(limit // share) for component in components),
    )


def _read_tensor(tensor: Tensor, limit: int) -> bytes:
    # A view without the conjugate bit. Whether the bit is set is not recorded: it is the same in each process.
    tensor = tensor.detach().conj() if tensor.is_conj() else tensor.detach()
    blocks = _Blocks.of(tensor.numel(), tensor.element_size(), limit)
    if blocks is None:
        return _to_bytes(tensor.contiguous())
    if tensor.is_contiguous():
        flat = tensor.view(-1)
        windows = flat.unfold(0, blocks.size, blocks.distance)[: blocks.number]
        return _to_bytes(windows.contiguous()) + _to_bytes(flat[-blocks.size :])
    # The device is given because the training may have changed the default.
    index = torch.tensor(blocks.starts(), device="cpu").unsqueeze(1) + torch.arange(blocks.size, device="cpu")
    return _to_bytes(torch.take(tensor, index))


def _to_bytes(tensor: Tensor) -> bytes:
    # Without NumPy, which torch does not require, and which has no bfloat16.
    return ctypes.string_at(tensor.data_ptr(), tensor.nbytes) if tensor.numel() else b""


def _array_content(array: Any) -> Content:
    kind = f"numpy {array.dtype}"[:_MAX_KIND_LENGTH] + f"{list(array.shape)}"
    if array.dtype.hasobject:
        return _unread(kind)
    return Content(kind, array.nbytes, lambda limit: _read_array(array, limit))


def _read_array(array: Any, limit: int) -> bytes:
    blocks = _Blocks.of(array.size, array.itemsize, limit)
    if blocks is None:
        return bytes(array.tobytes())
    numpy = sys.modules["numpy"]
    return bytes(array.flat[numpy.add.outer(blocks.starts(), numpy.arange(blocks.size)).ravel()].tobytes())


class _Blocks(NamedTuple):
    """Blocks of elements at equal distances, and one at the end.

    Attributes:
        number: Number of blocks, without the one at the end.
        size: Number of elements of a block.
        distance: Number of elements between the starts of two blocks.
        end: Index of the first element of the block at the end.
    """

    number: int
    size: int
    distance: int
    end: int

    @classmethod
    def of(cls, count: int, item_bytes: int, limit: int) -> _Blocks | None:
        """Return the blocks of at most ``limit`` bytes, or None if all ``count`` elements are read."""
        if count * item_bytes <= limit:
            return None
        size = max(1, min(_BLOCK_BYTES, limit // 4) // item_bytes)
        blocks = max(1, limit // item_bytes // size - 1)
        return cls(blocks, size, (count - size) // blocks, count - size)

    def starts(self) -> list[int]:
        """Return the index of the first element of each block."""
        return [*(index * self.distance for index in range(self.number)), self.end]
