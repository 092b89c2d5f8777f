"""Read tensors from shards of ``torch.distributed.checkpoint`` without executing anything in them."""

from __future__ import annotations

import collections
import pickle
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint import filesystem, metadata
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.state_dict_loader import load
from torch.serialization import _get_layout


def read(folder: Path, tensors: dict[str, Tensor], group: dist.ProcessGroup | None, *, is_single_process: bool) -> None:
    """Read the content of tensors in place. Of sharded tensors, each rank reads its own shards.

    Args:
        folder: Directory with the shards.
        tensors: The tensors by name.
        group: Process group of the ranks that read together.
        is_single_process: Whether this process reads without other ranks.

    Raises:
        Exception: If a name is missing, a shape differs, or an entry is not a tensor. torch raises many types.
    """
    load(
        tensors,
        storage_reader=_ShardReader(folder),
        planner=_TensorPlanner(),
        process_group=group,
        no_dist=is_single_process,
    )


class _TensorPlanner(DefaultLoadPlanner):
    def load_bytes(self, read_item: Any, value: Any) -> None:
        # The planner of torch would unpickle the entry.
        raise ValueError(f"{read_item.dest_index.fqn} is not a tensor in the shards")


class _ShardReader(filesystem.FileSystemReader):
    def read_metadata(self, *args: Any, **kwargs: Any) -> metadata.Metadata:
        with open(Path(self.path) / ".metadata", "rb") as file:
            content = _Unpickler(file).load()
        if not isinstance(content, metadata.Metadata):
            raise ValueError(".metadata does not contain a description of tensors")
        for entry in (content.storage_data or {}).values():
            name = entry.relative_path
            if type(name) is not str or "/" in name or name in ("", ".", ".."):
                raise ValueError(f".metadata names a file outside the directory: {name!r}")
        content.storage_meta = metadata.StorageMeta(load_id=self.load_id)
        return content


_ALLOWED_GLOBALS: dict[tuple[str, str], Any] = {
    **{(metadata.__name__, name): getattr(metadata, name) for name in metadata.__all__},
    (metadata.__name__, "_MEM_FORMAT_ENCODING"): metadata._MEM_FORMAT_ENCODING,
    (filesystem.__name__, "_StorageInfo"): filesystem._StorageInfo,
    ("torch.serialization", "_get_layout"): _get_layout,
    ("torch", "Size"): torch.Size,
    ("collections", "OrderedDict"): collections.OrderedDict,
    # The path that the shards were written to. It is ignored.
    **{
        (module, name): lambda *parts: parts
        for module in ("pathlib", "pathlib._local")
        for name in ("PosixPath", "WindowsPath")
    },
}


# The implementation in Python is slower than the one in C, but a subclass of it can override a single opcode.
_PythonUnpickler: Any = pickle._Unpickler


class _Unpickler(_PythonUnpickler):  # type: ignore[misc]
    """Unpickler that allows only the types that describe tensors and does not modify them."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = _ALLOWED_GLOBALS.get((module, name))
        if allowed is not None:
            return allowed
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        raise pickle.UnpicklingError(f".metadata contains {module}.{name}, which does not describe tensors")

    def load_build(self) -> None:
        # This opcode sets attributes of an object. In a malicious file, they could be those of a class.
        if callable(self.stack[-2]):
            raise pickle.UnpicklingError(".metadata modifies a type")
        super().load_build()

    dispatch: ClassVar[dict[int, Any]] = {**_PythonUnpickler.dispatch, pickle.BUILD[0]: load_build}
