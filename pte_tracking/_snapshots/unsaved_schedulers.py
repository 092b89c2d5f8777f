"""Learning rate schedulers of a training that its snapshots do not contain."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pte_tracking._snapshots.inner_optimizers import torch_optimizers

_logger = logging.getLogger("pte_tracking")
_MAX_DEPTH = 10
_MAX_OBJECTS = 10_000
_MAX_ITEMS = 64  # Longer containers are data.


def report_unsaved_schedulers(optimizers: Iterable[object], saved: Iterable[Any], alive: Iterable[object]) -> None:
    """Log the schedulers of some optimizers that no saved object is or contains.

    The loop steps such a scheduler, and a resume would start it again. Python does not show which object a loop
    refers to, so the schedulers are found among all objects of the process.

    Args:
        optimizers: The optimizers in the snapshot.
        saved: Objects with a state in the snapshot that may contain schedulers.
        alive: All objects of the process.
    """
    own = {id(item) for optimizer in optimizers for item in torch_optimizers(optimizer).values()}
    if not own:
        return
    # By type(): the attribute __class__ of a proxy may import or compute its target.
    schedulers = [item for item in alive if issubclass(type(item), LRScheduler)]
    known = set(ids_within(saved))
    unsaved = [item for item in schedulers if id(getattr(item, "optimizer", None)) in own and id(item) not in known]
    inner = set(ids_within(child for item in unsaved for child in _children(item)))
    names = sorted({type(item).__name__ for item in unsaved if id(item) not in inner})
    if names:
        _logger.warning(
            "snapshot: the learning rate scheduler of an optimizer (%s) is not part of the snapshot, so a resume "
            "does not restore it. Add extensions.LRScheduler(scheduler), which steps it, or pass "
            "state_objects={'scheduler': scheduler} to the manager if the loop steps it.",
            ", ".join(names),
        )


def ids_within(targets: Iterable[object]) -> Iterator[int]:
    """Yield the identities of objects and of the objects that their attributes and containers refer to.

    Args:
        targets: The objects. The parts of modules and the optimizers of schedulers are left out, because the states of
            these objects do not contain others.
    """
    level, seen = list(targets), set[int]()
    for _ in range(_MAX_DEPTH):
        level = [item for item in level if id(item) not in seen]
        seen.update(map(id, level))
        if len(seen) > _MAX_OBJECTS:
            break
        level = [child for item in level for child in _children(item)]
    return iter(seen)


def _children(target: object) -> list[object]:
    # The states of models and of optimizers of torch contain no schedulers.
    if isinstance(target, str | bytes | Tensor | nn.Module | type) or _has_plain_state(target):
        return []
    if isinstance(target, dict):
        return list(target.values()) if len(target) <= _MAX_ITEMS else []
    if isinstance(target, list | tuple):
        return list(target) if len(target) <= _MAX_ITEMS else []
    children = list(vars(target).values()) if hasattr(target, "__dict__") else []
    if isinstance(target, LRScheduler):
        return [child for child in children if not isinstance(child, Optimizer)]
    return children


def _has_plain_state(target: object) -> bool:
    return isinstance(target, Optimizer) and type(target).state_dict is Optimizer.state_dict
