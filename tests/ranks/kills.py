"""Kill ranks while they write a sharded snapshot: ``python -m tests.ranks.kills FOLDER``."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from pte_tracking import extensions
from pte_tracking._snapshots.shards import gather_shards
from tests.crash import killing
from tests.ranks.components import make_net, make_training_manager, read_rows, shard_layers, train_net
from tests.ranks.forked import fork, import_for_ranks

#: Rank to kill and its kill point.
KILL_POINTS = [
    (0, "torch:save:2:before"),
    (0, "pte_tracking._snapshots.shards:write_index:2:before"),
    (0, "pte_tracking._snapshots.shards:write_index:2:after"),
    (0, "pte_tracking._snapshots.shards:sync_directory:4:before"),
    (0, "pte_tracking._runs.run:Run.log_checkpoint:2:before"),
    (0, "pte_tracking._runs.run:Run.remove_checkpoint:1:before"),
    (0, "pte_tracking._store.checkpoint_files:shutil.rmtree:1:before"),
    (1, "torch.distributed.checkpoint.state_dict_saver:save:2:before"),
    (1, "torch.distributed.checkpoint.state_dict_saver:save:2:after"),
    (1, "pte_tracking._snapshots.shards:digest_file:2:before"),
    (1, "pte_tracking._snapshots.shards:write:3:after"),
]


def train(folder: Path) -> None:
    torch.manual_seed(dist.get_rank())
    net, optimizer = make_net(shard_layers)
    saved = extensions.snapshot(trigger=(2, "iteration"), n_retains=1)
    manager = make_training_manager(folder / "run", net, optimizer, saved)
    manager.resume()
    train_net(manager, net, optimizer)


def read_result(folder: Path) -> dict[str, Any]:
    run = folder / "run"
    snapshots = sorted(path.name for path in run.glob("*snapshot*"))
    saved = gather_shards(run / "snapshot_iter_8")
    return {
        "snapshots": snapshots,
        "rows": read_rows(run),
        "listed": [entry["path"] for entry in json.loads((run / "checkpoints.json").read_text())],
        "weights": {key: tensor.tolist() for key, tensor in saved["models"]["main"].items()},
        "ranks": [rank_state["buffers"]["main"]["layers.1.running_mean"].tolist() for rank_state in saved["ranks"]],
    }


def main(folder: Path) -> None:
    import_for_ranks()
    (folder / "uninterrupted").mkdir()
    assert fork(train, 2, folder / "uninterrupted") == {}
    for number, (rank, kill_point) in enumerate(KILL_POINTS):
        attempt_folder = folder / str(number)
        attempt_folder.mkdir()

        def train_until_killed(out: Path, rank: int = rank, kill_point: str = kill_point) -> None:
            if dist.get_rank() == rank:
                killing.arm(kill_point)
            train(out)

        exit_codes = fork(train_until_killed, 2, attempt_folder)
        assert exit_codes[rank] == -signal.SIGKILL, (kill_point, exit_codes)
        assert None not in exit_codes.values(), f"{kill_point}: the other rank hangs"
        assert fork(train, 2, attempt_folder) == {}, kill_point
        assert read_result(attempt_folder) == read_result(folder / "uninterrupted"), kill_point


if __name__ == "__main__":
    main(Path(sys.argv[1]))
