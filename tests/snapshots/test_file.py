"""Snapshot files are written atomically and verified before they are loaded."""

import contextlib
import copy
import os
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pte_tracking._snapshots import file
from pte_tracking._snapshots.errors import SnapshotError
from pte_tracking._store.checkpoint_files import digest_file

STATE = {"models": {"main": {"weight": torch.arange(500.0), "bias": torch.ones(3)}}, "manager": {"iteration": 7}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "snapshot_iter_7"


def is_equal(actual: Any, expected: Any) -> bool:
    if isinstance(actual, torch.Tensor):
        return torch.equal(actual, expected)
    if isinstance(actual, dict):
        return list(actual) == list(expected) and all(is_equal(actual[key], expected[key]) for key in actual)
    return bool(actual == expected)


def test_write_then_load_returns_same_state(path: Path) -> None:
    written = file.write(path, STATE)
    assert written == digest_file(path)
    assert written.size == path.stat().st_size
    assert is_equal(file.load(path, written.sha256), STATE)
    assert is_equal(torch.load(path), STATE), "torch.load reads it without the package"
    assert file.peek(path)["manager"] == {"iteration": 7}
    assert os.listdir(path.parent) == [path.name]


def test_write_existing_file_is_replaced(path: Path) -> None:
    first = file.write(path, {"step": 1})
    second = file.write(path, {"step": 2})
    assert first != second
    assert file.load(path, second.sha256) == {"step": 2}
    with pytest.raises(SnapshotError, match="SHA-256"):
        file.load(path, first.sha256)


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Limit the size of files to 100 kB."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("full_disk")
def test_write_disk_full_keeps_previous_file(path: Path) -> None:
    file.write(path, {"step": 1})
    with pytest.raises(OSError, match="MB of the disk are free"):
        file.write(path, {"large": torch.zeros(100_000)})
    assert os.listdir(path.parent) == [path.name]
    assert file.load(path) == {"step": 1}


def test_write_unsavable_state_leaves_no_file(path: Path) -> None:
    with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
        file.write(path, {"function": lambda: None})
    assert os.listdir(path.parent) == []


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_load_flipped_bit_raises_or_returns_same_state(path: Path, data: st.DataObject) -> None:
    written = file.write(path, STATE)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    with pytest.raises(SnapshotError):
        file.load(path, written.sha256)
    with contextlib.suppress(SnapshotError):
        assert is_equal(file.load(path), STATE)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_load_truncated_file_raises_snapshot_error(path: Path, data: st.DataObject) -> None:
    file.write(path, STATE)
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(SnapshotError, match="damaged or not a snapshot"):
        file.load(path)


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch executed",)


class Inflated:
    def __reduce__(self) -> Any:
        return bytearray, (10**9,)


def write_compressed(path: Path) -> None:
    """Write a snapshot whose members are compressed."""
    torch.save({"x": torch.zeros(100_000)}, path)
    rewrite(path, zipfile.ZIP_DEFLATED)


def rewrite(path: Path, compression: int) -> None:
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def write_overlapping(path: Path) -> None:
    """Write a snapshot whose directory names the same bytes many times."""
    torch.save({"x": torch.zeros(1000)}, path)
    with zipfile.ZipFile(path, "a") as archive:
        member = next(member for member in archive.infolist() if member.filename.endswith("data/0"))
        for number in range(100):
            repeated = copy.copy(member)
            repeated.filename = f"more/{number}"
            archive.filelist.append(repeated)
        archive.writestr("end", b"")


def write_evil_zip(path: Path) -> None:
    """Write a file in the format of torch whose pickle runs a command."""
    torch.save({"x": torch.ones(2)}, path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, pickle.dumps({"x": Evil()}) if name.endswith("data.pkl") else content)


def doubled(levels: int) -> list[Any]:
    """Return a list that contains one element ``2 ** levels`` times."""
    value = [1]
    for _ in range(levels):
        value = [value, value]
    return value


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def cyclic() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


EXPANDED = torch.zeros(1).expand(10**9)

FOREIGN_FILES = {
    "tensor of shared elements": (
        lambda path: torch.save({"x": EXPANDED}, path),
        "its content claims 40000000.. bytes in a snapshot of",
    ),
    "tensors of shared elements": (
        lambda path: torch.save({str(number): EXPANDED[: 10**7] for number in range(10)}, path),
        "its content claims",
    ),
    "doubled lists": (lambda path: torch.save({"x": doubled(40)}, path), "its content claims"),
    "nested lists": (lambda path: torch.save({"x": nested(300)}, path), "nested more than 200 levels deep"),
    "cyclic list": (lambda path: torch.save({"x": cyclic()}, path), "nested more than 200 levels deep"),
    "missing file": (lambda path: None, "file not found"),
    "directory": (Path.mkdir, "incomplete: snapshot.json is missing"),
    "empty file": (Path.touch, r"damaged or not a snapshot \(0 bytes\)"),
    "text file": (lambda path: path.write_text("hello" * 100), "damaged or not a snapshot"),
    "pickle": (lambda path: path.write_bytes(pickle.dumps(Evil())), "damaged or not a snapshot"),
    "legacy torch file": (
        lambda path: torch.save({"x": Evil()}, path, _use_new_zipfile_serialization=False),
        "damaged or not a snapshot",
    ),
    "torch object file": (lambda path: torch.save({"x": Evil()}, path), "more than tensors and plain values"),
    "crafted torch file": (write_evil_zip, "more than tensors and plain values"),
    "byte array": (lambda path: torch.save({"x": Inflated()}, path), "more than tensors and plain values: bytearray"),
    "compressed": (write_compressed, "is compressed, which no snapshot is"),
    "overlapping members": (write_overlapping, "members claim .* bytes in a file of"),
    "module": (lambda path: torch.save(torch.nn.Linear(2, 2), path), "more than tensors and plain values"),
    "zip archive": (lambda path: zipfile.ZipFile(path, "w").writestr("readme", "hello"), "not a snapshot"),
    "tensor": (lambda path: torch.save(torch.ones(3), path), "it contains a Tensor instead of a dictionary"),
}


@pytest.mark.parametrize("kind", FOREIGN_FILES)
def test_load_foreign_file_raises_and_executes_nothing(kind: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    make, reason = FOREIGN_FILES[kind]
    make(path)
    for load in (file.load, file.peek) if path.is_file() else (file.load,):
        with pytest.raises(SnapshotError, match=f"^{path}: .*") as caught:
            load(path)
        if load is file.load:
            assert caught.match(reason)
        assert "weights_only=" not in str(caught.value)
        assert "can still be loaded" not in str(caught.value)
    assert not Path("executed").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch deprecates TorchScript
def test_load_torchscript_program_raises_snapshot_error(path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(path))
    with pytest.raises(SnapshotError, match="a TorchScript program"):
        file.load(path)


def test_load_tied_and_expanded_tensors_of_usual_size_is_accepted(path: Path) -> None:
    weight = torch.randn(1000, 1000)
    state = {"models": {str(number): weight for number in range(8)}, "mask": torch.zeros(1).expand(1000, 1000)}
    torch.save(state, path)
    assert set(file.load(path)) == {"models", "mask"}
