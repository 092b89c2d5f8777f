"""Run scenarios on several ranks.

``python -m tests.ranks.forked`` imports torch once for all tests of a pytest process. It forks a process for each
scenario, which forks one child per rank.
"""

from __future__ import annotations

import atexit
import functools
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
_OUTPUT = "output.txt"
_rounds = 0


def on_ranks(scenario: Callable[[Path], Any], ranks: int, folder: Path) -> list[Any]:
    """Run a scenario on several ranks.

    Args:
        scenario: Module-level function that receives ``folder`` and returns a JSON-serializable value.
        ranks: World size.
        folder: Directory for the run and the results. It is created if it does not exist.

    Returns:
        Return value of each rank, in order.
    """
    folder.mkdir(exist_ok=True)
    request = {
        "scenario": f"{scenario.__module__}:{scenario.__name__}",
        "ranks": ranks,
        "folder": str(folder),
        "environment": {**os.environ, "OMP_NUM_THREADS": "1"},
    }
    server = _start_server()
    assert server.stdin
    assert server.stdout
    print(json.dumps(request), file=server.stdin, flush=True)
    exit_code = server.stdout.readline().strip()
    assert exit_code == "0", (exit_code, (folder / _OUTPUT).read_text()[-6000:])
    return [json.loads((folder / f"result-{rank}.json").read_text()) for rank in range(ranks)]


@functools.cache
def _start_server() -> subprocess.Popen[str]:
    server = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "tests.ranks.forked"],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(server.kill)
    return server


def import_for_ranks() -> None:
    """Import what torch imports on first use, which takes each rank more than a second after a fork."""
    for name in ("torch._dynamo", "torch.distributed.checkpoint", "torch.distributed.fsdp"):
        importlib.import_module(name)


def serve() -> None:
    """Run a scenario for each line of standard input, and write its exit code to standard output."""
    import_for_ranks()
    for line in sys.stdin:
        request = json.loads(line)
        module, _, name = request["scenario"].partition(":")
        # Import before the fork, once for all ranks and for later scenarios of the module.
        function = getattr(importlib.import_module(module), name)
        child = os.fork()
        if not child:
            _run_scenario(function, request["ranks"], Path(request["folder"]), request["environment"])
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _run_scenario(function: Any, ranks: int, folder: Path, environment: dict[str, str]) -> None:
    code = 1
    try:
        os.environ.clear()
        os.environ.update(environment)
        with open(os.devnull) as empty, open(folder / _OUTPUT, "w") as output:
            for file, descriptor in ((empty, 0), (output, 1), (output, 2)):
                os.dup2(file.fileno(), descriptor)
        failed = fork(function, ranks, folder)
        if failed:
            print(f"Ranks failed (rank: exit code, None if killed after {_SECONDS} s): {failed}", file=sys.stderr)
        code = len(failed)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


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
    serve()
