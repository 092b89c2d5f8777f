"""Groups of runs: stored, kept, read, and listed."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

import pte_tracking as pte
from pte_tracking import extensions, updaters
from pte_tracking._delivery.consumer import SinkConsumer
from pte_tracking._store.manifest import Manifest
from tests.cli.invocation import invoke

ODD_NAME = "a 'b' \"c\" \\ % `d` \0 ü/=\n"


def stored_group(directory: Path) -> Any:
    return json.loads((directory / "run.json").read_text())["group"]


def log_once(directory: Path, **options: Any) -> pte.Run:
    with pte.Run(directory, **options) as run:
        run.log_metrics({"loss": 0.5}, 1)
    return run


@pytest.mark.parametrize("group", ["sweep", ODD_NAME, None], ids=["plain", "odd", "none"])
def test_group_is_stored_and_read(group: str | None, tmp_path: Path) -> None:
    run = log_once(tmp_path / "run", group=group)
    (stored,) = pte.open_runs(tmp_path, group=group)
    assert (run.group, stored.group, stored_group(tmp_path / "run")) == (group, group, group)


def test_sink_receives_group_in_context(tmp_path: Path) -> None:
    for group in ("sweep", None):
        run = log_once(tmp_path / str(group), group=group)
        manifest = Manifest.load(run.directory)
        view = SinkConsumer(run.directory, manifest, manifest.sinks[0])._view
        assert view.context.get("group") == group


def test_resumed_run_keeps_its_group(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log_once(tmp_path, group="first")
    for group in (None, "first"):
        assert log_once(tmp_path, group=group, resume=True).group == "first"
    assert "has no effect" not in caplog.text
    with caplog.at_level(logging.WARNING):
        assert log_once(tmp_path, group="second", resume=True).group == "first"
    assert caplog.text.count("group='second' has no effect, because the run belongs to the group 'first'") == 1
    assert stored_group(tmp_path) == "first"


def test_resumed_run_without_group_joins_group(tmp_path: Path) -> None:
    log_once(tmp_path)
    log_once(tmp_path, group="sweep", resume=True)
    assert stored_group(tmp_path) == "sweep"


def test_new_run_in_used_directory_has_own_group(tmp_path: Path) -> None:
    log_once(tmp_path, group="first")
    assert log_once(tmp_path, group="second").group == "second"
    assert {run.group for run in pte.open_runs(tmp_path)} == {"first", "second"}


def test_manager_passes_group_and_resume_keeps_it(tmp_path: Path) -> None:
    for group in ("sweep", None):
        manager = pte.ExtensionsManager(
            {}, 2, [extensions.snapshot()], iters_per_epoch=1, out_dir=tmp_path, group=group
        )
        manager.resume()
        while not manager.stop_trigger:
            with manager.run_iteration():
                pte.report({"loss": 1.0})
            if group:
                break
        manager.close()
        assert stored_group(tmp_path) == "sweep"


def test_trainer_passes_group(tmp_path: Path) -> None:
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.target = model  # type: ignore[attr-defined]
    updater = updaters.StandardUpdater([torch.ones(1, 1)], optimizer)
    assert pte.Trainer(updater, (1, "epoch"), tmp_path, group="sweep").manager.run.group == "sweep"


@pytest.mark.parametrize(("group", "error"), [("", ValueError), (7, TypeError), ("\ud800", ValueError)])
def test_wrong_group_is_refused(group: Any, error: type[Exception], tmp_path: Path) -> None:
    with pytest.raises(error, match="group: expected"):
        pte.Run(tmp_path, group=group)


def test_command_line_shows_and_selects_groups(tmp_path: Path) -> None:
    for number, group in enumerate(["sweep", "sweep", None]):
        log_once(tmp_path / f"run{number}", group=group)
    listed = invoke("list", tmp_path).stdout
    assert listed.count(" sweep ") == 2
    selected = json.loads(invoke("list", tmp_path, "--where", "group == 'sweep'", "--json").stdout)
    assert [run["group"] for run in selected] == ["sweep", "sweep"]
    assert "Group: sweep" in invoke("show", tmp_path / "run0").stdout
    assert "Group" not in invoke("show", tmp_path / "run2").stdout
    compared = invoke("compare", tmp_path / "run0", tmp_path / "run2")
    assert "Groups that differ" in compared.stdout
    assert "Group" not in invoke("compare", tmp_path / "run0", tmp_path / "run1").stdout


def test_list_without_groups_has_no_column(tmp_path: Path) -> None:
    log_once(tmp_path / "run")
    assert "Group" not in invoke("list", tmp_path).stdout
