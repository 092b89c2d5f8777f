"""Pages that list environment variables and the files of a run are complete."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from importlib.metadata import distribution
from pathlib import Path
from typing import get_args

import pytest

from pte_tracking import sinks
from pte_tracking._runs.archiving import LOG
from pte_tracking._store import layout
from pte_tracking.sinks import ENTRY_POINT_GROUP, get_sink
from pte_tracking.testing._samples import make_sample_events

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
#: Texts in modules that read the environment, which are no variables.
NOT_VARIABLES = {"HEAD", "O_NONBLOCK", "PRETTY_NAME"}


def variables_in_source() -> Iterator[str]:
    """Iterate over the names in modules that read or change the environment. Some are in constants and tables."""
    for folder in ("pte_tracking", "backends"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text()
            if not re.search(r"\bos\.(environ|getenv)\b", text) and "_SERVER_PREFIX" not in text:
                continue
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Constant) and re.fullmatch(r"_?[A-Z][A-Z0-9_]{3,}", str(node.value)):
                    yield str(node.value)


def test_environment_page_names_every_variable_that_the_source_reads() -> None:
    page = (DOCS / "environment.md").read_text()
    variables = set(variables_in_source()) - NOT_VARIABLES
    assert {"PTE_TRACKING_DELIVERY", "RANK", "MLFLOW_RUN_ID", "SLURM_JOB_ID"} <= variables
    missing = [name for name in sorted(variables) if not re.search(rf"`{name}[`<]", page)]
    assert not missing, f"docs/environment.md does not list {', '.join(missing)}. Add a row for each."


def test_environment_page_names_every_variable_of_other_pages() -> None:
    prefixes = "PTE_TRACKING|MLFLOW|WANDB|SWANLAB|CLEARML|TRACKIO|APPRISE|AWS|HF|TORCH|SLURM"
    pages = "".join(path.read_text() for path in DOCS.glob("*.md"))
    named = set(re.findall(rf"\b(?:{prefixes})_[A-Z][A-Z_]+\b(?!<)", pages))
    listed = (DOCS / "environment.md").read_text()
    assert len(named) > 30
    missing = [name for name in sorted(named) if f"`{name}`" not in listed and not name.endswith("_")]
    assert not missing, f"docs/environment.md does not list {', '.join(missing)}. Add a row for each."


def listed_files() -> set[str]:
    """Return the names in the first column of the tables of the page as globs, without the slash of directories."""
    page = (DOCS / "run-directory.md").read_text()
    cells = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    names = {re.sub(r"<[^>]*>", "*", name) for cell in cells for name in re.findall(r"`([^`]+)`", cell)}
    return {name.rstrip("/") for name in names} - {"*"}


def check_listed(names: Iterable[str]) -> None:
    listed = listed_files()
    missing = [name for name in names if not any(fnmatchcase(name, pattern) for pattern in listed)]
    assert not missing, f"docs/run-directory.md does not list {', '.join(missing)}. Add a row for each."


def test_run_directory_page_names_every_file_of_the_layout() -> None:
    names = [value for name, value in vars(layout).items() if name.isupper() and type(value) is str]
    assert len(names) > 10
    check_listed(names)


def test_run_directory_page_names_every_file_of_included_sinks() -> None:
    names = distribution("pte-tracking").entry_points.select(group=ENTRY_POINT_GROUP).names
    files = {pattern.replace(LOG, "log") for name in names for pattern in get_sink(name).files}
    assert len(files) > 5
    check_listed(files)


def test_event_pages_and_sinks_name_every_kind_of_event() -> None:
    formats, reference = (DOCS / "event-format.md").read_text(), (DOCS / "_reference/events.md").read_text()
    for event in get_args(sinks.AnyEvent):
        name = event.__name__
        assert f"`{event.__struct_config__.tag}`" in formats, f"docs/event-format.md has no row for {name}."
        assert f"[`{name}`](" in reference, f"docs/_reference/events.md does not list {name}."
        assert name in sinks.__all__, f"pte_tracking/sinks/__init__.py does not export {name}."


def test_contract_of_backends_delivers_every_kind_of_event_that_is_shown(tmp_path: Path) -> None:
    delivered = {kind.__struct_config__.tag for kind, _ in make_sample_events(tmp_path)}
    assert set(get_args(sinks.EventKind)) - delivered == {"metrics", "status"}  # other tests of the contract


TRAIN = """
import sys, torch
import pte_tracking as pte
from pte_tracking import extensions

torch.manual_seed(0)
model = torch.nn.Linear(1, 1)
manager = pte.ExtensionsManager(
    model,
    max_epochs=1,
    iters_per_epoch=2,
    optimizers=torch.optim.SGD(model.parameters(), 0.1),
    out_dir="result",
    sinks=sys.argv[1:],
    extensions=[
        extensions.LogReport(),
        extensions.snapshot(),
        extensions.PlotReport(["loss"], filename="plot.png"),
        extensions.SystemMetrics(interval=0.2),
    ],
)
for _ in manager.iterations([0, 1]):
    pte.report({"loss": 1.0})
    manager.run.log_image("image", torch.rand(3, 4, 4))
    manager.run.log_table("table", {"a": [1]})
    manager.run.log_artifact(sys.argv[0])
"""


@pytest.mark.slow
def test_run_directory_page_names_every_file_of_a_training(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(TRAIN)
    env = {**os.environ, "PTE_TRACKING_PROVENANCE": "full"}
    file_sinks = ["json", "csv", "tensorboard", "wandb", "swanlab", "clearml"]
    # The second training archives the run of the first one.
    for command in (["train.py", "json"], ["train.py", *file_sinks], ["-m", "pte_tracking._cli", "sync", "result"]):
        done = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=140
        )
        assert done.returncode == 0, done.stdout + done.stderr
    run = tmp_path / "result"
    names = [path.relative_to(run).as_posix() for path in (*run.iterdir(), *(run / layout.DELIVERY).iterdir())]
    assert {"clearml", "events.out.tfevents", "previous", "wandb"} <= {re.sub(r"s\.\d.*", "s", name) for name in names}
    check_listed(names)
