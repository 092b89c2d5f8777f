"""Comparison of the optimizer options that a script gives with those of the run that it resumes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

from pte_tracking._store.events import Scalar
from pte_tracking._store.params import to_scalar

_logger = logging.getLogger("pte_tracking")

_MAX_CHANGES = 5
#: Entries of parameter groups that are not options.
_NOT_OPTIONS = frozenset({"params", "param_names", "initial_lr"})


class OptimizerOptions:
    """Options of the parameter groups that the script gives, such as the learning rate.

    A restored optimizer has the options of the snapshot. If the script was changed, its new options have no effect,
    which is reported once. The restored options themselves cannot be compared with those of the script, because
    schedulers change them. Snapshots therefore contain the options that the script gave.

    They are read when the manager is constructed, and at the first call that restores a state. Each reading is compared
    with the earlier one at the same place, because a scheduler that is created in between changes the options too.

    Args:
        optimizers: Optimizers by name. Those without parameter groups have no options.
    """

    def __init__(self, optimizers: Mapping[str, Any]) -> None:
        self._optimizers = optimizers
        given = self._read(is_given=True)
        #: Options by position, at construction and before a state is restored.
        self._given: dict[str, dict[str, Scalar]] = {"construction": given, "restore": {}}
        self._restored: dict[str, Scalar] = {}
        #: Earlier and current values of changed options that wait for :meth:`report`, by position.
        self.changes: dict[str, tuple[Scalar, Scalar]] = {}

    def begin_restore(self) -> None:
        """Read the options before the first state is restored."""
        if not self._given["restore"]:
            self._given["restore"] = self._read(is_given=True)

    def state_dict(self) -> dict[str, dict[str, Scalar]]:
        """Return the options that decided, by the place where they were read."""
        return {place: dict(options) for place, options in self._given.items()}

    def load_state_dict(self, state: Mapping[str, Mapping[str, Scalar]]) -> None:
        """Compare the options with those of a snapshot, after the optimizers are restored."""
        self._restored = self._read()
        before_schedule = self._read(is_given=True)
        for place, options in self._given.items():
            for position in options.keys() & state[place].keys():
                earlier, current = state[place][position], options[position]
                if current not in (earlier, before_schedule.get(position)):
                    self.changes[position] = (earlier, current)
                    options[position] = earlier

    def begin_training(self) -> None:
        """Drop the changes that have an effect, because the script has set the options after the restore."""
        self._drop_effective(self._read())

    def report(self, rank: int) -> None:
        """Log the changed options that have no effect, at the end of the first iteration.

        Options that the script sets in its loop have an effect.

        Args:
            rank: Rank of this process. Only rank 0 logs.
        """
        active = self._read()
        # A scheduler changes the restored options, which are still those that decide.
        self._drop_effective({position: active[position] for position in active if not self._has_scheduler(position)})
        #: Parameter groups by change.
        ignored: dict[_Change, list[str]] = {}
        for position in sorted(self.changes):
            optimizer, group, option = position.rsplit("/", 2)
            change = _Change(optimizer, option, self._restored.get(position), *self.changes[position])
            ignored.setdefault(change, []).append(group)
        self.changes = {}
        if ignored and rank == 0:
            self._log(ignored)

    def _drop_effective(self, active: Mapping[str, Scalar]) -> None:
        for position in active.keys() & self.changes.keys():
            if active[position] == self._restored.get(position):
                continue
            _, current = self.changes.pop(position)
            for options in self._given.values():
                if position in options:
                    options[position] = current

    def _has_scheduler(self, position: str) -> bool:
        optimizer, group, _ = position.rsplit("/", 2)
        return "initial_lr" in self._optimizers[optimizer].param_groups[int(group)]

    def _log(self, ignored: Mapping[_Change, list[str]]) -> None:
        texts = [_format(change, groups) for change, groups in ignored.items()]
        more = f" and {len(texts) - _MAX_CHANGES} more" if len(texts) > _MAX_CHANGES else ""
        first = next(iter(ignored))
        has_scheduler = any("initial_lr" in group for group in self._optimizers[first.optimizer].param_groups)
        _logger.warning(
            "The restored state of the optimizers decides, not the options that the script gives now: %s%s. "
            "To override an option, set it after resume(): for group in manager.optimizers[%r].param_groups: "
            "group[%r] = %s.%s",
            "; ".join(texts[:_MAX_CHANGES]),
            more,
            first.optimizer,
            first.option,
            first.current,
            " A scheduler may require another base_lrs too." if has_scheduler else "",
        )

    def _read(self, is_given: bool = False) -> dict[str, Scalar]:
        """Return the options by position, such as ``"main/0/lr"``.

        Args:
            is_given: Whether to return the learning rate from before a scheduler changed it.
        """
        options: dict[str, Scalar] = {}
        for name, optimizer in self._optimizers.items():
            for index, group in enumerate(getattr(optimizer, "param_groups", ())):
                for option in group.keys() - _NOT_OPTIONS:
                    value = group.get("initial_lr", group[option]) if is_given and option == "lr" else group[option]
                    options[f"{name}/{index}/{option}"] = to_scalar(option, value, warns=False)
        return options


class _Change(NamedTuple):
    """Option that the script gives differently, without effect."""

    optimizer: str
    option: str
    restored: Scalar
    earlier: Scalar
    current: Scalar


def _format(change: _Change, groups: list[str]) -> str:
    at_first = "" if change.restored == change.earlier else f" (at first {change.earlier})"
    return (
        f"{change.option} of {change.optimizer!r}, group {', '.join(groups)}, is {change.restored}{at_first}, "
        f"not {change.current}"
    )
