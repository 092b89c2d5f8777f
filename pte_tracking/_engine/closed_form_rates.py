"""Learning rates of schedulers whose arguments a script changes at a resume.

Schedulers such as ``CosineAnnealingLR`` compute each learning rate from the previous one. With another argument, they
would continue from a rate of the earlier schedule, and a cosine that has ended would stay at its minimum. torch also
computes their rates from the step alone, in ``_get_closed_form_lr()``, which ``step(epoch)`` calls.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

_TOLERANCE = 1e-5  # accumulated rounding errors, also of rates in single precision


def determines_rates(item: object) -> bool:
    """Return whether the current rates of an optimizer follow from the arguments and the step of a scheduler.

    They do not if the item is not such a scheduler, or if something else changes the rates as well.

    Args:
        item: Any object.
    """
    rates = _closed_form(item)
    if rates is None:
        return False
    scheduler: Any = item
    groups = zip(scheduler.optimizer.param_groups, rates, scheduler.base_lrs, strict=True)
    return all(
        math.isclose(group["lr"], rate, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE * base) for group, rate, base in groups
    )


def set_rates(scheduler: Any) -> None:
    """Set the rates of an optimizer to those that follow from the arguments and the step of a scheduler.

    Args:
        scheduler: Scheduler that has determined the rates.
    """
    rates = _closed_form(scheduler) or []
    for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
    scheduler._last_lr = [group["lr"] for group in scheduler.optimizer.param_groups]


def _closed_form(item: object) -> list[float] | None:
    compute = getattr(item, "_get_closed_form_lr", None)
    if not isinstance(item, LRScheduler) or compute is None:
        return None
    rates = [float(rate) for rate in compute()]
    return rates if len(rates) == len(item.optimizer.param_groups) else None  # A group may have been added since.
