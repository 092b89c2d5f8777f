"""Software and hardware with which a training runs, on which the exactness of a resume depends."""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from pte_tracking import __version__
from pte_tracking._distributed.world import World

_logger = logging.getLogger("pte_tracking")


def describe_environment(models: Iterable[Sequence[Tensor]], world: World) -> dict[str, str]:
    """Return the versions, devices, and data types of a training by name.

    Args:
        models: Parameters of each model, which show the devices and data types.
        world: The ranks.
    """
    models = list(models)
    types = {str(dtype).removeprefix("torch.") for dtype in {item.dtype for model in models for item in model}}
    return {
        "torch": str(torch.__version__),
        # The local version of torch names the CUDA version in most builds, but not in all.
        "CUDA": torch.version.cuda or "none",
        "Python": ".".join(platform.python_version_tuple()[:2]),
        "pte-tracking": __version__,
        "device": ", ".join(sorted(set(map(_device_name, models)))) or "CPU",
        "weights": ", ".join(sorted(types)) or "none",
        "ranks": str(world.size),
    }


def report_differences(saved: Mapping[str, str], current: Mapping[str, str]) -> None:
    """Log in one line the differences that may make a resume inexact.

    Args:
        saved: Environment in the snapshot.
        current: Environment of this training.
    """
    differing = [name for name in current if saved.get(name, current[name]) != current[name]]
    if not differing:
        return
    texts = [f"{name} {saved[name]}, now {current[name]}" for name in differing]
    _logger.warning(
        "The snapshot was saved with %s. The training continues, but possibly not bit for bit as there.%s",
        "; ".join(texts),
        " The current epoch continues at the same fraction of its data." if "ranks" in differing else "",
    )


def _device_name(parameters: Sequence[Tensor]) -> str:
    device = parameters[0].device if parameters else torch.device("cpu")
    if device.type == "cuda":
        return f"{device.type.upper()} ({torch.cuda.get_device_name(device)})"
    return device.type.upper()
