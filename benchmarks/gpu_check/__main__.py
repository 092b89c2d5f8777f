"""Run the checks of ``gpu_check.sh``, each in its own process with a time limit.

``python benchmarks/gpu_check [--device cpu] [--seconds N] [ITEM ...]``

Each check prints one line: ``pass``, ``FAIL``, or ``not measured`` with the reason, such as ``(no GPU)`` for what a CPU
cannot show. The exit status is 0 if all checks passed, 1 if one failed, 2 after wrong usage, and 3 if none failed but
some were not measured. With ``--device cpu``, the checks run on the CPU, and the exit status is 0 instead of 3.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import resumes
import torch
from items import ITEMS

PASSED, FAILED, NO_GPU = "pass", "FAIL", "not measured (no GPU)"
#: Exit status of a check that cannot run on this machine, and of all checks if some were not measured.
UNMEASURED_STATUS = 3
#: Limits of the time of each check except for the last one, in seconds and as a share of the time left for all.
MAX_SECONDS, MAX_SHARE = 60, 1 / 3


class Ended(NamedTuple):
    """Process that has ended.

    Attributes:
        status: Its exit status; None if it was stopped at its time limit.
        detail: Last line of its output.
        errors: Last lines of its errors.
    """

    status: int | None
    detail: str
    errors: list[str]


def run_items(names: Sequence[str], device: str, seconds: float) -> Counter[str]:
    """Run checks one after the other. None takes so much of the time left that nothing remains for the others.

    Args:
        names: Names of the checks.
        device: ``"cuda"`` or ``"cpu"``.
        seconds: Time limit of all checks together.

    Returns:
        The number of checks by result.
    """
    deadline = time.monotonic() + seconds
    results: Counter[str] = Counter()
    for name in names:
        seconds_left = max(deadline - time.monotonic(), 0)
        limit = seconds_left if name == names[-1] else min(MAX_SECONDS, MAX_SHARE * seconds_left)
        results[run_item(name, device, limit)] += 1
    return results


def run_item(name: str, device: str, limit: float) -> str:
    """Run one check in another process, print its result, and return the result without details.

    Args:
        name: Name of the check.
        device: ``"cuda"`` or ``"cpu"``.
        limit: Time limit in seconds.
    """
    item, start = ITEMS[name], time.monotonic()
    command = [sys.executable, str(Path(__file__).parent), "--device", device, "--in-process", name]
    status, detail, errors = run_process(command, limit)
    result = PASSED
    if status is None:
        result, detail = FAILED, f"not completed within its limit of {limit:.1f} s"
    elif status == UNMEASURED_STATUS:
        result, detail = f"not measured ({detail})", item.gpu_part
    elif status:
        print("\n".join(errors), file=sys.stderr)
        result, detail = FAILED, detail or f"exit status {status}"
    elif device == "cpu" and item.is_checked_on_cpu:
        detail = f"{detail}. {NO_GPU}: {item.gpu_part}"
    elif device == "cpu":
        result, detail = NO_GPU, f"{item.gpu_part}. The code runs on the CPU: {detail}"
    print(f"{result}  {item.title}: {detail} ({time.monotonic() - start:.0f} s)", flush=True)
    return result


def run_process(command: Sequence[str], limit: float) -> Ended:
    """Run a process, and end it with all processes that it started when the time limit is reached.

    Args:
        command: The command.
        limit: Time limit in seconds.
    """
    # Files, because a process that outlives its parent would keep a pipe open.
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=output, stderr=errors, env=environment(), start_new_session=True)
        status: int | None = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = process.wait(limit)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        output.seek(0)
        errors.seek(0)
        return Ended(status, output.read().strip().rpartition("\n")[2], errors.read().splitlines()[-20:])


def environment() -> dict[str, str]:
    """Return the environment of a check: deterministic kernels, one thread on the CPU, and no network."""
    interfaces = {"NCCL_SOCKET_IFNAME": "lo", "GLOO_SOCKET_IFNAME": "lo"}
    # Without the pool of processes for compilations, which takes longer to start than the few kernels to compile.
    deterministic = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    return {**os.environ, **interfaces, **deterministic, "PYTHONWARNINGS": "ignore"}


def parse_arguments() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("items", nargs="*", metavar="ITEM", help=f"of {', '.join(ITEMS)}; all by default")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--seconds", type=float, default=350, help="time limit of all checks together")
    parser.add_argument("--in-process", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if unknown := set(args.items) - ITEMS.keys():
        parser.error(f"unknown items: {', '.join(sorted(unknown))}. Expected items of {', '.join(ITEMS)}.")
    return args


def run_here(name: str, device: str) -> int:
    """Run one check in this process, and return its exit status."""
    # A delivery process that is ending may still write to a run directory.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            print(ITEMS[name].check(device, Path(folder)))
        except resumes.UnmeasuredError as error:
            print(error)
            return UNMEASURED_STATUS
        except Exception as error:
            traceback.print_exc()
            print(f"{type(error).__name__}: {error}".partition("\n")[0])
            return 1
    return 0


def main() -> int:
    """Run the selected checks.

    Returns:
        The exit status.
    """
    args = parse_arguments()
    device = args.device if torch.cuda.is_available() else "cpu"
    if args.in_process:
        return run_here(args.items[0], device)
    machine = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print(f"torch {torch.__version__}, Python {sys.version.split()[0]}, {machine}", flush=True)
    names = list(dict.fromkeys(args.items)) or list(ITEMS)
    results = run_items(names, device, args.seconds)
    if device != args.device:
        print("torch finds no GPU: the checks ran on the CPU.")
    totals = ", ".join(f"{count} {result}" for result, count in results.items())
    print(f"{len(names)} {'check' if len(names) == 1 else 'checks'}: {totals}")
    if results[FAILED]:
        return 1
    is_measured = device == args.device and (device == "cpu" or results[PASSED] == len(names))
    return 0 if is_measured else UNMEASURED_STATUS


if __name__ == "__main__":
    sys.exit(main())
