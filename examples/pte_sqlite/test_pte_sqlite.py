import math
import sqlite3

from pte_sqlite import SqliteSink

from pte_tracking.testing import SinkContract


class TestSqlite(SinkContract):
    def make_sink(self, folder):
        return SqliteSink(str(folder / "runs.db"))

    def read_points(self, sink, run_directory):
        points = {}
        database = sqlite3.connect(sink.path)
        for key, step, value in database.execute("SELECT key, step, value FROM points ORDER BY step"):
            points.setdefault(key, []).append((step, math.nan if value is None else value))
        database.close()
        return points

    def find_source(self, sink, run_directory):
        return sink.path, {}

    def read_shown(self, sink, run_directory):
        database = sqlite3.connect(sink.path)
        (status,) = database.execute("SELECT status FROM runs").fetchone()
        (rate,) = database.execute("SELECT value FROM params WHERE key = 'lr'").fetchone()
        database.close()
        return {
            "metrics": "native" if "a" in self.read_points(sink, run_directory) else None,
            "params": "native" if rate == 0.1 else None,
            "status": "native" if status == "FINISHED" else None,
        }
