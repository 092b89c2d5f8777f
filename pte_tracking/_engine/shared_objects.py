"""Refusal of extensions and triggers that are used twice in one training."""

from __future__ import annotations

from pte_tracking._interface.extension import Extension
from pte_tracking.triggers import Trigger
from pte_tracking.triggers.kept_state import inner_triggers, objects_with_state


class UsedObjects:
    """Extensions and triggers with a state that a training uses, each in one place.

    The manager evaluates a trigger once per iteration and place. A trigger that counts its evaluations, or compares a
    value with the best one so far, would therefore count twice in two places.
    """

    def __init__(self) -> None:
        #: Place by identity. The object is kept, so that its identity is not reused.
        self._places: dict[int, tuple[object, str]] = {}

    def add_extension(self, extension: Extension, trigger: Trigger, name: str) -> None:
        """Add an extension with its triggers.

        Args:
            extension: The extension.
            trigger: Its trigger.
            name: Its name.

        Raises:
            ValueError: If the extension, or a trigger with a state, is used in another place.
        """
        if id(extension) in self._places:
            raise ValueError(
                f"extension: this {type(extension).__name__} is already registered as "
                f"{self._places[id(extension)][1]}. Create another object for each place."
            )
        for item in [trigger, *inner_triggers(extension)]:
            self.add_trigger(item, f"the extension {name!r}")
        self._places[id(extension)] = extension, repr(name)

    def add_trigger(self, trigger: Trigger, place: str) -> None:
        """Add a trigger.

        Args:
            trigger: The trigger.
            place: Place in which it is used, as described in messages.

        Raises:
            ValueError: If the trigger has a state and is used in another place.
        """
        for target in objects_with_state(trigger):
            if id(target) in self._places:
                raise ValueError(
                    f"trigger: this {type(target).__name__} is already the trigger of {self._places[id(target)][1]}, "
                    f"and would count twice if it were also that of {place}. Create another object for each place."
                )
            self._places[id(target)] = target, place
