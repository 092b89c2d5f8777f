"""Ranks that are killed while they write a snapshot in shards: ``python -m tests.ranks.kills FOLDER``."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from pte_tracking._snapshots.shards import gather_shards
from tests.crash import killing
from tests.ranks import scenarios
from tests.ranks.forked import fork

#: Which rank is killed where.
PLACES = [
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
    net, optimizer = scenarios.learner(scenarios.shard)
    saved = scenarios.extensions.snapshot(trigger=(2, "iteration"), n_retains=1)
    manager = scenarios.learning(folder / "run", net, optimizer, saved)
    manager.resume()
    scenarios.learn(manager, net, optimizer)


def result(folder: Path) -> dict[str, Any]:
    run = folder / "run"
    snapshots = sorted(path.name for path in run.glob("*snapshot*"))
    saved = gather_shards(run / "snapshot_iter_8")
    return {
        "snapshots": snapshots,
        "rows": scenarios.rows(run),
        "listed": [entry["path"] for entry in json.loads((run / "checkpoints.json").read_text())],
        "weights": {key: tensor.tolist() for key, tensor in saved["models"]["main"].items()},
        "ranks": [each["buffers"]["main"]["layers.1.running_mean"].tolist() for each in saved["ranks"]],
    }


def main(folder: Path) -> None:
    (folder / "whole").mkdir()
    assert fork(train, 2, folder / "whole") == {}
    for number, (rank, place) in enumerate(PLACES):
        attempt = folder / str(number)
        attempt.mkdir()

        def train_until_killed(out: Path, rank: int = rank, place: str = place) -> None:
            if dist.get_rank() == rank:
                killing.arm(place)
            train(out)

        ended = fork(train_until_killed, 2, attempt)
        assert ended[rank] == -signal.SIGKILL, (place, ended)
        assert None not in ended.values(), f"{place}: the other rank hung"
        assert fork(train, 2, attempt) == {}, place
        assert result(attempt) == result(folder / "whole"), place


if __name__ == "__main__":
    main(Path(sys.argv[1]))
