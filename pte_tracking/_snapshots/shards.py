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
    found: list[Tensor] = []

    def note(tensor: Tensor, path: str) -> Tensor:
        if is_sharded(tensor):
            found.append(tensor)
        return tensor

    map_tensors(state, note)
    return bool(found)


def write(
    path: Path, state: Mapping[str, Any], world: World, before: Callable[[], object] = lambda: None
) -> FileDigest | None:
    """Write a state, each rank its shards; called on all of them. Where one cannot, nothing is left of it.

    Args:
        path: The folder.
        state: The state, a plain one.
        world: The ranks.
        before: Called on rank 0 before anything is written.

    Returns:
        On rank 0, what identifies the snapshot.

    Raises:
        OSError: A rank could not write its part.
        RuntimeError: Another rank has failed otherwise.
    """
    temporary = temporary_path(path)
    try:
        world.run_on_rank_zero("what comes before a snapshot", before)
        in_shards: dict[str, Tensor] = {}

        def take(tensor: Tensor, place: str) -> Tensor:
            if not is_sharded(tensor):
                return tensor
            in_shards[place] = tensor
            return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")

        rest = map_tensors(dict(state), take)
        mine = world.run_on_all_ranks("the shards of a snapshot", lambda: _write_shards(temporary, in_shards, world))
        each = world.all_gather("the shards of a snapshot", mine)
        if world.rank:
            return None
        parts = {name: one for parts in each for name, one in parts.items()}
        parts[_METADATA] = _digest_on_disk(temporary / _METADATA)
        parts[STATE_FILE] = save(temporary / STATE_FILE, rest)
        write_index(temporary, parts)
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
        raise OSError(_reasons(error)) from error
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
    alike = _current_tensors(objects)
    in_shards: dict[str, Tensor] = {}

    def fit(tensor: Tensor, place: str) -> Tensor:
        like = alike.get(place, alike.get(place.rpartition("/")[0]))
        if like is not None and like.shape != tensor.shape:
            like = None
        if not tensor.is_meta:
            return tensor if like is None or is_sharded(tensor) else _cut(tensor, like)
        if like is None:
            in_shards[place] = torch.empty(tensor.shape, dtype=tensor.dtype)
        else:
            in_shards[place] = torch.empty_like(like.detach(), dtype=tensor.dtype)
        return in_shards[place]

    whole = cast("dict[str, Any]", map_tensors(dict(state), fit))
    if in_shards and path is None:
        raise ValueError("state: its tensors lie in shards beside it; give resume() the folder")
    if in_shards and path is not None:
        _read(path, in_shards, world)
    return whole


def _current_tensors(objects: Mapping[str, Mapping[str, Any]]) -> dict[str, Tensor]:
    """The sharded tensors here by their places in a state; an optimizer's states are like its parameters."""
    found: dict[str, Tensor] = {}

    def note(tensor: Tensor, place: str) -> Tensor:
        if is_sharded(tensor):
            found[place] = tensor
        return tensor

    for kind, things in objects.items():
        for name, thing in things.items():
            map_tensors(thing.state_dict(), note, f"{kind}/{name}")
            groups = getattr(thing, "param_groups", ())
            if not isinstance(groups, list):  # some, such as Ignite's metrics, have a function for every name
                continue
            for number, parameter in enumerate(parameter for group in groups for parameter in group["params"]):
                note(parameter, f"{kind}/{name}/state/{number}")
    return found


def _cut(tensor: Tensor, like: Tensor) -> Tensor:
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    # Every rank has all of it, so none has to be sent.
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)


def _read(path: Path, tensors: dict[str, Tensor], world: World) -> None:
    from pte_tracking._snapshots.shard_reader import read  # this, too

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is ")  # torch tells what `alone` has told it
            read(path, tensors, world.group, alone=world.is_single_process)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # of many kinds; torch's own is no Exception
        reason = _reasons(error).strip().split("\n", 1)[0]
        raise SnapshotError(path, f"its shards cannot be read: {reason}") from error


def _reasons(error: BaseException) -> str:
    """What went wrong, on which ranks: torch's own exception holds their tracebacks."""
    failures = getattr(error, "failures", {})
    return "; ".join(f"rank {rank}: {problem}" for rank, (problem, _) in sorted(failures.items())) or str(error)
