"""Run scenarios on several ranks.

``python -m tests.ranks.forked MODULE:FUNCTION RANKS FOLDER`` imports torch once and forks one child per rank.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

_SECONDS = 120
_rounds = 0


def on_ranks(scenario: Callable[[Path], Any], ranks: int, folder: Path) -> list[Any]:
    """Run a scenario on several ranks.

    Args:
        scenario: Module-level function that receives ``folder`` and returns a JSON-serializable value.
        ranks: World size.
        folder: Directory for the run and the results.

    Returns:
        Return value of each rank, in order.
    """
    name = f"{scenario.__module__}:{scenario.__name__}"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.ranks.forked", name, str(ranks), str(folder)],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=_SECONDS + 30,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-6000:]
    return [json.loads((folder / f"result-{rank}.json").read_text()) for rank in range(ranks)]


def fork(function: Callable[[Path], Any], ranks: int, folder: Path) -> dict[int, int | None]:
    """Fork one child per rank and run a function in each.

    Returns:
        Exit code of each rank that failed. None for a rank that hung and was killed.
    """
    global _rounds
    _rounds += 1
    children = {}
    for rank in range(ranks):
        child = os.fork()
        if not child:
            _run_rank(rank, ranks, function, folder)
        children[child] = rank
    failed: dict[int, int | None] = {}
    deadline = time.monotonic() + _SECONDS
    while children and time.monotonic() < deadline:
        child, status = os.waitpid(-1, os.WNOHANG)
        if not child:
            time.sleep(0.01)
            continue
        rank = children.pop(child)
        if status:
            failed[rank] = os.waitstatus_to_exitcode(status)
    for child, rank in children.items():
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        failed[rank] = None
    return failed


def main(scenario: str, ranks: int, folder: Path) -> int:
    module, _, name = scenario.partition(":")
    # Import before the fork, once for all ranks.
    function = getattr(importlib.import_module(module), name)
    failed = fork(function, ranks, folder)
    if failed:
        print(f"Ranks failed (rank: exit code, None if killed after {_SECONDS} s): {failed}", file=sys.stderr)
    return len(failed)


def _run_rank(rank: int, ranks: int, function: Any, folder: Path) -> None:
    import torch.distributed as dist

    code = 1
    try:
        store = dist.FileStore(str(folder / f"store-{os.getppid()}-{_rounds}"), ranks)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks, timeout=timedelta(seconds=30))
        result = function(folder)
        (folder / f"result-{rank}.json").write_text(json.dumps(result))
        dist.destroy_process_group()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
