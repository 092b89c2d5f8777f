"""Logic of the GPU check, on the CPU."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
ITEMS = ["amp", "generators", "compiled", "pinned", "process-group", "copies", "stall", "memory", "report"]

pytestmark = pytest.mark.slow


def check(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / "gpu_check"), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=280)


@pytest.mark.parametrize("item", ITEMS)
def test_gpu_check_on_cpu_passes_and_reports_that_no_gpu_was_measured(item: str) -> None:
    if item == "compiled" and not shutil.which(os.environ.get("CXX", "g++")):
        pytest.skip("torch.compile needs a C++ compiler")
    done = check("--device", "cpu", "--seconds", "250", item)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[1].startswith("pass  ")
    assert "The GPU part is unmeasured" in done.stdout


def test_gpu_check_beyond_its_time_limit_fails() -> None:
    done = check("--device", "cpu", "--seconds", "0.1", "amp", "memory")
    assert done.returncode == 1
    assert done.stdout.count("FAIL  ") == 2
    assert "0 of 2 checks passed" in done.stdout


def test_gpu_check_with_failing_item_prints_the_reason() -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv.pop(1))\n"
        "import __main__ as started, runpy, snapshots\n"
        "snapshots.MAX_GROWTH_BYTES = -1e12\n"
        "sys.argv[1:] = ['--device', 'cpu', '--in-process', 'memory']\n"
        "runpy.run_path(sys.path[0], run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(BENCHMARKS / "gpu_check")], capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 1
    assert "expected at most -1000000 MB" in done.stderr


def test_gpu_check_with_unknown_item_lists_the_items() -> None:
    done = check("--device", "cpu", "speed")
    assert done.returncode == 2
    assert "unknown items: speed. Expected items of amp, generators" in done.stderr


def test_gpu_check_script_without_command_prints_its_usage() -> None:
    done = subprocess.run([BENCHMARKS / "gpu_check.sh"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "gpu_check.sh run [--device cpu] [ITEM ...]" in done.stderr


def test_gpu_check_requirements_exclude_torch_and_other_extras(tmp_path: Path) -> None:
    wheel = tmp_path / "a-1-py3-none-any.whl"
    requirements = ["torch>=2.4", "torchdata", "rich>=13", "numpy; extra == 'tensorboard'", 'mlflow; extra == "mlflow"']
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("a-1.dist-info/METADATA", "".join(f"Requires-Dist: {line}\n" for line in requirements))
    command = [sys.executable, str(BENCHMARKS / "gpu_check" / "list_requirements.py"), str(wheel)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["torchdata", "rich>=13", "numpy"]
