"""Matching of the parameter groups of an optimizer with those of a snapshot, by the names of the parameters."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from pte_tracking._snapshots.parameter_names import GroupRecord, is_position


class GroupMatch(NamedTuple):
    """Order in which the groups of a snapshot match those of an optimizer.

    Attributes:
        order: For each group of the optimizer, the number of the group in the snapshot and the positions in it. The
            groups that the optimizer lacks follow.
        missing: Number of groups that the optimizer lacks, and to which parameters of the models can be added.
        differences: Differences that prevent a match, as texts.
    """

    order: list[tuple[int, list[int]]]
    missing: int
    differences: list[str]


def match_groups(
    saved: Sequence[GroupRecord], current: Sequence[GroupRecord], available: Collection[str] = ()
) -> GroupMatch:
    """Match groups by the names of their parameters, in any order.

    Args:
        saved: The groups in the snapshot.
        current: The groups of the optimizer.
        available: Names of the parameters of the models, which can be added to the optimizer.
    """
    by_position = [(number, list(range(len(group["names"])))) for number, group in enumerate(saved)]
    if all(map(is_position, _names(current))) or all(map(is_position, _names(saved))):
        sizes = [[len(group["names"]) for group in groups] for groups in (saved, current)]
        return GroupMatch(by_position, 0, [] if sizes[0] == sizes[1] else [_format_sizes(saved, current)])
    unmatched = dict(enumerate(saved))
    order: list[tuple[int, list[int]]] = []
    for group in current:
        names = set(group["names"])
        number = next((number for number, other in unmatched.items() if set(other["names"]) == names), None)
        if number is None:
            return GroupMatch([], 0, _differences(saved, current))
        positions = {name: position for position, name in enumerate(unmatched.pop(number)["names"])}
        order.append((number, [positions[name] for name in group["names"]]))
    addable = set(available) - set(_names(current))
    if not all(name in addable for group in unmatched.values() for name in group["names"]):
        return GroupMatch([], 0, _differences(saved, current))
    return GroupMatch([*order, *(by_position[number] for number in unmatched)], len(unmatched), [])


def arrange_groups(records: Sequence[GroupRecord], order: Sequence[tuple[int, list[int]]]) -> list[GroupRecord]:
    """Return the records of a snapshot in the order of a match."""
    return [
        GroupRecord(
            names=[records[number]["names"][position] for position in positions],
            dtypes=[records[number]["dtypes"][position] for position in positions],
        )
        for number, positions in order
    ]


def arrange_state(state: Mapping[str, Any], order: Sequence[tuple[int, list[int]]]) -> dict[str, Any]:
    """Return the state of an optimizer in the order of a match, with its parameters numbered from 0."""
    numbers = itertools.count()
    new_numbers: dict[Any, int] = {}
    groups = []
    for number, positions in order:
        group = dict(state["param_groups"][number])
        saved_numbers = [group["params"][position] for position in positions]
        new_numbers.update(zip(saved_numbers, numbers, strict=False))
        group["params"] = [new_numbers[saved_number] for saved_number in saved_numbers]
        if "param_names" in group:
            group["param_names"] = [group["param_names"][position] for position in positions]
        groups.append(group)
    entries = {new_numbers.get(key, key): value for key, value in state["state"].items()}
    return {**state, "state": entries, "param_groups": groups}


def _names(groups: Sequence[GroupRecord]) -> list[str]:
    return [name for group in groups for name in group["names"]]


def _differences(saved: Sequence[GroupRecord], current: Sequence[GroupRecord]) -> list[str]:
    saved_groups, current_groups = _groups_by_name(saved), _groups_by_name(current)
    texts = [_format_sizes(saved, current)] if _sizes(saved) != _sizes(current) else []
    for name, number in saved_groups.items():
        if name not in current_groups:
            texts.append(f"{name!r} is in group {number} of the snapshot but not in the optimizer")
        elif current_groups[name] != number:
            texts.append(
                f"{name!r} is in group {number} of the snapshot, in group {current_groups[name]} of the optimizer"
            )
    added = [
        f"{name!r} is in group {number} of the optimizer but not in the snapshot"
        for name, number in current_groups.items()
        if name not in saved_groups
    ]
    if added:
        added[0] += ". If it was added with add_param_group(), add it after the state is restored."
    return texts + added


def _groups_by_name(groups: Sequence[GroupRecord]) -> dict[str, int]:
    return {name: number for number, group in enumerate(groups) for name in group["names"]}


def _sizes(groups: Sequence[GroupRecord]) -> list[int]:
    return [len(group["names"]) for group in groups]


def _format_sizes(saved: Sequence[GroupRecord], current: Sequence[GroupRecord]) -> str:
    return f"group sizes are {_sizes(saved)} in the snapshot, {_sizes(current)} in the optimizer"
