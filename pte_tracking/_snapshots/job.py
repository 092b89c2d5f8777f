"""Jobs that save one state each, from its capture to the publication of its file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from torch import Tensor, nn

from pte_tracking._distributed.sharding import full_tensor, is_sharded
from pte_tracking._distributed.world import SINGLE_PROCESS, World
from pte_tracking._runs.run import Run
from pte_tracking._snapshots import file, shards
from pte_tracking._snapshots.buffers import Buffers
from pte_tracking._snapshots.plain_state import map_tensors
from pte_tracking._snapshots.rank_agreement import report_differing_ranks
from pte_tracking._snapshots.rank_state import other_rank_states
from pte_tracking._snapshots.retention import Retention
from pte_tracking._store.checkpoint_files import FileDigest
from pte_tracking._store.files import make_durable_directory
from pte_tracking._store.values import to_numbers

StateSource = Callable[[], dict[str, Any]]


class StateJob:
    """One state that is saved to a file and not registered anywhere.

    A :class:`~pte_tracking._snapshots.writer.SnapshotWriter` calls the steps on every rank in this order:
    :meth:`capture` and :meth:`copy` in the training thread, then :meth:`write` and :meth:`publish`, possibly in another
    thread. A job is used once.

    Args:
        path: Path of the snapshot file, or of its directory if the state has shards.
        get_state: Returns the plain state of this rank. It is called once.
        world: The ranks that save together.

    Attributes:
        state: The captured state, later its copy. Set by :meth:`capture`.
        has_shards: Whether tensors of the state are sharded. Set by :meth:`capture`.
    """

    def __init__(self, path: Path, get_state: StateSource, world: World = SINGLE_PROCESS) -> None:
        self.path = path
        self.world = world
        self.state: dict[str, Any] = {}
        self.has_shards = False
        self._get_state: StateSource | None = get_state

    @property
    def is_written_here(self) -> bool:
        """Whether this rank takes part in writing: rank 0 only, unless the state has shards."""
        return self.world.rank == 0 or self.has_shards

    def capture(self) -> None:
        """Read the state on every rank. Its tensors still share memory with the training."""
        assert self._get_state is not None, "A job captures its state once."
        self.state = self._collect(self._get_state)
        self.has_shards = shards.has_shards(self.state)
        # The source refers to the manager, whose run ends when nothing refers to it any more. The thread that writes
        # must not delay this.
        self._get_state = None

    def copy(self, buffers: Buffers | None) -> None:
        """Separate the state from the training, which changes its tensors afterwards.

        Args:
            buffers: Memory for the copy, which is complete after :meth:`Buffers.wait`. With None, tensors are only
                moved to the host: the training waits until they are written.
        """

        def copy_state() -> dict[str, Any]:
            copied: dict[str, Any] = _to_host(self.state) if buffers is None else buffers.copy(self.state)
            return copied

        # If the copy fails on one rank, no rank may start to write shards: their threads wait for each other.
        self.state = self.world.run_on_all_ranks("snapshot copy", copy_state) if self.has_shards else copy_state()

    def write(self) -> FileDigest | None:
        """Write the state to its final path.

        Returns:
            The digest of the snapshot on rank 0, None on other ranks.

        Raises:
            OSError: If the disk is full or a file cannot be written.
            RuntimeError: If another rank failed to write its shards.
        """
        make_durable_directory(self.path.parent)
        if self.has_shards:
            return shards.write(self.path, self.state, self.world.snapshot_world, self._complete)
        self._complete()
        return file.write(self.path, self.state)

    def publish(self, digest: FileDigest) -> None:
        """Register the written snapshot and apply retention, on rank 0."""

    def _collect(self, get_state: StateSource) -> dict[str, Any]:
        return get_state()

    def _complete(self) -> None:
        """Finish the state on rank 0 before any of it is written."""


class SnapshotDetails(NamedTuple):
    """Facts about the iteration of a snapshot that its checkpoint records.

    Attributes:
        step: Number of completed iterations.
        epoch: The same in epochs; None if the epoch length is not set.
        values: Latest known values by key, those reported in the iteration included. They may still be tensors on a
            device.
    """

    step: int
    epoch: float | None
    values: Mapping[str, Any]


class SnapshotJob(StateJob):
    """One snapshot of the training, which becomes a checkpoint of the run.

    Args:
        run: The run.
        name: Path of the snapshot, relative to the run directory.
        get_state: Returns the complete plain state of the training on this rank.
        models: The models by name. Buffers that differ between ranks are saved for each rank.
        details: Facts for the checkpoint.
        retention: Prunes other snapshots after this one is registered.
        world: The ranks.
    """

    def __init__(
        self,
        run: Run,
        name: str,
        get_state: StateSource,
        models: Mapping[str, nn.Module],
        details: SnapshotDetails,
        retention: Retention,
        world: World,
    ) -> None:
        super().__init__(run.directory / name, get_state, world)
        self._run = run
        self._name = name
        self._models = models
        self._details = details
        self._retention = retention

    def capture(self) -> None:
        super().capture()
        self._models = {}  # for the same reason

    def publish(self, digest: FileDigest) -> None:
        step, epoch, _ = self._details
        self._run.log_checkpoint(self._name, step, digest.sha256, digest.size, epoch, self.state["values"])
        self._retention.prune(self._run)

    def _collect(self, get_state: StateSource) -> dict[str, Any]:
        state = self.world.run_on_all_ranks("snapshot capture", get_state)
        if self.world.is_first("comparison of the ranks"):
            report_differing_ranks(state, self._models, self.world)
        others = other_rank_states(state, self._models, self.world)
        return {**state, "ranks": others} if others else state

    def _complete(self) -> None:
        # A published snapshot refers to a journal position, so the journal has to be durable first.
        self._run.sync()
        # A conversion may wait for a device. The training does not wait for it here.
        self.state["values"] = to_numbers(self._details.values)


class ObjectSnapshotJob(StateJob):
    """One snapshot of an object, which is not a checkpoint of the run. Sharded tensors are saved as full tensors.

    Args:
        directory: The run directory.
        name: Path of the file, relative to the run directory.
        get_state: Returns the plain state of the object on this rank.
        retention: Deletes older files after this one is written.
        world: The ranks.
        run: Run that logs the file as an artifact. Defaults to None: it is not logged.
    """

    def __init__(
        self,
        directory: Path,
        name: str,
        get_state: StateSource,
        retention: Retention,
        world: World,
        run: Run | None = None,
    ) -> None:
        super().__init__(directory / name, get_state, world)
        self._directory = directory
        self._retention = retention
        self._run = run

    def publish(self, digest: FileDigest) -> None:
        if self._run is not None:
            folder = self.path.parent.relative_to(self._directory).as_posix().removeprefix(".")
            self._run.log_artifact(self.path, folder)
        self._retention.prune_files(self._directory)

    def _collect(self, get_state: StateSource) -> dict[str, Any]:
        state = self.world.run_on_all_ranks(self.path.name, get_state)
        return cast(dict[str, Any], map_tensors(state, self._gather))

    def _gather(self, tensor: Tensor, _: str) -> Tensor:
        if not is_sharded(tensor):
            return tensor
        # All ranks gather. Only rank 0 keeps the result, on the host, which has more memory than a device.
        gathered = full_tensor(tensor)
        return gathered.cpu() if self.world.rank == 0 else gathered.new_empty(0)


def _to_host(state: dict[str, Any]) -> dict[str, Any]:
    # Shards are written from the device.
    return cast(dict[str, Any], map_tensors(state, lambda tensor, _: tensor if is_sharded(tensor) else tensor.cpu()))
