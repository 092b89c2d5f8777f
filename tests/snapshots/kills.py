"""Kill and resume a training process: ``python -m tests.snapshots.kills FRONT_END FOLDER``."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.crash import killing
from tests.snapshots import small_training as small

#: Kill points while a snapshot is written, registered or pruned.
KILL_POINTS = [
    "torch:save:2:before",
    "torch:save:1:after",
    "os:fsync:3:before",
    "pte_tracking._snapshots.file:digest_file:2:after",
    "pte_tracking._snapshots.file:sync_directory:1:before",
    "pte_tracking._runs.run:Run.log_checkpoint:1:before",
    "pte_tracking._runs.run:Run.log_checkpoint:2:after",
    "pte_tracking._runs.run:Run.remove_checkpoint:1:before",
    "pte_tracking._runs.run:Run.remove_checkpoint:1:after",
]


def kill_in(iteration: int) -> small.Hook:
    def hook(current: int) -> None:
        if current == iteration:
            os.kill(os.getpid(), signal.SIGKILL)

    return hook


def session(out: Path, front_end: str, prepare: Callable[[], object] = lambda: None, hook: Any = None) -> int:
    """Train in a forked child, and return its exit code: negative signal number, or 0 on success."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        prepare()
        train(out, front_end, hook or (lambda iteration: None))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def train(out: Path, front_end: str, hook: small.Hook) -> None:
    extension_list = small.default_extensions(n_retains=1)
    weights, _ = small.train(out, front_end=front_end, extension_list=extension_list, hook=hook)
    (out / "weights.json").write_text(json.dumps(weights))


def read_result(out: Path) -> dict[str, Any]:
    return {
        "weights": json.loads((out / "weights.json").read_text()),
        "rows": small.read_rows(out),
        "files": sorted(path.name for path in out.glob("*snapshot*")),
    }


def main(front_end: str, folder: Path) -> None:
    # Train once in this process, so that lazy imports of torch happen before the forks.
    train(folder / "uninterrupted", front_end, lambda iteration: None)
    exit_codes = []
    for kill_point in KILL_POINTS:
        out = folder / kill_point.replace(":", "_")
        exit_codes.append(session(out, front_end, lambda kill_point=kill_point: killing.arm(kill_point)))
        assert session(out, front_end) == 0, kill_point
        assert read_result(out) == read_result(folder / "uninterrupted"), kill_point
    out = folder / "iterations"
    exit_codes += [session(out, front_end, hook=kill_in(iteration)) for iteration in (4, 11, 16, 17, 24)]
    assert session(out, front_end) == 0
    assert read_result(out) == read_result(folder / "uninterrupted")
    assert exit_codes == [-signal.SIGKILL] * len(exit_codes), exit_codes


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
