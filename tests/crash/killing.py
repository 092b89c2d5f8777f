"""SIGKILL at an exact point in the code: within a write, or between two dependent steps.

A kill point is ``module:attribute:count:timing``. It kills the process ``before`` or ``after`` the ``count``-th call of
the function. The timing ``middle`` is for functions that write bytes to a descriptor and kills after half of the bytes.
A training process calls :func:`arm` after its fork. A delivery process does so at startup, through ``sitecustomize``
on its path and the environment variable ``PTE_TEST_KILL``.
"""

from __future__ import annotations

import functools
import importlib
import os
import signal
from typing import Any

#: Kill points of the training process: before, within and after every step that writes to disk.
TRAINING_KILL_POINTS = [
    "pte_tracking._store.journal:Journal.append:{n}:before",
    "pte_tracking._store.journal:Journal.append_locked:{n}:after",
    "pte_tracking._store.journal:os.write:{n}:middle",
    "pte_tracking._delivery.inline:InlineConsumer.deliver_event:{n}:after",
    "pte_backends.json._sink:JsonConnection.write:{n}:before",
    "pte_backends.json._log_file:os.pwrite:{n}:middle",
    "pte_backends.json._log_file:os.pwrite:{n}:after",
    "pte_tracking._runs.run:Run.log_checkpoint:{few}:before",
    "pte_tracking._runs.run:Run.log_checkpoint:{few}:after",
    "pte_tracking._runs.run:Run.remove_checkpoint:{few}:before",
    "pte_tracking._runs.run:Run.remove_checkpoint:{few}:after",
    "pte_tracking._runs.run:Run.position:{few}:after",
    "pte_tracking._store.manifest:Manifest.save:{few}:after",
    "torch:save:{few}:after",
    "os:replace:{few}:before",
    "os:replace:{few}:after",
]

#: Kill points of the delivery process: before and after each batch and each update of the cursor.
DELIVERY_KILL_POINTS = [
    "pte_tracking._delivery.consumer:SinkConsumer._deliver:{few}:before",
    "pte_tracking._delivery.consumer:SinkConsumer._deliver:{few}:after",
    "pte_tracking._delivery.consumer:SinkConsumer.save:{few}:before",
    "pte_tracking._delivery.consumer:SinkConsumer.save:{few}:after",
    "pte_tracking._delivery.consumer:SinkConsumer.finish:1:before",
    "pte_tracking._delivery.consumer:SinkConsumer._apply_rewind:1:before",
    "pte_tracking._delivery.consumer:SinkConsumer._apply_rewind:1:after",
    "pte_tracking._store.files:os.replace:{few}:before",
    "mlflow.tracking.client:MlflowClient.create_run:1:after",
    "mlflow.tracking.client:MlflowClient.log_batch:{few}:after",
    "mlflow.tracking.client:MlflowClient.create_logged_model:{few}:after",
    "mlflow.tracking.client:MlflowClient.finalize_logged_model:{few}:before",
    "mlflow.tracking.client:MlflowClient.log_outputs:{few}:after",
]


def find_function(module: str, path: str) -> tuple[Any, str]:
    """Return the owner and the name of the function of a kill point.

    Raises:
        AttributeError: If it does not exist.
    """
    owner: Any = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    getattr(owner, name)
    return owner, name


def arm(kill_point: str) -> None:
    """Kill the current process when it reaches a kill point."""
    module, path, count, timing = kill_point.split(":")
    owner, name = find_function(module, path)
    original = getattr(owner, name)
    remaining_calls = int(count)

    @functools.wraps(original)
    def call_or_kill(*args: Any, **kwargs: Any) -> Any:
        nonlocal remaining_calls
        remaining_calls -= 1
        if remaining_calls != 0:
            return original(*args, **kwargs)
        if timing == "middle":
            fd, data, *rest = args
            original(fd, data[: len(data) // 2], *rest)
        elif timing == "after":
            original(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, call_or_kill)
