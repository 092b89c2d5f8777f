"""Many runs at once to one MLflow server on PostgreSQL: is all of it there once, what does the server do, who waits?

``python benchmarks/many_runs.py`` trains 50 runs of 2,000 iterations, each a process with its delivery process, a row
of three values every 50 ms. The same runs then log by ``mlflow.log_metrics``, 100 iterations each, as fast as the
server lets them: 2,000 would take an hour. What the server and PostgreSQL spend is told per thousand rows, so that the
two compare. Last, the runs deliver what they have logged while the server was away, all at the same moment.

Everything shares one machine, the trainings and their deliveries too. The server's pool of connections is larger than
by default: with that, many of the runs that use ``mlflow.log_metrics`` end with an error.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil
from _load import ENVIRONMENT, WORKERS, core_seconds, server_at
from _measure import Figure

from tests import servers
from tests.postgres import Postgres, find_missing_requirement, postgres

RUNS, ITERATIONS, SECONDS = 50, 2_000, 0.05
BARE_ITERATIONS = 100
KEYS = ("loss", "accuracy", "rate")
OUTAGE = 30.0  # seconds
_PATIENCE = 900.0
_LOOK_EVERY = 1.0


def values(iteration: int) -> dict[str, float]:
    return {key: (iteration + number) / 7 for number, key in enumerate(KEYS)}


def train(directory: str, uri: str, experiment: str, seconds: float) -> None:
    """One of our runs; it ends when all is delivered."""
    import pte_tracking as pte
    from pte_backends.mlflow import MLflowSink

    due = time.monotonic()
    with pte.Run(directory, sinks=[MLflowSink(uri, experiment)], close_timeout=_PATIENCE) as run:
        for iteration in range(1, ITERATIONS + 1):
            run.log_metrics(values(iteration), iteration)
            due += seconds
            time.sleep(max(due - time.monotonic(), 0))


def train_bare(uri: str, experiment: str) -> None:
    """One run that asks the server in every iteration."""
    import mlflow

    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment(experiment)
    with mlflow.start_run():
        for iteration in range(1, BARE_ITERATIONS + 1):
            mlflow.log_metrics(values(iteration), iteration)


class Load(NamedTuple):
    """What a load did.

    Attributes:
        rows: Rows that are stored.
        seconds: From the first start until the last point was there.
        requests: How often the server was asked, by endpoint.
        server: Seconds of a core that the MLflow server took.
        database: Seconds of a core that PostgreSQL took.
        late: For each run the seconds from its last row until that was there.
        halfway: The steps of all runs when half of all rows were there.
    """

    rows: int
    seconds: float
    requests: Counter[str]
    server: float
    database: float
    late: list[float]
    halfway: list[int]

    @property
    def rate(self) -> float:
        """Requests a second for each run."""
        return sum(self.requests.values()) / self.seconds / RUNS

    def tell(self, name: str) -> None:
        asked, thousands = sum(self.requests.values()), self.rows / 1000
        print(f"\n{name}: {self.rows:,} rows of {len(KEYS)} values in {self.seconds:.0f} s")
        print(f"  requests: {asked:,}, {asked / self.seconds:.1f}/s, {self.rate:.2f}/s for each run")
        print(f"  of which: {', '.join(f'{count:,} {what}' for what, count in self.requests.most_common(6))}")
        server, database = self.server / thousands, self.database / thousands
        print(f"  for a thousand rows: the server {server:.2f} s of a core, PostgreSQL {database:.2f} s")
        print(f"  from a run's last row until it is there: {_distribution(self.late)} s")
        print(f"  steps of the runs when half is there: {_distribution(self.halfway)}", flush=True)


def _distribution(numbers: list[float] | list[int]) -> str:
    return f"median {statistics.median(numbers):.3g}, {min(numbers):.3g} to {max(numbers):.3g}"


class Watch:
    """Looks at the server's log, at its database, and at what both take.

    Args:
        database: Where the server stores.
        folder: Where its log lies.
        experiment: The experiment that is loaded.
        port: Where the server listens.
    """

    def __init__(self, database: Postgres, folder: Path, experiment: str, port: int) -> None:
        self._database, self._log, self._experiment = database, folder / "server.log", experiment
        self._size = self._log.stat().st_size
        self._server = server_at(port)
        self._begun, self._spent = time.time(), self._processors()

    def wait(self, iterations: int) -> Load:
        """Until every run has all its points."""
        halfway: list[int] = []
        arrived: dict[str, float] = {}
        while len(arrived) < RUNS:
            if time.time() - self._begun > _PATIENCE:
                raise SystemExit(f"only {len(arrived)} of {RUNS} runs were whole in time")
            time.sleep(_LOOK_EVERY)
            found = self._ask("SELECT run_uuid, max(step) FROM latest_metrics JOIN runs USING (run_uuid) {} GROUP BY 1")
            arrived.update({run: time.time() for run, step in found if step == iterations and run not in arrived})
            if not halfway and sum(step for _, step in found) >= RUNS * iterations / 2:
                halfway = [step for _, step in found] + [0] * (RUNS - len(found))
        seconds = time.time() - self._begun
        server, database = (after - before for before, after in zip(self._spent, self._processors(), strict=True))
        logged = dict(
            self._ask("SELECT run_uuid, max(timestamp) / 1000.0 FROM metrics JOIN runs USING (run_uuid) {} GROUP BY 1")
        )
        late = [max(when - max(float(logged[run]), self._begun), 0.0) for run, when in arrived.items()]
        return Load(self._check(iterations), seconds, self._requests(), server, database, late, halfway)

    def _check(self, iterations: int) -> int:
        """The number of rows, each of which is there once and whole."""
        found = self._ask(
            "SELECT run_uuid, key, count(*), count(DISTINCT step), sum(value) FROM metrics JOIN runs USING (run_uuid) "
            "{} AND key != 'epoch' GROUP BY 1, 2"
        )
        expected = {key: sum(values(i)[key] for i in range(1, iterations + 1)) for key in KEYS}
        wrong = [row for row in found if row[2:4] != (iterations, iterations) or abs(row[4] - expected[row[1]]) > 1e-3]
        if wrong or len(found) != RUNS * len(KEYS):
            raise SystemExit(f"lost or doubled: {wrong}, {len(found)} curves")
        return RUNS * iterations

    def _ask(self, query: str) -> list[tuple[object, ...]]:
        where = f"JOIN experiments USING (experiment_id) WHERE experiments.name = '{self._experiment}'"
        return self._database.query(query.format(where), "mlflow")

    def _requests(self) -> Counter[str]:
        with open(self._log) as file:
            file.seek(self._size)
            return Counter(re.findall(r'"\w+ /api/[\d.]+/mlflow/([\w/-]+)', file.read()))

    def _processors(self) -> tuple[float, float]:
        """Seconds of a core that the server's and PostgreSQL's processes have taken."""
        return core_seconds(self._server), core_seconds(psutil.Process(self._database.process_id))


def run_all(command: Callable[[int], list[str]], watch: Callable[[], Load]) -> Load:
    """Start all runs at once and watch them to their end."""
    with open(os.devnull, "w") as nowhere:
        processes = [
            subprocess.Popen([sys.executable, __file__, *command(number)], stdout=nowhere) for number in range(RUNS)
        ]
    try:
        return watch()
    finally:
        for process in processes:
            process.wait(60)


def measure(folder: Path, database: Postgres) -> None:
    store, artifacts = database.create("mlflow"), str(folder / "artifacts")
    port = servers.free_port()
    uri = f"http://127.0.0.1:{port}"
    loads: dict[str, Load] = {}
    with servers.serve(folder, store, artifacts, ENVIRONMENT, workers=WORKERS, port=port):
        watch = Watch(database, folder, "ours", port)
        loads["ours"] = run_all(
            lambda number: ["train", str(folder / f"ours-{number}"), uri, "ours", str(SECONDS)],
            lambda: watch.wait(ITERATIONS),
        )
        loads["ours"].tell("pte_tracking")
        watch = Watch(database, folder, "bare", port)
        loads["bare"] = run_all(lambda number: ["train_bare", uri, "bare"], lambda: watch.wait(BARE_ITERATIONS))
        loads["bare"].tell("mlflow.log_metrics")

    def come_back() -> Load:
        time.sleep(OUTAGE)
        with servers.serve(folder, store, artifacts, ENVIRONMENT, workers=WORKERS, port=port):
            return Watch(database, folder, "outage", port).wait(ITERATIONS)

    loads["outage"] = run_all(lambda number: ["train", str(folder / f"outage-{number}"), uri, "outage", "0"], come_back)
    loads["outage"].tell("pte_tracking, after an outage")
    size = database.query("SELECT pg_total_relation_size('metrics') / count(*)::float FROM metrics", "mlflow")
    print(f"\nPostgreSQL keeps a point in {size[0][0]:.0f} bytes, indexes included")
    ours, bare = loads["ours"], loads["bare"]
    Figure(
        "50 runs at one server: its processor for a row",
        "mlflow.log_metrics in every iteration",
        [(ours.server + ours.database) / ours.rows / ((bare.server + bare.database) / bare.rows)],
        "<= 0.2",
    ).tell()
    Figure("50 runs at one server: requests for each run", "a second", [ours.rate], "<= 1.5").tell()
    Figure("50 runs at one server: the last to have its last point", "seconds", [max(ours.late)], "<= 30").tell()


def main() -> None:
    if len(sys.argv) > 1:
        work, *words = sys.argv[1:]
        train(*words[:3], float(words[3])) if work == "train" else train_bare(*words)
        return
    if reason := find_missing_requirement():
        raise SystemExit(reason)
    os.environ.update(servers.MLFLOW_ENVIRONMENT)
    with tempfile.TemporaryDirectory() as name, postgres(max_connections=200) as database:
        measure(Path(name), database)


if __name__ == "__main__":
    main()
