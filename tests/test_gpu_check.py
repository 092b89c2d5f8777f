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
ITEMS = ["amp", "generators", "pinned", "process-group", "copies", "memory", "stall", "report", "compiled"]
#: Checks of which a CPU shows nothing.
GPU_ITEMS = {"pinned", "stall", "report"}

pytestmark = pytest.mark.slow


def check(*args: str, package: Path = BENCHMARKS / "gpu_check") -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(package), *args], capture_output=True, text=True, timeout=280)


def copy_with(addition: str, folder: Path) -> Path:
    """Copy the checks, with code that is added to those of snapshots."""
    copied = folder / "gpu_check"
    shutil.copytree(BENCHMARKS / "gpu_check", copied, ignore=shutil.ignore_patterns("wheels*"))
    with (copied / "snapshots.py").open("a") as file:
        file.write(addition)
    return copied


@pytest.mark.parametrize("item", ITEMS)
def test_gpu_check_on_cpu_passes_and_names_the_part_that_was_not_measured(item: str) -> None:
    if item == "compiled" and not shutil.which(os.environ.get("CXX", "g++")):
        pytest.skip("torch.compile needs a C++ compiler")
    done = check("--device", "cpu", "--seconds", "250", item)
    assert done.returncode == 0, done.stdout + done.stderr
    line = done.stdout.splitlines()[1]
    assert line.startswith("not measured (no GPU)  " if item in GPU_ITEMS else "pass  ")
    assert "not measured (no GPU)" in line


def test_gpu_check_without_gpu_runs_on_cpu_and_exits_with_its_own_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    done = check("copies")
    assert done.returncode == 3, done.stdout + done.stderr
    assert done.stdout.splitlines()[1].startswith("pass  ")
    assert "torch finds no GPU: the checks ran on the CPU." in done.stdout
    assert "1 check: 1 pass" in done.stdout


def test_gpu_check_beyond_its_time_limit_prints_a_line_for_each_check_and_fails() -> None:
    done = check("--device", "cpu", "--seconds", "-5")
    assert done.returncode == 1
    lines = done.stdout.splitlines()[1:-1]
    assert len(lines) == len(ITEMS)
    assert all(line.startswith("FAIL  ") and "not completed within its limit of 0.0 s" in line for line in lines)
    assert done.stdout.endswith(f"{len(ITEMS)} checks: {len(ITEMS)} FAIL\n")


def test_gpu_check_that_does_not_end_is_ended_with_its_processes_before_the_others(tmp_path: Path) -> None:
    started = tmp_path / "started"
    hanging = f"""

def check_memory(device, folder):
    import subprocess
    child = subprocess.Popen(["sleep", "600"])
    Path({str(started)!r}).write_text(str(child.pid))
    child.wait()
"""
    done = check("--device", "cpu", "--seconds", "100", "memory", "copies", package=copy_with(hanging, tmp_path))
    assert done.returncode == 1, done.stdout + done.stderr
    ended, passed, total = done.stdout.splitlines()[1:]
    assert ended.startswith("FAIL  memory after 100 snapshots: not completed within its limit of 33.3 s")
    assert passed.startswith("pass  snapshot of weights")
    assert total == "2 checks: 1 FAIL, 1 pass"
    assert not is_running(int(started.read_text()))


def is_running(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_gpu_check_without_loopback_interface_does_not_measure_the_process_group() -> None:
    without_network = ["unshare", "--user", "--map-root-user", "--net"]
    if subprocess.run([*without_network, "true"], capture_output=True).returncode:
        pytest.skip("needs permission to create a network namespace")
    command = [*without_network, sys.executable, str(BENCHMARKS / "gpu_check"), "--device", "cpu", "process-group"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[1].startswith("not measured (no loopback interface)  bit-exact resume with Distrib")


def test_gpu_check_with_failing_item_prints_the_reason(tmp_path: Path) -> None:
    done = check("--device", "cpu", "memory", package=copy_with("\nMAX_GROWTH_BYTES = -1e12\n", tmp_path))
    assert done.returncode == 1
    line = done.stdout.splitlines()[1]
    assert line.startswith("FAIL  memory after 100 snapshots: AssertionError: host ")
    assert "expected at most -1000000 MB" in line
    assert "in check_memory" in done.stderr


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
