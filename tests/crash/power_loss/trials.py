"""Resume a training from each state that a loss of power may leave."""

from __future__ import annotations

import argparse
import collections
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

import torch
import training
from disk import Recorder, Recording, Tree, build_tree, read_tree, write_tree
from promises import Outcome, Promise, complete_training, find_fault, make_promise
from recording import find_missing_software, record
from states import State, list_states

_MAX_REPORTS = 2  # of one kind of fault


def record_training(name: str, root: Path) -> Recording:
    """Record a training in an empty directory.

    Raises:
        RuntimeError: If the recorded changes do not lead to the content of the directory.
    """
    command = [sys.executable, str(Path(training.__file__)), name, str(root / "run")]
    recording = Recorder(root).translate(record(command, root.with_suffix(".strace")))
    if build_tree(recording.changes) != read_tree(root):
        raise RuntimeError("The recorded changes do not lead to the content of the directory.")
    return recording


def try_state(name: str, tree: Tree, promise: Promise, expected: Outcome | None, root: Path) -> str | None:
    """Resume from a state in a forked process. Return the fault, or None."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    write_tree(tree, root)
    output = root.with_suffix(".txt")
    child = os.fork()
    if not child:
        code = 1
        try:
            descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            fault = find_fault(name, root, promise, expected)
            print(fault or "", flush=True)
            code = 2 if fault else 0
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return output.read_text()[-1500:] if status else None


def try_states(name: str, folder: Path, limit: int, chance: random.Random) -> tuple[int, int]:
    """Record a training and resume from its states. Return the number of states, and of those with a fault."""
    expected = None
    if name in training.TRAININGS:
        expected = complete_training(training.TRAININGS[name], folder / f"{name}-reference")[1]
    root = folder / name
    root.mkdir()
    recording = record_training(name, root)
    counts = range(1, len(recording.changes) + 1)
    if limit:
        moments = sorted(chance.sample(counts, min(max(limit // 5, 1), len(counts))))
        states = list_states(recording, moments, chance)
        states = sorted(chance.sample(states, min(limit, len(states))), key=lambda state: state.count)
    else:
        states = list_states(recording, counts, chance)
    print(f"{name}: {len(recording.changes)} changes, {len(recording.flushes)} flushes", flush=True)
    started, faults = time.monotonic(), collections.Counter[str]()
    for state in states:
        promise = make_promise(recording, state.count)
        if fault := try_state(name, state.build(recording), promise, expected, folder / "state"):
            kind = fault.strip().splitlines()[-1][:150]
            faults[kind] += 1
            if faults[kind] <= _MAX_REPORTS:
                print(f"{name}: {describe(state, recording)}: {fault}", flush=True)
    print(
        f"{name}: tried {len(states)} states in {time.monotonic() - started:.0f} s, faults: {dict(faults)}", flush=True
    )
    return len(states), faults.total()


def describe(state: State, recording: Recording) -> str:
    """Return a readable description of a state."""
    last = str(recording.changes[state.count - 1])[:200]
    damage = [f"{index} ({str(recording.changes[index])[:100]}): {value}" for index, value in state.damage.items()]
    return f"power lost after change {state.count}, {last}; " + "; ".join(damage[:6])


def main() -> int:
    names = [*training.TRAININGS, "rows"]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trainings", nargs="*", help=f"default: {' '.join(names)}")
    parser.add_argument("--states", type=int, default=0, help="maximum number of states of each training, 0 for all")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
    args = parser.parse_args()
    if missing := find_missing_software():
        sys.exit(missing)
    os.environ["PTE_TRACKING_DELIVERY"] = "off"
    torch.set_num_threads(1)
    # Nothing is flushed to a disk in memory, which makes the trials fast.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    chance = random.Random(args.seed)
    with tempfile.TemporaryDirectory(prefix="pte-power-loss-", dir=memory) as folder:
        results = [try_states(name, Path(folder), args.states, chance) for name in args.trainings or names]
    faulty = sum(count for _, count in results)
    print(f"{sum(count for count, _ in results)} states after a loss of power. States with a broken promise: {faulty}")
    return 1 if faulty else 0


if __name__ == "__main__":
    sys.exit(main())
