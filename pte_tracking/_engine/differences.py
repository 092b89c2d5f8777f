"""Differences between a training and the snapshot that it resumes, and those that the user allows."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from pathlib import Path

_logger = logging.getLogger("pte_tracking")

#: Texts of the kinds of parts in messages. A label is a kind and a name, such as ``"state_objects/scheduler"``.
_TEXTS = {
    "models": "the model",
    "optimizers": "the optimizer",
    "state_objects": "the state object",
    "extensions": "the extension",
    "triggers": "the trigger of",
}
#: Label of the stop trigger, which has no name.
STOP_TRIGGER = "stop_trigger"


def describe_part(label: str) -> str:
    """Return the description of a part in messages, such as ``"the state object 'scheduler'"``."""
    kind, _, name = label.partition("/")
    return f"{_TEXTS[kind]} {name!r}" if name else "the stop trigger"


def part_name(label: str) -> str:
    """Return the name of a part, by which the user allows that it differs."""
    return label.partition("/")[2] or label


def is_trigger(label: str) -> bool:
    """Return whether a part is a trigger."""
    return label == STOP_TRIGGER or label.startswith("triggers/")


class AllowedDifferences:
    """Parts that may differ from the snapshot, and those that start as constructed because they do.

    Args:
        names: Names of the parts, as the argument ``allow`` of a resume.
        rank: Rank of this process. Only rank 0 logs. Defaults to 0.
        is_training: Whether a training continues. Otherwise, the state is only loaded, and no part may differ.
        directory: Run directory whose own snapshot is restored. Defaults to None: the state comes from elsewhere.

    Raises:
        TypeError: If the names are not a list of strings.
    """

    def __init__(
        self, names: Collection[str] = (), rank: int = 0, is_training: bool = True, directory: Path | None = None
    ) -> None:
        if isinstance(names, str) or not all(isinstance(name, str) for name in names):
            raise TypeError(f"allow: expected a list of names, such as ['scheduler'], got {names!r}")
        self._names = frozenset(names)
        self._rank = rank
        self._is_training = is_training
        self._directory = directory
        self._skipped: set[str] = set()

    def __contains__(self, label: str) -> bool:
        return part_name(label) in self._names

    def check_names(self, known: Iterable[str]) -> None:
        """Check that all names exist.

        Args:
            known: Names of the parts of the training and of the snapshot.

        Raises:
            ValueError: If a name does not exist.
        """
        known = sorted({*known, STOP_TRIGGER})
        if unknown := sorted(self._names.difference(known)):
            raise ValueError(
                f"allow: nothing is named {', '.join(map(repr, unknown))}. Names in the training and the snapshot: "
                f"{', '.join(map(repr, known))}."
            )

    def remedy(self, labels: Iterable[str]) -> str:
        """Return sentences that tell what to do about parts that differ.

        Args:
            labels: Labels of the parts.
        """
        if not self._is_training:
            return (
                "Construct the objects as in the training. To read the tensors without an object, omit the object, and "
                "use the attribute state of the result."
            )
        names = list(dict.fromkeys(map(part_name, labels)))
        return (
            f"{self.other_training}If the training itself changed the model, construct the manager, and repeat the "
            "change before resume().\n"
            f"To continue without the state of these parts, call resume(allow={names!r})."
        )

    @property
    def other_training(self) -> str:
        """The sentence that names the directory of the run that is continued, with a space; empty if unknown."""
        if self._directory is None:
            return ""
        return f"To start another training than that in {str(self._directory)!r}, choose another out_dir. "

    def short_remedy(self, label: str) -> str:
        """Return how to continue without the state of a part that refuses it."""
        return f"pass allow=[{part_name(label)!r}] to continue without it" if self._is_training else "omit the object"

    def skip(self, label: str, reason: object) -> None:
        """Do not restore a part, and log why.

        Args:
            label: Label of the part.
            reason: The difference.
        """
        self._skipped.add(label)
        if self._rank == 0:
            _logger.warning("resume: %s starts as constructed. %s", describe_part(label), reason)

    def is_skipped(self, label: str) -> bool:
        """Return whether a part starts as constructed."""
        return label in self._skipped
