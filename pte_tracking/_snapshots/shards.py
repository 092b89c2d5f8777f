"""States whose tensors lie in shards, written and read by ``torch.distributed.checkpoint``: each rank its own part.

Such a snapshot is a folder: the shards and the ``.metadata`` as torch writes them, the rest of the state in
``state.pt`` (there, tensors without content stand in the places of those in the shards), and last its marker (see
:mod:`pte_tracking._store.checkpoint_files`). Any number of ranks reads it, a single process too.

torch pickles ``.metadata``, and would unpickle whatever it finds there and in entries that are no tensors. Here only
the types that describe tensors are taken from it, and tensors alone are read.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from pte_tracking._distributed.sharding import is_sharded
from pte_tracking._distributed.world import SINGLE_PROCESS, World
from pte_tracking._snapshots.errors import SnapshotError
from pte_tracking._snapshots.file import load, save, temporary_path
from pte_tracking._snapshots.plain_state import map_tensors
from pte_tracking._store.checkpoint_files import (
    STATE_FILE,
    FileDigest,
    checkpoint_digest,
    delete_checkpoint,
    digest_file,
    write_index,
)
from pte_tracking._store.files import sync_directory, sync_file

_METADATA = ".metadata"


def has_shards(state: Any) -> bool:
    """Whether tensors of a state lie in shards.

    A model does not always show it: fully_shard puts its parameters together for a while, but not in its state.
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
    """Write a state, each rank its shards; called on all of them. Where one cannot, nothing is left of it.

    Args:
        path: The folder.
        state: The state, a plain one.
        world: The ranks.
        prepare: Called on rank 0 before anything is written.

    Returns:
        On rank 0, what identifies the snapshot.

    Raises:
        OSError: A rank could not write its part.
        RuntimeError: Another rank has failed otherwise.
    """
    temporary = temporary_path(path)
    try:
        world.run_on_rank_zero("what comes before a snapshot", prepare)
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
        delete_checkpoint(path)
        os.replace(temporary, path)
    except BaseException:
        if world.rank == 0:
            shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_directory(path.parent)
    return checkpoint_digest(path)


def _write_shards(folder: Path, tensors: dict[str, Tensor], world: World) -> dict[str, FileDigest]:
    """Write those of this rank, and wait until they are on the disk; says which files they are in."""
    # torch's part of it takes a while to import.
    from torch.distributed.checkpoint import state_dict_saver
    from torch.distributed.checkpoint.filesystem import FileSystemWriter

    try:
        state_dict_saver.save(cast(Any, tensors), storage_writer=FileSystemWriter(folder), process_group=world.group)
    except (Exception, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # torch's own is no Exception
        raise OSError(_describe_error(error)) from error
    return {file.name: _digest_on_disk(file) for file in folder.glob(f"__{world.rank}_*")}


def _digest_on_disk(path: Path) -> FileDigest:
    """What a marker says of a file of torch's, which syncs its files before it has flushed their ends (2.13)."""
    sync_file(path)
    return digest_file(path)


def gather_shards(path: Path) -> dict[str, Any]:
    """All of a snapshot whose tensors lie in shards, in this process.

    Raises:
        SnapshotError: It is damaged, or not whole.
    """
    return reshard(load(path), path, {}, SINGLE_PROCESS)


def reshard(
    state: Mapping[str, Any],
    path: Path | None,
    objects: Mapping[str, Mapping[str, Any]],
    world: World,
) -> dict[str, Any]:
    """A state as the models and optimizers here can take it; called on all ranks.

    Where a tensor is sharded here, that in the state becomes shards like it, whatever shards it was written in, or
    none. All others are whole.

    Args:
        state: The state; tensors without content stand for those that lie in shards.
        path: The folder of the shards, if there are any.
        objects: What will take the state: models, optimizers and state objects, each by its name, by part.
        world: The ranks.

    Raises:
        SnapshotError: What is in the shards is not what the state says.
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
        raise ValueError("state: its tensors lie in shards beside it; give resume() the folder")
    if sharded and path is not None:
        _read(path, sharded, world)
    return fitted


def _current_tensors(objects: Mapping[str, Mapping[str, Any]]) -> dict[str, Tensor]:
    """The sharded tensors here by their places in a state; an optimizer's states are like its parameters."""
    sharded: dict[str, Tensor] = {}

    def collect(tensor: Tensor, tensor_name: str) -> Tensor:
        if is_sharded(tensor):
            sharded[tensor_name] = tensor
        return tensor

    for kind, named_objects in objects.items():
        for name, target in named_objects.items():
            map_tensors(target.state_dict(), collect, f"{kind}/{name}")
            groups = getattr(target, "param_groups", ())
            if not isinstance(groups, list):  # some, such as Ignite's metrics, have a function for every name
                continue
            for number, parameter in enumerate(parameter for group in groups for parameter in group["params"]):
                collect(parameter, f"{kind}/{name}/state/{number}")
    return sharded


def _distribute(tensor: Tensor, like: Tensor) -> Tensor:
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    # Every rank has all of it, so none has to be sent.
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)


def _read(path: Path, tensors: dict[str, Tensor], world: World) -> None:
    from pte_tracking._snapshots.shard_reader import read  # this, too

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is ")  # torch tells what `alone` has told it
            read(path, tensors, world.group, is_single_process=world.is_single_process)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # of many kinds; torch's own is no Exception
        reason = _describe_error(error).strip().split("\n", 1)[0]
        raise SnapshotError(path, f"its shards cannot be read: {reason}") from error


def _describe_error(error: BaseException) -> str:
    """What went wrong, on which ranks: torch's own exception holds their tracebacks."""
    failures = getattr(error, "failures", {})
    return "; ".join(f"rank {rank}: {problem}" for rank, (problem, _) in sorted(failures.items())) or str(error)
