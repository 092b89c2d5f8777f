"""Tests that start each recipe twice in an empty directory."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import pte_tracking as pte
from pte_tracking._delivery.sync import sync
from pte_tracking.sinks import JOURNAL, Rewound, RunStarted, find_events

RECIPES = Path(__file__).parent.parent / "examples" / "recipes"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),  # raised inside MLflow
]

#: Starts a script in several folders, each time in a new process. The import of torch, and of what it imports on first
#: use, takes most of the time of a start, so all processes inherit it. A start may fail in a step of an optimizer.
START = """
import itertools, os, runpy, sys, torch._dynamo
from torch.optim.optimizer import register_optimizer_step_post_hook

_, script, *starts = sys.argv
sys.argv = [script]
for folder, failing_step in zip(starts[::2], map(int, starts[1::2])):
    child = os.fork()
    if not child:
        os.chdir(folder)
        steps = itertools.count(1)
        register_optimizer_step_post_hook(lambda *_: 1 // abs(next(steps) - failing_step))
        runpy.run_path(script, run_name="__main__")
        sys.exit()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print("exit status", status, flush=True)
"""


def start_each(recipe: str, *starts: tuple[Path, int]) -> list[str]:
    """Start a recipe several times and return the outputs, standard error included.

    Args:
        recipe: File name of the recipe.
        starts: Working directory of each start, and the number of the step of an optimizer, from 1, that fails; 0 if
            none does.
    """
    done = subprocess.run(
        [sys.executable, "-c", START, str(RECIPES / recipe), *(str(item) for start in starts for item in start)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout
    outputs = re.split(r"exit status (.+)\n", done.stdout)
    assert outputs[1::2] == [str(int(bool(failing_step))) for _, failing_step in starts], done.stdout
    return outputs[::2][:-1]


def start_twice(recipe: str, folder: Path) -> list[str]:
    """Return the outputs of two starts of a recipe, the second of which resumes the run of the first."""
    return start_each(recipe, (folder, 0), (folder, 0))


def column(rows: list[dict[str, Any]], key: str) -> list[Any]:
    return [row[key] for row in rows if key in row]


def check_validation(rows: list[dict[str, Any]], folder: Path) -> None:
    assert column(rows, "iteration") == list(range(10, 130, 10))
    assert [row["iteration"] for row in rows if "val/loss" in row] == [40, 80, 120]


def check_mixed_precision(rows: list[dict[str, Any]], folder: Path) -> None:
    assert column(rows, "train/loss")[-1] < column(rows, "train/loss")[0] / 2
    assert len(column(rows, "train/gradient_norm")) == 4


def check_tokens(rows: list[dict[str, Any]], folder: Path) -> None:
    # Each iteration has 16 * 32 tokens.
    assert column(rows, "tokens") == [512 * iteration for iteration in (20, 40, 60, 80, 100)]


def check_gan(rows: list[dict[str, Any]], folder: Path) -> None:
    assert [(row["epoch"], row["iteration"]) for row in rows] == [(epoch, 4 * epoch) for epoch in range(1, 11)]
    assert {"loss/critic", "loss/generator"} <= rows[-1].keys()
    assert len(list((folder / "gan" / "images" / "samples").iterdir())) == 10
    optimizers = torch.load(folder / "gan" / "snapshot_iter_40")["optimizers"]
    steps = {name: optimizer["state"][0]["step"] for name, optimizer in optimizers.items()}
    assert steps == {"generator": 40, "critic": 80}


def check_nanogpt(rows: list[dict[str, Any]], folder: Path) -> None:
    evaluated = {row["iteration"]: row["estimate/val"] for row in rows if "estimate/val" in row}
    assert list(evaluated) == [0, 40, 80, 120, 160, 200]
    rates = column(rows, "train/lr")
    assert rates[0] < rates[1] > rates[2] > rates[-1]
    best = pte.load(folder / "nanogpt", "best")
    assert best.values["estimate/val"] == min(list(evaluated.values())[1:]) < evaluated[0] / 2


def check_autoencoder(rows: list[dict[str, Any]], folder: Path) -> None:
    assert len(rows) < 30, "early stopping"
    assert len(list((folder / "autoencoder" / "images" / "reconstructions").iterdir())) == len(rows)
    for number, row in enumerate(rows):
        rates = [row["lr/encoder"], row["lr/decoder"]]
        assert rates == pytest.approx([2e-3 * 0.9**number, 4e-3 * 0.9**number])
    program = torch.export.load(folder / "autoencoder.pt2").module()
    images = torch.rand(3, 1, 16, 16)
    best = pte.load(folder / "autoencoder", "best")
    assert program.state_dict().keys() == best.state["models"]["main"].keys()
    assert program(images).shape == images.shape
    assert best.values["val/loss"] == min(column(rows, "val/loss"))


def check_ignite_epochs(rows: list[dict[str, Any]], folder: Path) -> None:
    assert column(rows, "epoch") == [1, 2, 3, 4, 5]
    assert column(rows, "train/lr") == pytest.approx([0.5 * 0.9**epoch for epoch in range(5)])
    assert {"train/loss", "val/loss", "val/accuracy"} <= rows[0].keys()
    assert pte.load(folder / "ignite_epochs", "best").values["val/loss"] == min(column(rows, "val/loss"))


def check_best_checkpoint(rows: list[dict[str, Any]], folder: Path) -> None:
    assert torch.load(folder / "weights.pt").keys() == {"weight", "bias"}
    best = pte.load(folder / "best_checkpoint", "best")
    assert best.values["val/loss"] == min(column(rows, "val/loss"))


def check_custom_extension(rows: list[dict[str, Any]], folder: Path) -> None:
    assert "WeightAverage" in torch.load(folder / "custom_extension" / "snapshot_iter_60")["extensions"]
    assert len(column(rows, "average/loss")) == 3


def check_reinforcement(rows: list[dict[str, Any]], folder: Path) -> None:
    assert column(rows, "iteration")[-1] == 6_000
    assert column(rows, "episode/length")[-1] < 7 < column(rows, "episode/length")[0]  # the shortest has 5 steps


def check_segmentation(rows: list[dict[str, Any]], folder: Path) -> None:
    assert all(rows[-1][f"val/iou/{name}"] > 0.8 for name in ("background", "bright", "dark"))


def check_several_loaders(rows: list[dict[str, Any]], folder: Path) -> None:
    assert column(rows, "iteration") == [20, 40, 60, 80]
    assert {"loss/supervised", "loss/consistency"} <= rows[-1].keys()


def check_unfreezing(rows: list[dict[str, Any]], folder: Path) -> None:
    assert column(rows, "train/frozen") == [1, 1, 0, 0]


def check_preemption(rows: list[dict[str, Any]], folder: Path) -> None:
    assert column(rows, "epoch") == list(range(1, 21))


CHECKS: dict[str, Callable[[list[dict[str, Any]], Path], None]] = {
    name.removeprefix("check_"): check for name, check in list(globals().items()) if name.startswith("check_")
}


@pytest.mark.parametrize("recipe", CHECKS)
def test_recipe_shows_its_point_and_second_start_trains_nothing(recipe: str, tmp_path: Path) -> None:
    _, second = start_twice(f"{recipe}.py", tmp_path)
    assert "nothing is left to train" in second
    (run,) = pte.open_runs(tmp_path)
    assert run.status == "FINISHED"
    assert not (tmp_path / recipe / "previous").exists()
    starts = [event.resumed for event, _ in find_events(run.directory / JOURNAL, RunStarted)]
    assert starts[:1] == [False]
    assert not list(find_events(run.directory / JOURNAL, Rewound))
    CHECKS[recipe](json.loads((tmp_path / recipe / "log").read_text()), tmp_path)


@pytest.mark.parametrize(
    ("recipe", "failing_step"), [("nanogpt", 90), ("autoencoder", 50), ("gan", 25), ("ignite_epochs", 25)]
)
def test_recipe_interrupted_between_snapshots_resumes_exactly(recipe: str, failing_step: int, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir(), parts.mkdir()
    *_, resumed = start_each(f"{recipe}.py", (whole, 0), (parts, failing_step), (parts, 0))
    assert "resumed from snapshot_iter_" in resumed
    logs = [json.loads((folder / recipe / "log").read_text()) for folder in (whole, parts)]
    for row in itertools.chain(*logs):
        del row["elapsed_time"]
    assert logs[0] == logs[1]


def test_results_of_two_runs_form_table(tmp_path: Path) -> None:
    for printed in start_twice("results.py", tmp_path):
        header, *rows = (line.split() for line in printed.splitlines())
        assert header == ["name", "lr", "status", "loss"]
        assert [row[:3] for row in rows] == [["lr-0.1", "0.10", "FINISHED"], ["lr-0.01", "0.01", "FINISHED"]]


def test_every_recipe_is_tested_and_at_most_90_lines_long() -> None:
    scripts = sorted(RECIPES.glob("*.py"))
    assert {path.stem for path in scripts} == {*CHECKS, "results"}
    assert {path.name for path in RECIPES.iterdir() if len(path.read_text().splitlines()) > 90} == set()


@pytest.fixture
def slurm_job(tmp_path: Path) -> dict[str, str]:
    """Environment of a Slurm job in which ``srun`` runs its command, and ``scontrol`` writes down its arguments."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, body in {
        "srun": 'echo $$ > srun.pid\nexec "$@"',
        "scontrol": 'echo "$@" >> scontrol.txt',
        "python": f'exec {sys.executable} "$@"',
    }.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    (tmp_path / "preemption.py").write_text((RECIPES / "preemption.py").read_text())
    return os.environ | {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "4711",
        "SLURM_SUBMIT_DIR": str(tmp_path),
    }


def start_job(environment: dict[str, str], start: int, signal_job: Callable[[int], None]) -> tuple[int, str]:
    """Start ``slurm.sh`` and return its exit status and output.

    Args:
        environment: Environment variables.
        start: Number of the start of the job, from 1.
        signal_job: Function that is called with the process ID of the shell when a row is printed.
    """
    environment = environment | ({"SLURM_RESTART_COUNT": str(start - 1)} if start > 1 else {})
    command = ["bash", str(RECIPES / "slurm.sh"), "--epochs", "60"]
    printed = []
    with subprocess.Popen(
        command, cwd="/", env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as job:
        assert job.stdout
        for line in job.stdout:
            printed.append(line)
            if len(printed) == 3:  # the number of the start, the header, and the first row
                signal_job(job.pid)
        return job.wait(60), "".join(printed)


def test_slurm_job_stopped_twice_completes_same_run(slurm_job: dict[str, str], tmp_path: Path) -> None:
    directory = tmp_path / "runs" / "4711"

    def reach_time_limit(shell: int) -> None:
        os.kill(shell, signal.SIGUSR1)

    def preempt(shell: int) -> None:
        os.kill(shell, signal.SIGTERM)  # Some configurations of Slurm signal the shell, too.
        os.kill(int((tmp_path / "srun.pid").read_text()), signal.SIGTERM)

    step, stopped = 0, []
    for start, stop in enumerate([reach_time_limit, preempt], 1):
        status, printed = start_job(slurm_job, start, stop)
        assert status == 128 + signal.SIGTERM, printed
        assert f"iteration {step}, requeues of the job: {start - 1}\n" in printed
        (run,) = pte.open_runs(directory)
        assert run.status == "KILLED"
        stopped.append(run.id)
        step = max(checkpoint.step for checkpoint in run.checkpoints)
        assert 0 < step < 3_000
        # The script requeues the job at the time limit. Slurm requeues a preempted one, and must not a canceled one.
        assert (tmp_path / "scontrol.txt").read_text() == "requeue 4711\n"

    status, printed = start_job(slurm_job, 3, lambda shell: None)
    assert status == 0, printed
    assert f"iteration {step}, requeues of the job: 2\n" in printed
    (run,) = pte.open_runs(directory)
    assert (run.status, stopped) == ("FINISHED", [run.id] * 2)
    assert column(json.loads((directory / "log").read_text()), "epoch") == list(range(1, 61))


def test_two_nodes_form_one_run(tmp_path: Path, mlflow_store: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["bash", str(RECIPES / "two_nodes.sh"), f"127.0.0.1:{port}", "--epochs", "2"]
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": mlflow_store,
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    nodes = [
        subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for _ in range(2)
    ]
    try:
        outputs = [node.communicate(timeout=150)[0] for node in nodes]
    finally:
        for node in nodes:
            node.kill()
    assert [node.returncode for node in nodes] == [0, 0], outputs
    assert sync(tmp_path / "result", timeout=60) == []
    (run,) = pte.open_runs(tmp_path)
    assert (run.status, run.params["ranks"]) == ("FINISHED", 2)
    rows = json.loads((tmp_path / "result" / "log").read_text())
    # 45 batches of 32 in a single process, 23 on each of two nodes.
    assert [(row["epoch"], row["iteration"]) for row in rows] == [(1, 23), (2, 46)]
    assert sum("val/accuracy" in output for output in outputs) == 1, "only the node of rank 0 prints"
