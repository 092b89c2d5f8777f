"""Events with files in the import of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from pte_tracking._runs.importing import RunImport
from pte_tracking._store.events import Model
from pte_tracking._store.journal_reader import find_events
from pte_tracking._store.layout import JOURNAL
from pte_tracking._store.model_event import ModelSignature


def model(path: str) -> Model:
    return Model(0, 1.0, "main", 1, path, "0" * 64, 1, "2.9", ModelSignature([], []))


def test_directory_of_imported_model_is_inside_the_run(tmp_path: Path) -> None:
    with RunImport(tmp_path / "run") as target:
        (target.files / "exported").mkdir()
        target.write([model("exported")], "source", None)
    ((event, _),) = find_events(tmp_path / "run" / JOURNAL, Model)
    assert (tmp_path / "run" / event.path).is_dir()


def test_directory_of_imported_model_outside_of_the_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    with RunImport(tmp_path / "run") as target, pytest.raises(ValueError, match="does not exist in the directory"):
        target.write([model("../../secrets")], "source", None)
    assert not (tmp_path / "run").exists()
