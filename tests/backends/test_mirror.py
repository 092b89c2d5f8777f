"""Mirror of a run in a directory."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import pte_tracking as pte
from pte_backends.mirror import MirrorSink, _journal, _parts
from pte_backends.mirror._store import Store
from pte_tracking import extensions
from pte_tracking._cli import app
from pte_tracking._delivery.sync import sync
from pte_tracking._store import events
from pte_tracking._store.checkpoint_files import checkpoint_digest, digest_file, write_index
from pte_tracking._store.layout import JOURNAL
from pte_tracking.testing import RecordedRun


def newest_first(checkpoints: Any) -> Any:
    return checkpoints[::-1]


def start(folder: Path) -> tuple[MirrorSink, RecordedRun]:
    sink = MirrorSink(str(folder / "mirror"))
    return sink, RecordedRun(folder / "run", sink)


def save(run: RecordedRun, name: str, step: int, content: bytes = b"weights") -> None:
    """Write a file and register it as a snapshot."""
    path = run.directory / name
    path.write_bytes(content)
    run.journal.append(events.Checkpoint, name, step, hashlib.sha256(content).hexdigest(), len(content), None, {})


def fetch(sink: MirrorSink, run: RecordedRun, folder: Path) -> Path | None:
    folder.mkdir()
    return sink.fetch_snapshot(run.manifest.id, folder, newest_first)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("hdfs://host/runs", "'hdfs' is not supported. Supported protocols: s3, "),
        ("s3://name:hidden@bucket/runs", "contains credentials"),
        ("s3://bucket/runs?secret=hidden", "contains credentials"),
        ("sftp://name:hidden@host/runs", "contains credentials"),
    ],
)
def test_unusable_url_is_refused_without_its_secrets(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        extensions.snapshot(mirror=url)
    assert "hidden" not in str(raised.value)


def test_missing_package_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"requires the package s3fs.*pip install 'pte-tracking\[s3\]'"):
        extensions.snapshot(mirror="s3://bucket/runs")


def test_wrong_use_of_mirror_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="expected a URL"):
        MirrorSink(Path("mirror"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="mirror: not allowed with target="):
        extensions.snapshot(target={}, mirror="mirror")
    with pytest.raises(ValueError, match="expected a URL such as"):
        pte.Run(tmp_path / "a", sinks=["mirror"]).open()
    with pytest.raises(ValueError, match=r"pass extensions.snapshot\(mirror='s3://bucket/runs'\)"):
        pte.Run("s3://bucket/runs")
    with pte.Run(tmp_path / "b") as run, pytest.raises(RuntimeError, match="Add the sink before resume"):
        run.add_sink(MirrorSink(str(tmp_path)))


def test_relative_path_is_stored_as_absolute_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert MirrorSink("backup").resolve() == MirrorSink(f"{tmp_path}/backup")
    assert MirrorSink("s3://bucket/runs/").resolve() == MirrorSink("s3://bucket/runs")


_KILLED = """
import os, signal, sys, types
from pathlib import Path
from pte_backends.mirror import _store
from pte_tracking._delivery.sync import sync

_store._CHUNK_BYTES = 1000

class KillingDigest:
    def __init__(self):
        self.size = 0
    def update(self, chunk):
        self.size += len(chunk)
        if self.size > 20_000:
            os.kill(os.getpid(), signal.SIGKILL)
    def hexdigest(self):
        return "0" * 64

_store.hashlib = types.SimpleNamespace(sha256=KillingDigest)  # of the upload only
sync(Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_upload_killed_in_the_middle_is_no_snapshot_and_is_repeated(tmp_path: Path) -> None:
    sink, run = start(tmp_path)
    save(run, "first", 1)
    run.deliver()
    save(run, "second", 2, os.urandom(50_000))
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(run.directory)], check=False, timeout=100)
    assert killed.returncode == -signal.SIGKILL
    (partial,) = Path(sink.url).rglob("second*")
    assert 0 < partial.stat().st_size < 50_000
    fetched = fetch(sink, run, tmp_path / "early")
    assert fetched is not None
    assert fetched.name == "first"
    run.crash()
    run.deliver()
    fetched = fetch(sink, run, tmp_path / "late")
    assert fetched is not None
    assert fetched.read_bytes() == (run.directory / "second").read_bytes()
    assert [path.name for path in Path(sink.url).rglob("second*")] == ["second"]


def test_sharded_snapshot_is_copied_and_a_damaged_shard_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sink, run = start(tmp_path)
    for step in (1, 2):
        directory = run.directory / f"shards_{step}"
        directory.mkdir()
        (directory / "a.pt").write_bytes(b"a" * step)
        (directory / "b.pt").write_bytes(b"b" * step)
        write_index(directory, {name: digest_file(directory / name) for name in ("a.pt", "b.pt")})
        digest = checkpoint_digest(directory)
        run.journal.append(events.Checkpoint, directory.name, step, digest.sha256, digest.size, None, {})
    run.deliver()
    (damaged,) = Path(sink.url).glob("*/snapshots/000000000002-*/b.pt")
    damaged.write_bytes(b"xx")
    fetched = fetch(sink, run, tmp_path / "fetched")
    assert fetched is not None
    assert {path.name: path.read_bytes() for path in fetched.iterdir() if path.suffix == ".pt"} == {
        "a.pt": b"a",
        "b.pt": b"b",
    }
    assert "b.pt is damaged" in caplog.text
    assert sorted(path.name for path in (tmp_path / "fetched").iterdir()) == [JOURNAL, "shards_1"]


def test_snapshot_of_same_path_replaces_the_earlier_one(tmp_path: Path) -> None:
    sink, run = start(tmp_path)
    save(run, "newest", 1, b"one")
    run.deliver()
    save(run, "newest", 2, b"two")
    run.deliver()
    (copy,) = Path(sink.url).glob("*/snapshots/*/newest")
    assert copy.read_bytes() == b"two"
    run.journal.append(events.CheckpointRemoved, "newest", 2)
    run.deliver()
    assert list(Path(sink.url).glob("*/snapshots/*")) == []


def test_snapshot_that_was_pruned_before_its_upload_is_left_out(tmp_path: Path) -> None:
    sink, run = start(tmp_path)
    save(run, "gone", 1)
    (run.directory / "gone").unlink()
    save(run, "changed", 2)
    (run.directory / "changed").write_bytes(b"others!")
    run.deliver()
    assert list(Path(sink.url).glob("*/snapshots/*")) == []
    assert run.rejected_events == {}


def test_snapshot_that_is_pruned_during_its_upload_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    upload = Store.upload

    def prune_and_upload(self: Store, path: Path, name: str) -> str:
        path.unlink()
        return upload(self, path, name)

    sink, run = start(tmp_path)
    save(run, "gone", 1)
    with monkeypatch.context() as pruning:
        pruning.setattr(Store, "upload", prune_and_upload)
        run.deliver()
    assert list(Path(sink.url).glob("*/snapshots/*")) == []
    assert run.rejected_events == {}
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []


def test_index_that_names_another_directory_is_not_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sink, run = start(tmp_path)
    save(run, "snapshot", 1)
    run.deliver()
    (index,) = Path(sink.url).rglob("index.json")
    index.write_text(index.read_text().replace('"snapshot": ', '"../../escaped": '))
    assert fetch(sink, run, tmp_path / "fetched") is None
    assert "the index names the file '../../escaped'" in caplog.text
    assert list(tmp_path.rglob("escaped")) == []


def test_journal_is_copied_in_few_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_parts, "_FULL_PART_BYTES", 600)
    monkeypatch.setattr(_parts, "_MAX_PART_BYTES", 1000)
    monkeypatch.setattr(MirrorSink, "poll_seconds", 0.0)
    sink, run = start(tmp_path)
    for step in range(40):
        run.log(step, {"a": float(step)})
        if step % 3 == 0:
            run.deliver()
    run.deliver()
    parts = sorted(Path(sink.url).glob("*/journal/*"))
    content = (run.directory / JOURNAL).read_bytes()
    assert b"".join(part.read_bytes() for part in parts) == content
    assert 3 < len(parts) < 12
    parts[-1].write_bytes(parts[-1].read_bytes()[:-1])  # an incomplete part is not used
    _journal.download_journal(Store(sink.url), run.manifest.id, tmp_path / "joined")
    joined = (tmp_path / "joined").read_bytes()
    assert content.startswith(joined)
    assert joined.endswith(b"\n")
    assert len(joined) < len(content)
    run.crash()
    run.end()  # the incomplete part is replaced
    _journal.download_journal(Store(sink.url), run.manifest.id, tmp_path / "joined")
    assert (tmp_path / "joined").read_bytes() == (run.directory / JOURNAL).read_bytes()


def test_last_events_are_copied_without_a_further_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MirrorSink, "poll_seconds", 0.2)
    sink, run = start(tmp_path)
    run.deliver()
    run.log(1, {"a": 1.0})
    run.deliver()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        run.deliver()
        (part,) = Path(sink.url).glob("*/journal/*.jsonl")
        if part.read_bytes() == (run.directory / JOURNAL).read_bytes():
            return
        time.sleep(0.05)
    raise AssertionError("the last event is not at the mirror")


def test_journal_shortened_by_loss_of_power_replaces_the_copy(tmp_path: Path) -> None:
    sink, run = start(tmp_path)
    run.log(1, {"a": 1.0})
    position = run.journal.end
    save(run, "late", 2)
    run.deliver()
    run.crash()
    os.truncate(run.directory / JOURNAL, position.position)
    with open(run.directory / JOURNAL, "ab") as file:
        file.write(b'{"kind":"metrics","seq":3,"time":1.0,"step":2,"values":{"a":2.0},"epoch":null}\n')
    run.deliver()
    (part,) = Path(sink.url).glob("*/journal/*.jsonl")
    assert part.read_bytes() == (run.directory / JOURNAL).read_bytes()
    assert fetch(sink, run, tmp_path / "fetched") is None  # the snapshot belongs to events that are lost


def test_mirror_is_not_listed_as_a_run_without_journal(tmp_path: Path) -> None:
    _, run = start(tmp_path)
    run.deliver()
    result = CliRunner().invoke(app, ["list", str(tmp_path)])
    assert (result.exit_code, result.stderr) == (0, "")


def test_emptied_mirror_receives_everything_again(tmp_path: Path) -> None:
    sink, run = start(tmp_path)
    save(run, "snapshot", 1)
    run.deliver()
    shutil.rmtree(sink.url)
    run.crash()
    run.log(2, {"a": 1.0})
    run.end()
    run.end()
    fetched = tmp_path / "fetched"
    fetched.mkdir()
    assert sink.fetch_snapshot(None, fetched, newest_first) == fetched / "snapshot"


def test_unavailable_mirror_is_shown_and_retried(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "disk").write_text("not mounted")
    caplog.set_level(logging.ERROR)
    with pte.Run(tmp_path / "run", sinks=["json", MirrorSink(str(tmp_path / "disk" / "runs"))], close_timeout=0) as run:
        run.log_metrics({"a": 1.0}, 1)
    (pending,) = sync(run.directory, timeout=1)
    assert "NotADirectoryError" in str(pending)
    shown = CliRunner().invoke(app, ["show", str(run.directory)]).output
    assert "mirror" in shown
    assert "NotADirectoryError" in " ".join(shown.split())
    (tmp_path / "disk").unlink()
    assert sync(run.directory, timeout=60) == []
    assert len(list((tmp_path / "disk" / "runs").glob("*/journal/*"))) == 1


def test_two_mirrors_are_two_sinks_and_one_twice_is_one(tmp_path: Path) -> None:
    run = pte.Run(tmp_path / "run", sinks=[])
    first = MirrorSink(str(tmp_path / "a"))
    for sink in (first, dataclasses.replace(first), MirrorSink(str(tmp_path / "b"))):
        run.add_sink(sink)
    assert [sink.url for sink in run.sinks] == [str(tmp_path / "a"), str(tmp_path / "b")]  # type: ignore[attr-defined]
