"""Numbers and names of parameters in the states of optimizers of flat models."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch

from pte_tracking._snapshots.parameter_names import GroupRecord


def number_parameters(state: dict[str, Any], model: str) -> tuple[dict[str, Any], list[GroupRecord]]:
    """Return a state with numbered parameters, and the names of the parameters; both are empty for an empty state."""
    if not state:
        return {}, []
    names = [name for group in state["param_groups"] for name in group["params"]]
    numbers = {name: number for number, name in enumerate(names)}
    groups = [{**group, "params": [numbers[name] for name in group["params"]]} for group in state["param_groups"]]
    records = [
        GroupRecord(
            names=[f"{model}/{name}" for name in group["params"]],
            dtypes=[_dtype_of(state["state"].get(name, {})) for name in group["params"]],
        )
        for group in state["param_groups"]
    ]
    entries = {numbers.get(name, name): value for name, value in state["state"].items()}
    return {**state, "state": entries, "param_groups": groups}, records


def name_parameters(state: Mapping[str, Any], groups: list[GroupRecord], model: str) -> dict[str, Any]:
    """Return a state whose parameters are named as in their model."""
    names = [name.removeprefix(f"{model}/") for group in groups for name in group["names"]]
    numbered = [{**group, "params": [names[number] for number in group["params"]]} for group in state["param_groups"]]
    entries = {names[key] if isinstance(key, int) else key: copy.copy(value) for key, value in state["state"].items()}
    return {**state, "state": entries, "param_groups": numbered}


def _dtype_of(entry: Mapping[str, Any]) -> torch.dtype:
    dtypes = [value.dtype for key, value in entry.items() if isinstance(value, torch.Tensor) and key != "step"]
    return dtypes[0] if dtypes else torch.get_default_dtype()
