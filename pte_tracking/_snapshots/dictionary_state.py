"""State of a dictionary, in which a script keeps values that change during its training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pte_tracking._snapshots.plain_state import map_tensors


class StatefulDictionary:
    """Dictionary with the methods of a state object.

    Args:
        values: The dictionary, which is restored in place.
    """

    # Without a __dict__, a resume does not take the values for arguments of the script that have changed.
    __slots__ = ("_values",)

    def __init__(self, values: dict[Any, Any]) -> None:
        self._values = values

    def state_dict(self) -> dict[Any, Any]:
        """Return the values."""
        return dict(self._values)

    def load_state_dict(self, state_dict: dict[Any, Any], /) -> None:
        """Replace the values. A tensor returns to the device of the tensor that it replaces."""
        devices: dict[str, torch.device] = {}

        def note(tensor: Tensor, position: str) -> Tensor:
            devices[position] = tensor.device
            return tensor

        map_tensors(self._values, note)
        restored = map_tensors(state_dict, lambda tensor, position: tensor.to(devices.get(position, tensor.device)))
        self._values.clear()
        self._values.update(restored)
