"""Comparison of the arguments of objects with a state with those in the run that a script resumes."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pte_tracking._engine.closed_form_rates import determines_rates, set_rates
from pte_tracking._engine.differences import AllowedDifferences, describe_part, part_name
from pte_tracking._engine.plain_attributes import CLASS, PlainAttribute, plain_attributes
from pte_tracking.triggers import Trigger

_logger = logging.getLogger("pte_tracking")
_MAX_CHANGES = 5
_MAX_LENGTH = 80

#: Digests of attributes by position, by label of the object.
GivenState = dict[str, dict[str, str]]


class GivenValues:
    """Arguments of schedulers, extensions, triggers, and other objects with a state, as the script gives them.

    A restored object has the arguments of the snapshot if its state contains them, as that of a scheduler. If the
    script was changed, its new arguments then have no effect, which is reported once. Attributes that change during the
    training are not compared: snapshots therefore contain digests of the values that the script gave.

    Args:
        references: Names of the models and optimizers by ``id()``.
    """

    def __init__(self, references: Mapping[int, str]) -> None:
        self._references = references
        self._targets: dict[str, Any] = {}
        self._given: dict[str, dict[str, PlainAttribute]] = {}
        #: Digests of the given arguments; of the restored ones where these decide.
        self._digests: GivenState = {}
        self._changes: list[_Change] = []
        self._replaced: list[str] = []

    def add(self, label: str, target: object) -> None:
        """Read the arguments of an object that was just constructed.

        Args:
            label: Label of the object, such as ``"state_objects/scheduler"``.
            target: The object.
        """
        self._targets[label] = target
        self._given[label] = plain_attributes(target, self._references)
        self._digests[label] = {position: attribute.digest for position, attribute in self._given[label].items()}

    def state_dict(self) -> GivenState:
        """Return digests of the arguments that decided, by object and position."""
        return self._digests

    def class_differences(self, state: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[str, str]]:
        """Yield the label and a description of each object whose class, or that of an object in it, has changed.

        Args:
            state: The state, with labels of this training.
        """
        for label, given in self._given.items():
            for position, attribute in given.items():
                saved, current = state.get(label, {}).get(position), attribute.value
                # A trigger without a state may be replaced by another one, and checks the state that it gets.
                is_inner_trigger = position != CLASS and isinstance(attribute.owner, Trigger)
                if attribute.name == CLASS and saved not in (None, current) and not is_inner_trigger:
                    where = position.removesuffix(CLASS).rstrip(".")
                    part = describe_part(label) if not where else f"{where} of {describe_part(label)}"
                    yield label, f"{part} is of type {saved} in the snapshot and of type {current} now"

    def load_state_dict(self, state: Mapping[str, Mapping[str, str]], allowed: AllowedDifferences) -> None:
        """Compare the arguments with those of a snapshot, after the objects are restored.

        Args:
            state: The state, with labels of this training.
            allowed: Objects for which the arguments of the script decide.
        """
        self._changes, self._replaced = [], []
        schedulers: dict[int, Any] = {}
        for label, given in self._given.items():
            saved = state.get(label, {})
            current = plain_attributes(self._targets[label], self._references)
            for position in [position for position in saved if position in given and position in current]:
                restored, digest = current[position], saved[position]
                if digest == given[position].digest or digest != restored.digest or restored.name == CLASS:
                    continue
                change = _Change(label, position, restored, given[position].value)
                if label in allowed:
                    self._replaced.append(change.describe(change.given, restored.value))
                    if id(restored.owner) not in schedulers and determines_rates(restored.owner):
                        schedulers[id(restored.owner)] = restored.owner
                    setattr(restored.owner, restored.name, given[position].value)
                    continue
                self._digests[label][position] = digest
                self._changes.append(change)
        for scheduler in schedulers.values():
            set_rates(scheduler)

    def begin_training(self, rank: int) -> None:
        """Log the arguments that have no effect, before the first iteration.

        Args:
            rank: Rank of this process. Only rank 0 logs.
        """
        ignored, replaced = [change for change in self._changes if change.is_effective], self._replaced
        self._changes, self._replaced = [], []
        if rank:
            return
        if replaced:
            _logger.info("resume: the script decides, not the restored state: %s.", _join(replaced))
        if ignored:
            _logger.warning(
                "The restored state decides, not the arguments that the script gives now: %s. To use those of the "
                "script from here on, call resume(allow=%r).",
                _join([change.describe(change.restored.value, change.given) for change in ignored]),
                list(dict.fromkeys(part_name(change.label) for change in ignored)),
            )


class _Change(NamedTuple):
    """Argument that the script gives differently than the restored state."""

    label: str
    position: str
    restored: PlainAttribute
    given: Any

    @property
    def is_effective(self) -> bool:
        """Whether the restored value still decides, because the script has not set the attribute since."""
        return bool(vars(self.restored.owner).get(self.restored.name) == self.restored.value)

    def describe(self, value: object, other: object) -> str:
        """Return a text with the value that decides and the other one."""
        kind = type(self.restored.owner).__name__
        position = self.position.replace("._", ".").removeprefix("_")
        return f"{position} of {describe_part(self.label)} ({kind}) is {_shorten(value)}, not {_shorten(other)}"


def _join(texts: list[str]) -> str:
    more = f" and {len(texts) - _MAX_CHANGES} more" if len(texts) > _MAX_CHANGES else ""
    return "; ".join(texts[:_MAX_CHANGES]) + more


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_LENGTH else f"{text[:_MAX_LENGTH]}..."
