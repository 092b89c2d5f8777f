"""Messages about reported values that are not recorded."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import weakref
import zlib
from collections.abc import Mapping
from typing import IO, Any

from torch.utils.data import get_worker_info

from pte_tracking._platform.files import read_at, write_at
from pte_tracking._platform.locks import lock_byte, unlock_byte
from pte_tracking._platform.processes import after_fork_in_child, path_in_children

_logger = logging.getLogger("pte_tracking")
_MAX_KEYS = 20  # keys for which a warning is logged; a program may report any number of keys
_SLOTS = 1 << 20
#: Environment variable with the path of the file in which child processes mark the keys that they have named.
_NAMED_KEYS = "PTE_TRACKING_NAMED_KEYS"

BETWEEN_ITERATIONS = (
    "%r was reported between iterations and is not recorded. Report it in the body of the loop over "
    "manager.iterations() or of 'with manager.run_iteration():', or log it with manager.run.log_metrics()."
)
AFTER_TRAINING = (
    "%r was reported after the end of the training and is not recorded. Log it with manager.run.log_metrics()."
)
TOO_LATE = (
    "%r was reported by another thread while the extensions ran and is not recorded. Wait for the thread within 'with "
    "manager.run_iteration():'."
)
_AMBIGUOUS = (
    "%r was reported in a thread while several managers are training, and is not recorded. Start the thread's function "
    "with contextvars.copy_context().run(function) within the iteration."
)
_IN_CHILD = (
    "%r was reported in process %d, a child of the training process, and is not recorded. Return the value to the "
    "training process and report it there."
)


class LostValues:
    """Warnings about values that are not recorded, one for each key.

    Args:
        is_enabled: Whether to log.
    """

    def __init__(self, *, is_enabled: bool = True) -> None:
        self._is_enabled = is_enabled
        self._keys: set[str] = set()

    def warn_all(self, keys: Mapping[str, Any], message: str, *args: object) -> None:
        """Log a warning for each key that has had none."""
        for key in keys:
            self.warn(key, message, *args)

    def warn(self, key: str, message: str, *args: object) -> None:
        """Log a warning for a key that has had none."""
        if key not in self._keys and len(self._keys) < _MAX_KEYS:
            self._keys.add(key)
            if self._is_enabled:
                _logger.warning(message, key, *args)


#: Reports of the iterations of all managers of this process: objects of type IterationReports.
trainings: weakref.WeakSet[Any] = weakref.WeakSet()
_ambiguous = LostValues()


def warn_ambiguous(values: Mapping[str, Any]) -> None:
    """Log a warning for values that a thread reported while several managers are training."""
    _ambiguous.warn_all(values, _AMBIGUOUS)


class _ChildProcesses:
    """Warnings of child processes, one for each key in all of them.

    Attributes:
        is_child: Whether this process was forked while its parent had a manager, and has none itself.
    """

    def __init__(self) -> None:
        self.is_child = False
        self._keys: set[str] = set()
        self._named_keys: IO[bytes] | None = None

    def prepare(self) -> None:
        """Prepare the parent, which has a manager."""
        self.is_child = False
        if self._named_keys is None:
            with contextlib.suppress(OSError):
                self._named_keys = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as the process
                # A spawned child does not inherit open files.
                if path := path_in_children(self._named_keys.fileno()):
                    os.environ[_NAMED_KEYS] = path

    def after_fork(self) -> None:
        """Stop collecting in a forked child, whose values would be lost without a warning."""
        self.is_child = bool(trainings)
        for training in trainings:
            training.abandon()

    def warn(self, values: Mapping[str, Any]) -> None:
        """Log a warning for each key that no child process has named."""
        worker = get_worker_info()
        for key in values:
            if key in self._keys or len(self._keys) >= _MAX_KEYS:
                continue
            self._keys.add(key)
            if not self.is_child:
                self._open_file_of_parent()
            # Without the file, the first of the workers, which load the same dataset, names the keys.
            if self._claim(key) if self._named_keys is not None else worker is None or worker.id == 0:
                _logger.warning(_IN_CHILD, key, os.getpid())

    def _open_file_of_parent(self) -> None:
        if self._named_keys is None and _NAMED_KEYS in os.environ:
            with contextlib.suppress(OSError):
                self._named_keys = open(os.environ[_NAMED_KEYS], "r+b", buffering=0)  # noqa: SIM115

    def _claim(self, key: str) -> bool:
        """Return whether this process is the first one to name a key."""
        assert self._named_keys is not None
        file, slot = self._named_keys.fileno(), zlib.crc32(key.encode()) % _SLOTS
        with contextlib.suppress(OSError):
            lock_byte(file, slot, wait=True)
            try:
                if read_at(file, 1, slot) == b"\1":
                    return False
                write_at(file, b"\1", slot)
            finally:
                unlock_byte(file, slot)
        return True


children = _ChildProcesses()
after_fork_in_child(children.after_fork)


def is_in_child_process() -> bool:
    """Return whether this process is a child of a training process or a worker of a data loader."""
    return children.is_child or get_worker_info() is not None
