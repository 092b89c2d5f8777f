"""Names of modules and parameters that are kept between snapshots."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn
from torch.nn.utils import parametrizations

from pte_tracking._snapshots.module_tree import ModuleTree


def make() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2)), nn.Identity())


def rename_layer(model: nn.Sequential) -> None:
    model.other = model._modules.pop("0")  # type: ignore[assignment]


def rename_parameter(model: nn.Sequential) -> None:
    layer: Any = model[0]
    layer.other = layer._parameters.pop("weight")


def move_parameter(model: nn.Sequential) -> None:
    model[1].bias = model[0]._parameters.pop("bias")  # type: ignore[assignment]


def replace_parameter(model: nn.Sequential) -> None:
    model[0].bias = nn.Parameter(model[0].bias.detach().clone())  # type: ignore[operator, union-attr, assignment]


CHANGES: list[Callable[[nn.Sequential], object]] = [
    rename_layer,
    rename_parameter,
    move_parameter,
    replace_parameter,
    lambda model: model.append(nn.Linear(2, 2)),
    lambda model: model.__delitem__(2),
    lambda model: model[1].__setitem__(0, nn.Linear(2, 2)),
    lambda model: parametrizations.weight_norm(model[1][0]),  # type: ignore[index]
    lambda model: model[0].register_parameter("added", None),
]


@pytest.mark.parametrize("change", CHANGES)
def test_module_tree_of_changed_model_equals_new_one(change: Callable[[nn.Sequential], object]) -> None:
    model = make()
    tree = ModuleTree(model)
    change(model)
    assert tree.refresh()
    expected = ModuleTree(model)
    assert tree.modules == expected.modules
    assert [(name, id(item)) for name, item in tree.parameters] == [
        (name, id(item)) for name, item in expected.parameters
    ]


def test_module_tree_of_unchanged_model_is_not_read_again() -> None:
    model = make()
    tree = ModuleTree(model)
    model[0].weight.data.zero_()  # type: ignore[operator, union-attr]
    model.eval()
    assert not tree.refresh()


class RenamingModel(nn.Linear):
    """Module whose parameters have names that torch cannot derive from its attributes."""

    prefix = ""

    def named_parameters(self, *args: Any, **options: Any) -> Any:
        return ((self.prefix + name, item) for name, item in super().named_parameters(*args, **options))


def test_module_tree_of_model_that_names_its_parameters_is_read_again() -> None:
    model = RenamingModel(2, 2)
    tree = ModuleTree(model)
    model.prefix = "own_"
    assert tree.refresh()
    assert [name for name, _ in tree.parameters] == ["own_weight", "own_bias"]
