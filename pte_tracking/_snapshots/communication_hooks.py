"""Communication hooks of distributed models, whose states snapshots do not contain."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import nn

_logger = logging.getLogger("pte_tracking")
_CONSTANTS = (type(None), bool, int, float, str)
#: Content of the states of torch that change while a model is trained.
_CONTENTS = {
    "PowerSGDState": "error feedback, low-rank matrices, random generator, and number of iterations",
    "PostLocalSGDState": "number of iterations",
}


def report_unsaved_hooks(models: Mapping[str, object], saved: Iterable[object]) -> bool:
    """Log the communication hooks with a state that a resume does not restore.

    Args:
        models: Models by name, as passed to the manager.
        saved: Objects whose states are in the snapshot.

    Returns:
        Whether there is such a hook.
    """
    known = {id(item) for item in saved}
    texts = [
        f"{getattr(hook, '__qualname__', type(hook).__name__)} of the model {name!r} ({_describe(state)})"
        for name, model in models.items()
        for hook, state in _hooks(model)
        if id(state) not in known and not _is_constant(state)
    ]
    if not texts:
        return False
    _logger.warning(
        "snapshot: the state of the communication hook %s is not part of the snapshot. A resume is not exact: the hook "
        "starts with the state that the script constructs. If the state is equal on all ranks, give it state_dict() "
        "and load_state_dict(), and pass it to the manager in state_objects.",
        ", ".join(dict.fromkeys(texts)),
    )
    return True


def _hooks(model: object) -> Iterator[tuple[Any, Any]]:
    """Yield the registered hooks and their states: of ``DistributedDataParallel`` and ``FullyShardedDataParallel``."""
    for module in model.modules() if isinstance(model, nn.Module) else ():
        yield from getattr(module, "_comm_hooks", ())
        if (hook := getattr(module, "_comm_hook", None)) is not None:
            yield hook, getattr(module, "_comm_hook_state", None)


def _is_constant(state: object) -> bool:
    """Return whether a state does not change: a process group, or settings of a hook of torch."""
    distributed = sys.modules["torch.distributed"]
    defaults = sys.modules.get("torch.distributed.algorithms._comm_hooks.default_hooks")
    kinds = [getattr(distributed, "ProcessGroup", None), getattr(defaults, "DefaultState", None)]
    return isinstance(state, (*_CONSTANTS, *(kind for kind in kinds if kind is not None)))


def _describe(state: object) -> str:
    kind = type(state).__name__
    return f"{kind}: {_CONTENTS[kind]}" if kind in _CONTENTS else kind
