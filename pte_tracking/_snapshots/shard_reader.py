"""Reads tensors from shards that ``torch.distributed.checkpoint`` has written, and executes nothing that they hold."""

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
    """Fill tensors, or the shards of them that are here, with what a folder holds under their names.

    Args:
        folder: The folder.
        tensors: The tensors by name.
        group: How the ranks that read together talk.
        is_single_process: This process reads by itself.

    Raises:
        Exception: A name is missing, a shape is another one, or there is more than tensors; torch raises many kinds.
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
        # torch would unpickle it.
        raise ValueError(f"{read_item.dest_index.fqn} is no tensor there")


class _ShardReader(filesystem.FileSystemReader):
    def read_metadata(self, *args: Any, **kwargs: Any) -> metadata.Metadata:
        with open(Path(self.path) / ".metadata", "rb") as file:
            content = _Unpickler(file).load()
        if not isinstance(content, metadata.Metadata):
            raise ValueError(".metadata is no description of tensors")
        for entry in (content.storage_data or {}).values():
            name = entry.relative_path
            if type(name) is not str or "/" in name or name in ("", ".", ".."):
                raise ValueError(f".metadata names a file outside of the folder: {name!r}")
        content.storage_meta = metadata.StorageMeta(load_id=self.load_id)
        return content


_ALLOWED_GLOBALS: dict[tuple[str, str], Any] = {
    **{(metadata.__name__, name): getattr(metadata, name) for name in metadata.__all__},
    (metadata.__name__, "_MEM_FORMAT_ENCODING"): metadata._MEM_FORMAT_ENCODING,
    (filesystem.__name__, "_StorageInfo"): filesystem._StorageInfo,
    ("torch.serialization", "_get_layout"): _get_layout,
    ("torch", "Size"): torch.Size,
    ("collections", "OrderedDict"): collections.OrderedDict,
    # Where it was written; nothing is done with it.
    **{
        (module, name): lambda *parts: parts
        for module in ("pathlib", "pathlib._local")
        for name in ("PosixPath", "WindowsPath")
    },
}


# In Python, slower than its twin in C, but open: one instruction has to be watched.
_PythonUnpickler: Any = pickle._Unpickler


class _Unpickler(_PythonUnpickler):  # type: ignore[misc]
    """Knows the types that describe tensors, and leaves them as they are."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = _ALLOWED_GLOBALS.get((module, name))
        if allowed is not None:
            return allowed
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        raise pickle.UnpicklingError(f".metadata holds {module}.{name}, which does not describe tensors")

    def load_build(self) -> None:
        # It sets attributes: those of an object, or, in a forged file, those of a class of the whole process.
        if callable(self.stack[-2]):
            raise pickle.UnpicklingError(".metadata changes a type")
        super().load_build()

    dispatch: ClassVar[dict[int, Any]] = {**_PythonUnpickler.dispatch, pickle.BUILD[0]: load_build}
