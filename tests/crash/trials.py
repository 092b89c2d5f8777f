"""Crash trials: kill training and delivery processes, resume, and compare with an uninterrupted run.

``python tests/crash/trials.py --kills 1000`` reproduces the result in the release notes.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

CRASH_TESTS = Path(__file__).parent
sys.path.insert(0, str(CRASH_TESTS))

import killing  # noqa: E402
import training  # noqa: E402  imports torch before the sessions are forked

from pte_tracking._store import lock  # noqa: E402
from pte_tracking._store.checkpoints import list_checkpoints  # noqa: E402
from pte_tracking._store.layout import DELIVERY_LOCK  # noqa: E402

OnRewind = Literal["keep", "fork"]
_MAX_SESSION_SECONDS = 90.0  # A session usually takes about 1 second.


def collect_evidence(folder: Path) -> dict[str, Any]:
    """Collect the results of a run that must not depend on kills."""
    return {
        "weights": json.loads((folder / "weights.json").read_text()),
        "snapshots": {
            "registered": [item.path for item in list_checkpoints(folder / "result")],
            "files": sorted(path.name for path in (folder / "result").glob("snapshot_iter_*")),
        },
        "log": _read_json_log(folder / "result" / "log"),
        "tensorboard": _read_tensorboard(folder / "result"),
        "mlflow": _read_mlflow(folder),
    }


def _read_json_log(path: Path) -> list[dict[str, Any]]:
    rows = json.loads(path.read_text())
    return [{key: value for key, value in row.items() if key != "elapsed_time"} for row in rows]


def _read_tensorboard(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(scalar.step, scalar.value) for scalar in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def _read_mlflow(folder: Path) -> dict[str, Any]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    # With on_rewind="fork", the superseded runs exist in addition and have this tag.
    (run,) = [run for run in client.search_runs(experiments) if "pte.superseded_by" not in run.data.tags]
    models = client.search_logged_models(experiments)
    return {
        "status": run.info.status,
        "params": run.data.params,
        "metrics": {
            key: sorted((point.step, point.value) for point in client.get_metric_history(run.info.run_id, key))
            for key in sorted(run.data.metrics)
        },
        "checkpoints": sorted((model.name, str(model.status)) for model in models),
    }


class Trial:
    """Run that is killed and resumed several times.

    Args:
        folder: New directory for the run and its MLflow database.
        store: Empty MLflow database to copy, because creating one takes seconds.
        seed: Random seed for the kill points and the times of the kills.
        kind: Kind of the training.
        on_rewind: Rewind mode of the MLflow sink. Defaults to ``"keep"``.
    """

    def __init__(self, folder: Path, store: Path, seed: int, kind: training.Kind, on_rewind: OnRewind = "keep") -> None:
        folder.mkdir(parents=True)
        shutil.copy(store, folder / "mlflow.db")
        self._kind: training.Kind = kind
        self._on_rewind = on_rewind
        self.folder = folder
        self.kills: list[str] = []
        self._random = random.Random(seed)

    def run(self, kills: int) -> dict[str, Any]:
        """Kill the training at most ``kills`` times, let it finish, and return its results."""
        for _ in range(kills):
            self.kills.append(self._run_killed_session())
            if (self.folder / "weights.json").exists():
                break
        while not (self.folder / "weights.json").exists():
            status = self._wait(self._fork(lambda: None, "", log="last.txt"))
            if status != 0:
                output = (self.folder / "last.txt").read_text()
                raise RuntimeError(f"The session without kills failed. End of its output:\n{output[-3000:]}")
        self._deliver_pending()
        return collect_evidence(self.folder)

    def _run_killed_session(self) -> str:
        choice = self._random.random()
        counts = {"n": self._random.randint(1, 25), "few": self._random.randint(1, 4)}
        if choice < 0.35:
            kill_point = self._random.choice(killing.TRAINING_KILL_POINTS).format(**counts)
            self._wait(self._fork(lambda: killing.arm(kill_point), ""))
            return f"training at {kill_point}"
        delivery_kill_point = self._random.choice(killing.DELIVERY_KILL_POINTS).format(**counts) if choice < 0.6 else ""
        child = self._fork(lambda: None, delivery_kill_point)
        time.sleep(self._random.uniform(0.0, 0.6))
        target = self._random.choice(["training", "delivery", "both"])
        if target != "training":
            self._kill_delivery()
        if target == "delivery":
            # The training continues for up to 0.4 s and is then killed as well.
            time.sleep(self._random.uniform(0.0, 0.4))
        _kill(child)
        self._wait(child)
        if delivery_kill_point:
            # Leave the delivery process time to reach its kill point.
            time.sleep(self._random.uniform(0.0, 2.0))
        return f"{target} at a random moment" + (f", delivery at {delivery_kill_point}" if delivery_kill_point else "")

    def _fork(self, arm: Callable[[], None], delivery_kill_point: str, log: str = "sessions.txt") -> int:
        child = os.fork()
        if child:
            return child
        code = 1
        try:
            output = os.open(self.folder / log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.environ["PTE_TEST_KILL"] = delivery_kill_point
            os.environ["PYTHONPATH"] = os.pathsep.join([str(CRASH_TESTS), os.environ.get("PYTHONPATH", "")])
            os.chdir(self.folder)
            arm()
            training.train(self.folder, self._on_rewind, self._kind)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _wait(self, child: int) -> int:
        deadline = time.monotonic() + _MAX_SESSION_SECONDS
        while True:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                return status
            if time.monotonic() > deadline:
                _kill(child)
                os.waitpid(child, 0)
                raise TimeoutError(f"A session took more than {_MAX_SESSION_SECONDS} s. Earlier kills: {self.kills}")
            time.sleep(0.005)

    def _kill_delivery(self) -> None:
        holder = lock.holder(self.folder / "result" / DELIVERY_LOCK)
        if holder and holder.pid:  # unknown until a new holder has written its record
            _kill(holder.pid)

    def _deliver_pending(self) -> None:
        from pte_tracking._delivery.sync import sync

        if undelivered := sync(self.folder / "result", timeout=30):
            raise RuntimeError(f"Not delivered: {undelivered}")


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def make_store(path: Path) -> Path:
    """Create an empty MLflow database."""
    from mlflow.tracking import MlflowClient

    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


def find_differences(expected: Any, actual: Any, path: str = "") -> list[str]:
    """Return a readable line for each difference between two results."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        keys = sorted(expected.keys() | actual.keys())
        return [
            line
            for key in keys
            for line in find_differences(expected.get(key, "missing"), actual.get(key, "missing"), f"{path}/{key}")
        ]
    if expected == actual:
        return []
    return [f"{path}:\n    expected {str(expected)[:700]}\n    actual   {str(actual)[:700]}"]


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Kill training and delivery processes, resume, and compare the results with an uninterrupted run."
    )
    parser.add_argument("--kills", type=int, default=1000, help="total number of kills (default: 1000)")
    parser.add_argument("--kills-per-run", type=int, default=12, help="maximum number of kills of a run (default: 12)")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
    args = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="pte-crash-"))
    store = make_store(root / "store.db")
    expected = {kind: Trial(root / f"reference-{kind}", store, 0, kind).run(0) for kind in training.KINDS}
    kill_count, failed_runs, kills_by_target = 0, 0, collections.Counter[str]()
    started = time.monotonic()
    number = 0
    while kill_count < args.kills:
        number += 1
        on_rewind: OnRewind = "keep" if number % 2 else "fork"
        kind = training.KINDS[number % len(training.KINDS)]
        trial = Trial(root / f"run-{number}", store, args.seed * 1_000_000 + number, kind, on_rewind)
        try:
            problems = find_differences(expected[kind], trial.run(args.kills_per_run))
        except Exception as error:
            problems = [f"{type(error).__name__}: {error}"]
        kill_count += len(trial.kills)
        kills_by_target.update(kill.split(" at ")[0] for kill in trial.kills)
        if problems:
            failed_runs += 1
            print(
                f"Run {number} in {trial.folder} ({kind}, on_rewind={on_rewind!r}) differs. Kills: {trial.kills}",
                *problems,
                sep="\n  ",
                flush=True,
            )
        else:
            shutil.rmtree(trial.folder)
        if number % 10 == 0:
            print(
                f"{kill_count} kills in {number} runs after {time.monotonic() - started:.0f} s. "
                f"Differing runs: {failed_runs}",
                flush=True,
            )
    print(
        f"{kill_count} kills ({dict(kills_by_target)}) in {number} runs. "
        f"Runs that differ from the uninterrupted run: {failed_runs}"
    )
    return 1 if failed_runs else 0


if __name__ == "__main__":
    sys.exit(main())
