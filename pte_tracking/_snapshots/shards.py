"""Write and read sharded snapshots with ``torch.distributed.checkpoint``.

A sharded snapshot is a directory. It contains the shards and ``.metadata`` in the format of torch, the rest of the
state in ``state.pt``, in which sharded tensors have no content, and the index, which is written last (see
:mod:`pte_tracking._store.checkpoint_files`). It can be read on any number of ranks and in a single process.

torch pickles ``.metadata`` and would unpickle any content of it, and of entries that are not tensors. This module
allows only types that describe tensors, and reads only tensors.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from pte_tracking._distributed.flat_sharding import is_flat
from pte_tracking._distributed.sharding import is_sharded
from pte_tracking._distributed.world import SINGLE_PROCESS, World
from pte_tracking._distributed.zero_redundancy import is_zero_redundancy
from pte_tracking._platform.files import sync_directory, sync_file
from pte_tracking._snapshots.errors import SnapshotError
from pte_tracking._snapshots.file import load, save, temporary_path
from pte_tracking._snapshots.object_state import save_object
from pte_tracking._snapshots.parameter_names import parameter_groups
from pte_tracking._snapshots.plain_state import map_tensors
from pte_tracking._store.checkpoint_files import (
    STATE_FILE,
    FileDigest,
    checkpoint_digest,
    delete_checkpoint,
    digest_file,
    write_index,
)
from pte_tracking._store.replacing import replace_snapshot

_METADATA = ".metadata"


def has_shards(state: Any) -> bool:
    """Return whether a state contains sharded tensors.

    The parameters of a model do not show this reliably: fully_shard unshards them temporarily, but not in the state.
    """
    sharded: list[Tensor] = []

    def collect(tensor: Tensor, path: str) -> Tensor:
        if is_sharded(tensor):
            sharded.append(tensor)
        return tensor

    map_tensors(state, collect)
    return bool(sharded)


def write(
    path: Path, state: Mapping[str, Any], world: World, prepare: Callable[[], object] = lambda: None
) -> FileDigest | None:
    """Write a sharded snapshot. Call this on every rank; each writes its shards.

    If a rank fails, the snapshot is deleted.

    Args:
        path: Path of the directory.
        state: The plain state.
        world: The ranks.
        prepare: Called on rank 0 before anything is written.

    Returns:
        The digest of the snapshot on rank 0, None on other ranks.

    Raises:
        OSError: If this rank failed to write its shards.
        RuntimeError: If another rank failed.
    """
    temporary = temporary_path(path)
    try:
        world.run_on_rank_zero("snapshot preparation", prepare)
        # A crash may have left the directory. A link in its place is not followed.
        world.run_on_rank_zero("snapshot preparation", lambda: delete_checkpoint(temporary))
        sharded: dict[str, Tensor] = {}

        def replace_sharded(tensor: Tensor, name: str) -> Tensor:
            if not is_sharded(tensor):
                return tensor
            sharded[name] = tensor
            return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")

        rest = map_tensors(dict(state), replace_sharded)
        own_digests = world.run_on_all_ranks(
            "the shards of a snapshot", lambda: _write_shards(temporary, sharded, world)
        )
        digests_by_rank = world.all_gather("the shards of a snapshot", own_digests)
        if world.rank:
            return None
        digests = {name: digest for digests in digests_by_rank for name, digest in digests.items()}
        digests[_METADATA] = _digest_on_disk(temporary / _METADATA)
        digests[STATE_FILE] = save(temporary / STATE_FILE, rest)
        write_index(temporary, digests)
        sync_directory(temporary)
        replace_snapshot(temporary, path)
    except BaseException:
        if world.rank == 0:
            shutil.rmtree(temporary, ignore_errors=True)
        raise
    return checkpoint_digest(path)


def _write_shards(folder: Path, tensors: dict[str, Tensor], world: World) -> dict[str, FileDigest]:
    """Write the shards of this rank and flush them to disk. Return the digest of each file."""
    # These imports are slow, so only sharded snapshots pay for them.
    from torch.distributed.checkpoint import state_dict_saver
    from torch.distributed.checkpoint.filesystem import FileSystemWriter

    try:
        state_dict_saver.save(cast(Any, tensors), storage_writer=FileSystemWriter(folder), process_group=world.group)
    except (Exception, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # CheckpointException of torch is not an Exception
        raise OSError(_describe_error(error)) from error
    return {file.name: _digest_on_disk(file) for file in folder.glob(f"__{world.rank}_*")}


def _digest_on_disk(path: Path) -> FileDigest:
    """Flush and digest a file that torch wrote. torch 2.13 calls fsync before it flushes the last bytes."""
    sync_file(path)
    return digest_file(path)


def gather_shards(path: Path) -> dict[str, Any]:
    """Read a sharded snapshot completely into the memory of this process.

    Args:
        path: Path of the directory.

    Returns:
        The state. All of its tensors are full tensors.

    Raises:
        SnapshotError: If the snapshot is damaged or incomplete.
    """
    return reshard(load(path), path, {}, SINGLE_PROCESS)


def reshard(
    state: Mapping[str, Any],
    path: Path | None,
    objects: Mapping[str, Mapping[str, Any]],
    world: World,
) -> dict[str, Any]:
    """Shard the tensors of a state as the current models and optimizers are sharded. Call this on every rank.

    A tensor gets the sharding of the current tensor with the same name, regardless of the sharding in the snapshot.
    All other tensors become full tensors.

    Args:
        state: The state. Sharded tensors have no content.
        path: Directory with the shards. None if the snapshot is not sharded.
        objects: The objects that will load the state, by kind (``"models"``) and name.
        world: The ranks.

    Returns:
        The state with the content of all tensors.

    Raises:
        SnapshotError: If the shards do not match the state.
        ValueError: If the state has sharded tensors and ``path`` is None.
    """
    current = _current_tensors(objects)
    sharded: dict[str, Tensor] = {}

    def fit_tensor(tensor: Tensor, name: str) -> Tensor:
        like = current.get(name, current.get(name.rpartition("/")[0]))
        if like is not None and like.shape != tensor.shape:
            like = None
        if not tensor.is_meta:
            return tensor if like is None or is_sharded(tensor) else _distribute(tensor, like)
        if like is None:
            sharded[name] = torch.empty(tensor.shape, dtype=tensor.dtype)
        else:
            sharded[name] = torch.empty_like(like.detach(), dtype=tensor.dtype)
        return sharded[name]

    fitted = cast("dict[str, Any]", map_tensors(dict(state), fit_tensor))
    if sharded and path is None:
        raise ValueError("state: the tensors are in shards. Pass the directory of the snapshot to resume().")
    if sharded and path is not None:
        _read(path, sharded, world)
    return fitted


def _current_tensors(objects: Mapping[str, Mapping[str, Any]]) -> dict[str, Tensor]:
    """Return the current sharded tensors by position in a state. Optimizer states are sharded as their parameters."""
    sharded: dict[str, Tensor] = {}

    def collect(tensor: Tensor, tensor_name: str) -> Tensor:
        if is_sharded(tensor):
            sharded[tensor_name] = tensor
        return tensor

    for kind, named_objects in objects.items():
        for name, target in named_objects.items():
            if is_flat(target) or is_zero_redundancy(target):
                continue
            map_tensors(save_object(target), collect, f"{kind}/{name}")
            parameters = (parameter for group in parameter_groups(target) for parameter in group["params"])
            for number, parameter in enumerate(parameters):
                collect(parameter, f"{kind}/{name}/state/{number}")
    return sharded


def _distribute(tensor: Tensor, like: Tensor) -> Tensor:
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    # Every rank has the full tensor, so nothing has to be sent.
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)


def _read(path: Path, tensors: dict[str, Tensor], world: World) -> None:
    from pte_tracking._snapshots.shard_reader import read  # slow, as above

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is ")  # a warning that no_dist was passed
            read(path, tensors, world.group, is_single_process=world.is_single_process)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # many types, and CheckpointException of torch is not an Exception
        reason = _describe_error(error).strip().split("\n", 1)[0]
        raise SnapshotError(path, f"the shards cannot be read: {reason}") from error


def _describe_error(error: BaseException) -> str:
    """Describe an error, or the error of each rank in a CheckpointException of torch."""
    failures = getattr(error, "failures", {})
    return "; ".join(f"rank {rank}: {problem}" for rank, (problem, _) in sorted(failures.items())) or str(error)
