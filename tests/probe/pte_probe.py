"""Probe sink, a third-party backend for tests.

It writes events to a file, keeps notes, and fails on request. The fixture ``packages`` installs it in a separate
directory, where it is found by its entry points.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pte_tracking._store import event_encoding
from pte_tracking._store import events as kinds
from pte_tracking._store.events import AnyEvent, Rewound, Status
from pte_tracking.sinks import Limits, PostponedEventsError, RejectedEventError, RunView, Sink, SinkClosedError


class ProbeError(Exception):
    """Raised by the probe sink on request."""


#: Called at every stage before which a test may inject a crash or an error.
hook: Callable[[str], None] = lambda stage: None  # noqa: E731


@dataclasses.dataclass(frozen=True)
class ProbeSink(Sink):
    """Sink that writes ``<folder>/<version>.jsonl``, of which the last version counts, and ``<folder>/notes.jsonl``.

    It reads ``<folder>/control.json``: ``{"fail": message, "hang": seconds, "bad": [seq, ...], "later": [seq, ...],
    "closed": reason, "lost": reason, "lost_once": reason, "refuse": reason}``. It stops hanging when the file changes.
    """

    name: ClassVar[str] = "probe"
    limits: ClassVar[Limits] = Limits(batch_values=50, batch_events=20)

    folder: str = ""
    can_rewind: bool = True

    @property
    def rewinds(self) -> bool:
        return self.can_rewind

    def open(self, run: RunView, state: Mapping[str, Any]) -> ProbeConnection:
        return ProbeConnection(Path(self.folder), self.can_rewind, run, state)


@dataclasses.dataclass(frozen=True)
class SecondProbeSink(ProbeSink):
    name: ClassVar[str] = "probe-two"
    limits: ClassVar[Limits] = Limits(separate_logs=True, batch_events=7)


@dataclasses.dataclass(frozen=True)
class NeedySink(ProbeSink):
    name: ClassVar[str] = "needy"
    requires: ClassVar[str | None] = "missing_client_library"
    install: ClassVar[str] = "pip install missing-client-library"


class ProbeConnection:
    """Connection whose file matches its state.

    If it cannot rewind, it keeps everything that was written and drops exact repetitions, as MLflow does.
    """

    def __init__(self, folder: Path, can_rewind: bool, run: RunView, state: Mapping[str, Any]) -> None:
        self._folder, self._run = folder, run
        self._version, self._size = state.get("version", 0), state.get("size", 0)
        folder.mkdir(parents=True, exist_ok=True)
        self._apply_control("open")
        with open(self._path, "ab") as file:
            if can_rewind:
                file.truncate(self._size)
            self._size = file.seek(0, os.SEEK_END)
        self._can_rewind = can_rewind
        self._note("open", run=run.id, torch="torch" in sys.modules)

    def write(self, events: Sequence[AnyEvent]) -> None:
        control = self._apply_control("write")
        assert sum(len(event.values) for event in events if isinstance(event, kinds.Metrics)) <= 50
        assert len(events) <= 20
        for event in events:
            if event.seq in control.get("bad", []):
                raise RejectedEventError(event.seq, "the control file says so")
        later = [event.seq for event in events if event.seq in control.get("later", [])]
        events = [event for event in events if event.seq not in later]
        self._store(events)
        if later:
            raise PostponedEventsError(dict.fromkeys(later, "the store is full")) from OSError("the store is full")

    def _store(self, events: Sequence[AnyEvent]) -> None:
        if not events:
            return
        if isinstance(events[0], Rewound):
            self._rewind(events[0])
            return
        lines = [event_encoding.encode(event) for event in events]
        if not self._can_rewind:
            stored_lines = set(self._path.read_bytes().splitlines(keepends=True))
            lines = [line for line in lines if line not in stored_lines]
        with open(self._path, "r+b") as file:
            file.truncate(self._size)
            file.seek(self._size)
            file.writelines(lines[: len(lines) // 2])
            file.flush()
            if not self._can_rewind:
                self._size = file.tell()
            hook("middle of a write")
            file.writelines(lines[len(lines) // 2 :])
            self._size = file.tell()
        hook("end of a write")

    def state(self) -> dict[str, Any]:
        hook("state")
        return {"version": self._version, "size": self._size}

    def close(self, status: Status | None) -> None:
        self._apply_control("close")
        self._note("close", status=status)

    @property
    def _path(self) -> Path:
        return self._folder / f"{self._version}.jsonl"

    def _rewind(self, rewound: Rewound) -> None:
        lines = self._path.read_bytes()[: self._size].splitlines(keepends=True)
        kept = [line for line in lines if event_encoding.decode(line).seq <= rewound.to_seq]
        removed = [event_encoding.decode(line) for line in lines[len(kept) :]]
        superseded = list(self._run.superseded(rewound))
        self._note("rewound", removed=[event.seq for event in removed], superseded=[event.seq for event in superseded])
        self._version += 1
        self._size = sum(map(len, kept))
        hook("middle of a rewind")
        self._path.write_bytes(b"".join(kept))

    def _apply_control(self, stage: str) -> dict[str, Any]:
        hook(stage)
        control = self._control()
        deadline = time.monotonic() + control.get("hang", 0)
        while time.monotonic() < deadline and self._control() == control:
            time.sleep(0.05)
        if "lost_once" in control:
            (self._folder / "control.json").unlink()
            raise SinkClosedError(control["lost_once"], is_lost=True)
        if "lost" in control:
            raise SinkClosedError(control["lost"], is_lost=True)
        if "closed" in control:
            raise SinkClosedError(control["closed"])
        if "refuse" in control:
            raise PermissionError(control["refuse"])
        if "fail" in control:
            raise ProbeError(control["fail"])
        return control

    def _control(self) -> dict[str, Any]:
        try:
            control: dict[str, Any] = json.loads((self._folder / "control.json").read_bytes())
        except FileNotFoundError:
            return {}
        return control

    def _note(self, kind: str, **fields: Any) -> None:
        with open(self._folder / "notes.jsonl", "a") as file:
            file.write(json.dumps({"kind": kind, "pid": os.getpid(), "time": time.time(), **fields}) + "\n")


class Probe:
    """Test side of a probe sink: reads its events and controls it.

    Args:
        folder: Directory of the probe sink.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def sink(self, **options: Any) -> ProbeSink:
        return ProbeSink(folder=str(self.folder), **options)

    def control(self, **instructions: Any) -> None:
        """Set the instructions for the sink."""
        temporary = self.folder / "control.tmp"
        temporary.write_text(json.dumps(instructions))
        temporary.replace(self.folder / "control.json")

    def events(self) -> list[AnyEvent]:
        """Return the stored events."""
        files = sorted(self.folder.glob("[0-9]*.jsonl"), key=lambda path: int(path.stem))
        return [event_encoding.decode(line) for line in files[-1].read_bytes().splitlines()] if files else []

    def points(self) -> list[tuple[str, int, Any]]:
        """Return all stored data points in order of delivery."""
        rows = [event for event in self.events() if isinstance(event, kinds.Metrics)]
        return [(key, row.step, value) for row in rows for key, value in row.values.items()]

    def notes(self, kind: str) -> list[Mapping[str, Any]]:
        """Return all notes of one kind."""
        path = self.folder / "notes.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [note for note in map(json.loads, lines) if note["kind"] == kind]

    @property
    def statuses(self) -> list[str | None]:
        """Statuses with which the sink was closed, in order."""
        return [note["status"] for note in self.notes("close")]
