"""Frozen parameters: ``requires_grad`` as the script sets it, and as the training changes it."""

from __future__ import annotations

import logging
from typing import TypedDict

from pte_tracking._snapshots.parameter_names import ParameterNames

_logger = logging.getLogger("pte_tracking")
_MAX_NAMES = 5


class FrozenState(TypedDict):
    """Names of frozen parameters.

    Attributes:
        given: The parameters that the script froze before the training.
        current: The parameters that are frozen now.
    """

    given: list[str]
    current: list[str]


class FrozenParameters:
    """Frozen parameters of models.

    A training may freeze or unfreeze parameters, which a resume repeats. If the script itself freezes other parameters
    than before, its choice is kept for these, and logged.

    Args:
        names: Names of the parameters.
    """

    def __init__(self, names: ParameterNames) -> None:
        self._names = names
        self._given: list[str] | None = None

    def begin_training(self) -> None:
        """Note which parameters the script froze. Has no effect after a restore."""
        if self._given is None:
            self._given = self._frozen()

    def state_dict(self) -> FrozenState:
        """Return the names of the frozen parameters."""
        frozen = self._frozen()
        return FrozenState(given=frozen if self._given is None else self._given, current=frozen)

    def load_state_dict(self, state: FrozenState, rank: int) -> None:
        """Freeze and unfreeze parameters as they were.

        Args:
            state: The saved state.
            rank: Rank of this process. Only rank 0 logs.
        """
        given = self._frozen()
        changed = set(given) ^ set(state["given"])
        frozen = set(state["current"])
        for name, parameter in self._names.parameters().items():
            if name not in changed and parameter.requires_grad == (name in frozen):
                parameter.requires_grad_(name not in frozen)
        self._given = given
        ignored = sorted(name for name in changed if (name in frozen) != (name in given))
        if ignored and rank == 0:
            self._log(ignored, set(given))

    def _frozen(self) -> list[str]:
        return [name for name, parameter in self._names.parameters().items() if not parameter.requires_grad]

    @staticmethod
    def _log(changed: list[str], given: set[str]) -> None:
        texts = [f"{name!r} is {'frozen' if name in given else 'trained'} now" for name in changed[:_MAX_NAMES]]
        more = f" and {len(changed) - _MAX_NAMES} more" if len(changed) > _MAX_NAMES else ""
        _logger.warning(
            "resume: the script sets requires_grad of other parameters than at the first start: %s%s. The script "
            "decides for these parameters.",
            ", ".join(texts),
            more,
        )
