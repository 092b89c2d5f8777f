"""Reproducible wheels and source archives, and the tests in the source archive."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from tests.packaging.archives import ROOT, build

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpacked source archive."""
    directory = tmp_path_factory.mktemp("sdist")
    with tarfile.open(build("sdist", directory)) as archive:
        archive.extractall(directory, filter="data")
    (folder,) = (path for path in directory.iterdir() if path.is_dir())
    return folder


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_two_builds_are_identical(kind: str, tmp_path: Path) -> None:
    first = build(kind, tmp_path / "first").read_bytes()
    time.sleep(2)  # the resolution of times in an archive
    assert build(kind, tmp_path / "second").read_bytes() == first


def test_source_archive_builds_the_same_wheel(unpacked: Path, tmp_path: Path) -> None:
    wheel = build("wheel", tmp_path / "tree")
    assert build("wheel", tmp_path / "archive", unpacked).read_bytes() == wheel.read_bytes()


def test_source_archive_contains_the_files_of_the_repository(unpacked: Path) -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("The tests run from a source archive.")
    files = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    assert {name for name in listed.stdout.splitlines() if (ROOT / name).exists()} - files == set()


def test_tests_run_from_source_archive(unpacked: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/triggers",
        "tests/test_packaging.py",
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(unpacked), str(unpacked / "backends")])}
    result = subprocess.run(
        command, cwd=unpacked, env=environment, capture_output=True, text=True, timeout=250, check=False
    )
    assert result.returncode == 0, result.stdout[-3000:]
