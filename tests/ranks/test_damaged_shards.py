"""Verification of damaged and forged sharded snapshots."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from pte_tracking._cli import app
from pte_tracking._snapshots.errors import SnapshotError
from pte_tracking._snapshots.file import load
from pte_tracking._snapshots.shards import gather_shards
from pte_tracking._store import checkpoint_files
from tests.ranks import snapshot_scenarios
from tests.ranks.components import make_single_process_manager
from tests.ranks.forked import on_ranks

pytestmark = pytest.mark.slow


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "missing index": ("snapshot.json", Path.unlink, "incomplete: snapshot.json is missing"),
    "damaged index": ("snapshot.json", lambda path: path.write_text("{"), "SHA-256|snapshot.json is damaged"),
    "missing shard": ("__1_0.distcp", Path.unlink, "incomplete: __1_0.distcp is missing"),
    "damaged shard": ("__0_0.distcp", flip_bit, "__0_0.distcp is damaged"),
    "truncated shard": (
        "__0_0.distcp",
        lambda path: os.truncate(path, 10),
        r"__0_0.distcp is damaged \(expected \d+ bytes, got 10",
    ),
    "damaged metadata": (".metadata", flip_bit, ".metadata is damaged"),
    "missing state": ("state.pt", Path.unlink, "incomplete: state.pt is missing"),
    "damaged state": ("state.pt", flip_bit, "state.pt is damaged"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_snapshot_is_skipped_and_named(damage: str, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    name, damage_file, reason = DAMAGES[damage]
    newest = folder / "run" / "snapshot_iter_8"
    damage_file(newest / name)
    with pytest.raises(SnapshotError, match=f"^{newest}: .*({reason})"):
        load(newest)
    verified = CliRunner().invoke(app, ["verify", str(folder / "run")])
    assert verified.exit_code == 1
    assert str(newest) in verified.output
    resumed = make_single_process_manager(folder / "run").resume()
    assert resumed is not None
    assert resumed.step == 6
    assert str(newest) in caplog.text


@pytest.mark.parametrize("damaged", [".metadata", "__0_0.distcp", "__1_0.distcp", "state.pt"])
def test_ranks_share_verification_and_agree_on_result(damaged: str, folder: Path) -> None:
    newest = folder / "run" / "snapshot_iter_8"
    flip_bit(newest / damaged)
    first, second = on_ranks(snapshot_scenarios.verify_on_all_ranks, 2, folder)
    assert first["step"] == second["step"] == 6
    assert first["checked"]["snapshot_iter_6"] == [".metadata", "__1_0.distcp"]
    assert second["checked"]["snapshot_iter_6"] == ["__0_0.distcp", "state.pt"]
    assert first["error"] == second["error"]
    assert f"{newest}: {damaged} is damaged" in first["error"]
    assert any(f"{damaged} is damaged" in line for line in first["log_messages"])
    assert second["log_messages"] == []


def forge(snapshot: Path, name: str, content: bytes) -> None:
    """Replace a file of a snapshot and update the digests in its index."""
    (snapshot / name).write_bytes(content)
    index = msgspec.json.decode(
        (snapshot / checkpoint_files.SNAPSHOT_INDEX).read_bytes(), type=checkpoint_files.SnapshotIndex
    )
    checkpoint_files.write_index(
        snapshot, {file: checkpoint_files.digest_file(snapshot / file) for file in {*index.files, name}}
    )


class CommandOnUnpickle:
    def __reduce__(self) -> Any:
        return os.system, ("touch executed",)


def metadata(snapshot: Path) -> Any:
    with open(snapshot / ".metadata", "rb") as file:
        return pickle.load(file)


def metadata_with_outside_path(snapshot: Path) -> bytes:
    checkpoint_metadata = metadata(snapshot)
    for entry in checkpoint_metadata.storage_data.values():
        entry.relative_path = "../../outside.distcp"
    return pickle.dumps(checkpoint_metadata)


def metadata_with_any_object(snapshot: Path) -> bytes:
    """Mark every entry as bytes, which torch would unpickle."""
    from torch.distributed.checkpoint.metadata import BytesStorageMetadata

    checkpoint_metadata = metadata(snapshot)
    for name in checkpoint_metadata.state_dict_metadata:
        checkpoint_metadata.state_dict_metadata[name] = BytesStorageMetadata()
    return pickle.dumps(checkpoint_metadata)


FORGED: dict[str, tuple[str, Callable[[Path], bytes]]] = {
    "command in metadata": (".metadata", lambda _: pickle.dumps(CommandOnUnpickle())),
    "outside path": (".metadata", metadata_with_outside_path),
    "arbitrary object": (".metadata", metadata_with_any_object),
    "patched type": (".metadata", lambda _: b"cpathlib\nPosixPath\n(N}S'name'\nS'../../x'\nstb."),
    "invalid metadata": (".metadata", lambda _: pickle.dumps({"x": 1})),
    "command in shard": ("__0_0.distcp", lambda _: pickle.dumps(CommandOnUnpickle()) * 4000),
    "command in state": ("state.pt", lambda _: pickle.dumps(CommandOnUnpickle())),
}


@pytest.mark.parametrize("kind", FORGED)
def test_forged_snapshot_executes_no_code(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    name, make = FORGED[kind]
    snapshot = folder / "run" / "snapshot_iter_8"
    forge(snapshot, name, make(snapshot))
    with pytest.raises(SnapshotError, match=f"^{snapshot}: "):
        gather_shards(snapshot)
    assert not Path("executed").exists()
    assert snapshot.name == "snapshot_iter_8", "the forged metadata modified pathlib.PosixPath"


def test_snapshot_index_with_outside_path_raises(folder: Path) -> None:
    snapshot = folder / "run" / "snapshot_iter_8"
    content = json.loads((snapshot / "snapshot.json").read_text())
    content["files"]["../../../log"] = content["files"]["state.pt"]
    (snapshot / "snapshot.json").write_text(json.dumps(content))
    with pytest.raises(SnapshotError, match="names a file outside"):
        load(snapshot)
