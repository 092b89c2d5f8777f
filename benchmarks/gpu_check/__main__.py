"""Run the checks of ``gpu_check.sh``, each in its own process with a time limit.

``python benchmarks/gpu_check [--device cpu] [--seconds N] [ITEM ...]``

With ``--device cpu``, the same code runs without a GPU. This tests the checks, and measures nothing of the GPU.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import reports
import resumes
import snapshots
import torch


class Item(NamedTuple):
    """One check.

    Attributes:
        title: What is checked.
        check: Function of the device and an empty directory that returns a detail to print, and raises if the check
            fails.
        seconds: Time limit.
    """

    title: str
    check: Callable[[str, Path], str]
    seconds: float


ITEMS = {
    "amp": Item("bit-exact resume with AMP, GradScaler, and dropout", resumes.check_amp, 60),
    "generators": Item("bit-exact resume with separate generators on the device", resumes.check_generators, 60),
    "compiled": Item("bit-exact resume of a compiled model", resumes.check_compiled, 150),
    "pinned": Item("bit-exact resume with pinned batches and asynchronous copies", resumes.check_pinned, 60),
    "process-group": Item("bit-exact resume with DistributedDataParallel on one rank", resumes.check_ranks, 60),
    "copies": Item("snapshot of weights that change while it is copied and written", snapshots.check_copies, 60),
    "stall": Item("training blocked by a snapshot", snapshots.check_stall, 90),
    "memory": Item("memory after 100 snapshots", snapshots.check_memory, 90),
    "report": Item("no synchronization by report() in 1,000 steps", reports.check_synchronization, 120),
}


def run_item(name: str, device: str, limit: float) -> bool:
    """Run one check in another process and print its result."""
    start = time.monotonic()
    command = [sys.executable, str(Path(__file__).parent), "--device", device, "--in-process", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=max(limit, 0.1), env=environment())
        output = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines() or [""]
        is_passed, detail = done.returncode == 0, output[-1]
        if not is_passed:
            print("\n".join(output[:-1][-20:]), file=sys.stderr)
    except subprocess.TimeoutExpired:
        is_passed, detail = False, f"not completed within {limit:.0f} s"
    seconds = time.monotonic() - start
    print(f"{'pass' if is_passed else 'FAIL'}  {ITEMS[name].title}: {detail} ({seconds:.0f} s)", flush=True)
    return is_passed


def environment() -> dict[str, str]:
    """Return the environment of a check: deterministic kernels, one thread on the CPU, and no network."""
    interfaces = {"NCCL_SOCKET_IFNAME": "lo", "GLOO_SOCKET_IFNAME": "lo"}
    deterministic = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "OMP_NUM_THREADS": "1"}
    return {**os.environ, **interfaces, **deterministic, "PYTHONWARNINGS": "ignore"}


def main() -> int:
    """Run the selected checks.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("items", nargs="*", metavar="ITEM", help=f"of {', '.join(ITEMS)}; all by default")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--seconds", type=float, default=350, help="time limit of all checks together")
    parser.add_argument("--in-process", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if unknown := set(args.items) - ITEMS.keys():
        parser.error(f"unknown items: {', '.join(sorted(unknown))}. Expected items of {', '.join(ITEMS)}.")
    if args.device == "cuda" and not torch.cuda.is_available():
        print("FAIL  device: torch finds no GPU. Pass --device cpu to test the checks without one.")
        return 1
    if args.in_process:
        with tempfile.TemporaryDirectory() as folder:
            print(ITEMS[args.items[0]].check(args.device, Path(folder)))
        return 0
    name = torch.cuda.get_device_name() if args.device == "cuda" else "CPU"
    print(f"torch {torch.__version__}, Python {sys.version.split()[0]}, {name}", flush=True)
    deadline = time.monotonic() + args.seconds
    results = [
        run_item(item, args.device, min(ITEMS[item].seconds, deadline - time.monotonic()))
        for item in args.items or ITEMS
    ]
    if args.device == "cpu":
        print("The GPU part is unmeasured: the checks ran with --device cpu.")
    print(f"{sum(results)} of {len(results)} checks passed")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
