"""State objects that are dictionaries of values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pte_tracking as pte
from pte_tracking import extensions


def manager_of(values: dict[str, Any], out_dir: Path) -> pte.ExtensionsManager:
    return pte.ExtensionsManager(
        {},
        max_iterations=3,
        extensions=[extensions.snapshot(trigger=(3, "iteration"))],
        out_dir=out_dir,
        sinks=[],
        state_objects={"values": values},
    )


def train(out_dir: Path, **initial: Any) -> dict[str, Any]:
    for step in manager_of(initial, out_dir).iterations():
        initial["step"] = step
        initial["batch"] = {"x": torch.full((2,), step), "names": ["a", None]}
    return initial


def test_dictionary_is_restored_in_place_with_the_keys_of_the_snapshot(tmp_path: Path) -> None:
    train(tmp_path, best=0.5)
    values: dict[str, Any] = {"best": 0.0, "of an earlier script": 1}
    manager_of(values, tmp_path).resume()
    assert values.keys() == {"best", "step", "batch"}
    assert (values["best"], values["step"], values["batch"]["names"]) == (0.5, 2, ["a", None])
    assert values["batch"]["x"].tolist() == [2, 2]


def test_restored_tensor_is_on_the_device_of_the_tensor_that_it_replaces(tmp_path: Path) -> None:
    train(tmp_path)
    values: dict[str, Any] = {"batch": {"x": torch.zeros(2, device="meta")}}
    manager_of(values, tmp_path).resume()
    assert values["batch"]["x"].device.type == "meta"


def test_restored_dictionary_differs_from_the_given_one_without_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(tmp_path, best=0.5)
    manager = pte.ExtensionsManager({}, max_iterations=4, out_dir=tmp_path, sinks=[], state_objects={"values": {}})
    manager.resume(allow=["snapshot"])
    for _ in manager.iterations():
        pass
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == []


def test_failed_resume_returns_dictionary_to_its_values(tmp_path: Path) -> None:
    class Refusing:
        def state_dict(self) -> dict[str, int]:
            return {}

        def load_state_dict(self, state_dict: dict[str, int]) -> None:
            raise ZeroDivisionError

    def options(values: dict[str, Any]) -> Any:
        objects = {"values": values, "refusing": Refusing()}
        return {"max_iterations": 2, "out_dir": tmp_path, "sinks": [], "state_objects": objects}

    save = extensions.snapshot(trigger=(1, "iteration"))
    for _ in pte.ExtensionsManager({}, extensions=[save], **options({"best": 1})).iterations():
        pass
    values = {"best": 2}
    with pytest.raises(ValueError, match="Nothing was restored"):
        pte.ExtensionsManager({}, **options(values)).resume(allow=["snapshot"])
    assert values == {"best": 2}


def test_load_restores_a_dictionary(tmp_path: Path) -> None:
    train(tmp_path, best=0.5)
    values: dict[str, Any] = {}
    pte.load(tmp_path, state_objects={"values": values})
    assert values["best"] == 0.5


def test_dictionary_with_an_object_is_refused_at_construction(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"state_objects/values/averages/0: .*Linear cannot .*Save tensors"):
        manager_of({"averages": [nn.Linear(1, 1)]}, tmp_path)
