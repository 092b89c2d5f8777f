"""Usage of the machines that train."""

from __future__ import annotations

import math
import os

from pte_tracking._interface.extension import Extension, Manager
from pte_tracking._runs.node_sampler import NodeSampler
from pte_tracking._store.dependencies import required_by
from pte_tracking._store.manifest import Sampling
from pte_tracking._store.printable import describe_value
from pte_tracking._store.samples import node_name


class SystemMetrics(Extension):
    """Extension that lets the delivery process sample CPU, memory, disk, network, and GPUs.

    Nothing is sampled in the training process, so sampling costs no time there and continues while the training hangs.
    On each further node, a rank starts a process that samples the node. Backends receive the samples with their
    numbers as steps, under keys such as ``system/cpu_utilization_percentage``, which MLflow shows on its system metrics
    page. ``docs/monitor.md`` lists all keys. The JSON log and CSV files do not contain them.

    Sampling ends with the training process, however it ends. After a resume, the numbers of the samples continue.
    Requires psutil. GPUs also require nvidia-ml-py. Snapshots contain no state of the extension.

    Args:
        interval: Time between two samples, in seconds. Defaults to 10.

    Raises:
        ImportError: If psutil is not installed.
        TypeError: If ``interval`` is not a number.
        ValueError: If ``interval`` is not positive and finite.

    Example:
        >>> import pte_tracking as pte
        >>> from pte_tracking import extensions
        >>> manager = pte.ExtensionsManager({}, 1, [extensions.SystemMetrics(interval=30)], iters_per_epoch=1)
    """

    trigger = None
    default_name = "system_metrics"

    def __init__(self, interval: float = 10.0) -> None:
        with required_by("SystemMetrics", "psutil", "'pte-tracking[monitor]'"):
            import psutil  # noqa: F401  # The delivery process imports it.
        if isinstance(interval, bool) or not isinstance(interval, int | float):
            raise TypeError(f"interval: expected a number of seconds, got {describe_value(interval)}")
        if not 0 < interval < math.inf:
            raise ValueError(f"interval: expected a positive number of seconds, got {interval!r}")
        self._interval = float(interval)
        self._sampler: NodeSampler | None = None

    def initialize(self, manager: Manager) -> None:
        ranks = manager.world.all_gather("the nodes of SystemMetrics", (node_name(), os.getpid()))
        node = node_name()
        pids = [pid for name, pid in ranks if name == node]
        has_several_nodes = len({name for name, _ in ranks}) > 1
        sampling = Sampling(self._interval, pids, node if has_several_nodes else "")
        manager.run.sample_system(sampling)
        is_first_rank_of_node = pids[0] == os.getpid()
        if node != ranks[0][0] and is_first_rank_of_node:
            self._sampler = NodeSampler(manager.run.directory, manager.run.id, sampling)

    def __call__(self, manager: Manager) -> None:
        """Do nothing: the delivery process samples."""

    def finalize(self, manager: Manager) -> None:
        if self._sampler is not None:
            self._sampler.stop()
