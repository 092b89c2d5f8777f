"""SQLite backend with one row per run, per parameter and per data point."""

import contextlib
import dataclasses
import math
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pte_tracking.sinks import AnyEvent, Display, EventKind, Metrics, Params, Rewound, RunView, Sink, Status

_TABLES = """
CREATE TABLE IF NOT EXISTS runs (id TEXT PRIMARY KEY, name TEXT, status TEXT);
CREATE TABLE IF NOT EXISTS params (run TEXT, key TEXT, value, PRIMARY KEY (run, key));
CREATE TABLE IF NOT EXISTS points (run TEXT, seq, key TEXT, step, value REAL, time, PRIMARY KEY (run, seq, key));
"""


@dataclasses.dataclass(frozen=True)
class SqliteSink(Sink):
    name: ClassVar[str] = "sqlite"
    shows: ClassVar[Mapping[EventKind, Display]] = {"metrics": "native", "params": "native", "status": "native"}
    sources: ClassVar[tuple[str, ...]] = ("*.db",)
    path: str = "runs.db"

    def resolve(self) -> "SqliteSink":
        return dataclasses.replace(self, path=str(Path(self.path).absolute()))

    @classmethod
    def read_run(cls, source: str, directory: Path, *, run: str | None = None) -> Iterator[AnyEvent]:
        query = "SELECT key, step, value, time FROM points WHERE run = ? ORDER BY seq"
        with contextlib.closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as database:
            runs = [name for (name,) in database.execute("SELECT id FROM runs WHERE id = coalesce(?, id)", (run,))]
            if len(runs) != 1:
                raise ValueError(f"run: expected the ID of one run, got {run!r}. Runs in {source}: {runs}")
            for key, step, value, time in database.execute(query, runs):
                yield Metrics(0, time, step, {key: math.nan if value is None else value})

    def open(self, run: RunView, state: Mapping[str, Any]) -> "SqliteConnection":
        return SqliteConnection(self.path, run)


class SqliteConnection:
    def __init__(self, path: str, run: RunView) -> None:
        self._run = run.id
        self._database = sqlite3.connect(path, timeout=60, check_same_thread=False)
        self._database.executescript(_TABLES)
        self._database.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, 'RUNNING')", (run.id, run.name))
        self._database.commit()

    def write(self, events: Sequence[AnyEvent]) -> None:
        with self._database as database:  # one transaction per batch
            for event in events:
                if isinstance(event, Metrics):
                    points = [(self._run, event.seq, k, event.step, v, event.time) for k, v in event.values.items()]
                    database.executemany("INSERT OR REPLACE INTO points VALUES (?, ?, ?, ?, ?, ?)", points)
                elif isinstance(event, Params):
                    params = [(self._run, key, value) for key, value in event.values.items()]
                    database.executemany("INSERT OR REPLACE INTO params VALUES (?, ?, ?)", params)
                elif isinstance(event, Rewound):
                    superseded = (self._run, event.to_seq, event.seq)
                    database.execute("DELETE FROM points WHERE run = ? AND seq > ? AND seq < ?", superseded)

    def state(self) -> dict[str, Any]:
        return {}  # run, seq and key identify a data point, also of a split row, so a repetition replaces it

    def close(self, status: Status | None) -> None:
        if status:
            self._database.execute("UPDATE runs SET status = ? WHERE id = ?", (status, self._run))
            self._database.commit()
        self._database.close()
