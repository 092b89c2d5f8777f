"""Command that runs a module in a new Python process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import pte_tracking

LIBRARY = Path(pte_tracking.__file__).resolve().parents[1]
SCRIPT = """
import subprocess, sys
sys.path[1:1] = {directories!r}
from pte_tracking._store.interpreter import python_command
print(subprocess.run(python_command("probe"), capture_output=True, text=True, check=True).stdout)
"""
PROBE = """
import json, sys
print(json.dumps([__name__, sys.path, sys.argv[1:]]))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Working directory with files that have the names of modules."""
    for name in ("runpy", "json", "queue"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a module of the working directory was imported')")
    (tmp_path / "libs").mkdir()
    (tmp_path / "libs" / "probe.py").write_text(PROBE)
    return tmp_path


def run(folder: Path, *arguments: str) -> list[str]:
    command = [sys.executable, *arguments]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    name, search_path, _ = json.loads(result.stdout)
    assert name == "__main__"
    return search_path  # type: ignore[no-any-return]


def write_script(folder: Path, directories: list[str], prefix: str = "") -> None:
    (folder / "scripts").mkdir(exist_ok=True)
    (folder / "scripts" / "train.py").write_text(prefix + SCRIPT.format(directories=directories))


def test_python_command_keeps_directories_and_their_order(folder: Path) -> None:
    write_script(folder, [str(LIBRARY), "libs", "second", ""])
    search_path = run(folder, "scripts/train.py")
    expected = [str(LIBRARY), str(folder / "libs"), str(folder / "second")]
    assert search_path[: len(expected)] == expected
    assert str(folder / "scripts") not in search_path
    assert "" not in search_path


@pytest.mark.parametrize(
    "arguments",
    [
        ["-c", SCRIPT.format(directories=["libs"])],
        pytest.param(
            ["-m", "scripts.train"],
            marks=pytest.mark.skipif(
                sys.version_info < (3, 11), reason="Python 3.10 itself imports runpy from the working directory."
            ),
        ),
    ],
    ids=["code", "module"],
)
def test_python_command_ignores_modules_of_working_directory(folder: Path, arguments: list[str]) -> None:
    # The script itself removes its directory while it imports the library.
    prefix = "import sys; first = sys.path.pop(0)\n"
    suffix = "import pte_tracking\nsys.path.insert(0, first)\n"
    write_script(folder, ["libs"], f"{prefix}sys.path.append({str(LIBRARY)!r})\n{suffix}")
    if arguments[0] == "-c":
        arguments = ["-c", f"{prefix}{suffix}{arguments[1]}"]
    search_path = run(folder, *arguments)
    assert str(folder) not in search_path
    assert "" not in search_path


def test_python_command_finds_library_next_to_script_last(folder: Path) -> None:
    write_script(folder, ["libs"])
    (folder / "scripts" / "pte_tracking").symlink_to(LIBRARY / "pte_tracking")
    search_path = run(folder, "scripts/train.py")
    assert search_path[0] == str(folder / "libs")
    assert search_path[-1] == str(folder / "scripts")


def test_python_command_directory_added_twice_is_kept(folder: Path) -> None:
    write_script(folder, [str(LIBRARY), "libs", str(folder / "scripts")])
    assert str(folder / "scripts") in run(folder, "scripts/train.py")
