"""Start of a run in a directory that contains files of other programs."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

import pte_tracking as pte
from pte_tracking import extensions


def contents(directory: Path) -> set[bytes]:
    return {path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def train(directory: Path) -> None:
    model = torch.nn.Linear(1, 1)
    used = [extensions.LogReport(filename="val/log"), extensions.LogReport(), extensions.snapshot(n_retains=1)]
    with pte.ExtensionsManager(model, 2, used, iters_per_epoch=1, out_dir=directory, sinks=["json"]) as manager:
        while not manager.stop_trigger:
            with manager.run_iteration():
                pte.report({"loss": 1.0})


def test_manager_keeps_files_of_its_names_that_it_did_not_write(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    names = ["log", "val/log", "snapshot_iter_1", "snapshot_iter_3", "snapshot_iter_2/shard", "checkpoints.json"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"other {name}")
    others = ["notes.txt", "val/image.png", "artifacts/mine"]
    for name in others:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    train(tmp_path)
    aside = tmp_path / "previous" / "other-files-1"
    assert {(aside / name).read_text() for name in names} == {f"other {name}" for name in names}
    assert [(tmp_path / name).read_text() for name in others] == others
    assert f"{tmp_path / 'log'} was not written by this run" in caplog.text


def test_second_start_keeps_files_in_another_directory(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / "log").write_text(f"other {number}")
        (tmp_path / "run.json").unlink(missing_ok=True)
        (tmp_path / "journal.jsonl").unlink(missing_ok=True)
        train(tmp_path)
        assert (tmp_path / "previous" / f"other-files-{number}" / "log").read_text() == f"other {number}"


def test_empty_file_that_receives_the_output_of_the_program_continues_to_receive_it(tmp_path: Path) -> None:
    with open(tmp_path / "log", "w") as output:
        with pte.Run(tmp_path, sinks=["json"]) as run:
            run.log_metrics({"a": 1.0}, 1)
        output.write("printed")
    assert b"printed" in contents(tmp_path)
    assert b"printed" not in (tmp_path / "log").read_bytes()


def test_checkpoint_that_was_written_before_the_run_stays(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"weights")
    with pte.Run(tmp_path, sinks=["json"]) as run:
        run.log_checkpoint(path, 1, "0" * 64, 7)
    assert path.read_bytes() == b"weights"


def test_continued_run_moves_nothing(tmp_path: Path) -> None:
    train(tmp_path)
    before = contents(tmp_path)
    with pte.Run(tmp_path, sinks=["json"], resume=True) as run:
        run.log_metrics({"loss": 1.0}, 3)
    assert not (tmp_path / "previous").exists()
    assert len(contents(tmp_path)) >= len(before)


def test_files_that_an_extension_loads_stay(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(1, 1).state_dict() | {"weight": torch.full((1, 1), 7.0)}, tmp_path / "model_3")
    before = (tmp_path / "model_3").read_bytes()
    model = torch.nn.Linear(1, 1)
    loaded = extensions.snapshot_object(model, "model_{.iteration}", trigger=(9, "epoch"), autoload=True)
    manager = pte.ExtensionsManager(model, 1, [loaded], iters_per_epoch=1, out_dir=tmp_path, sinks=[])
    with manager, manager.run_iteration():
        assert model.weight.item() == 7
    assert (tmp_path / "model_3").read_bytes() == before
