"""Names under which a backend with limits on keys stores the keys of a run."""

from __future__ import annotations

import logging
import posixpath
from collections.abc import Mapping
from typing import Any

from pte_tracking.sinks import Limits, map_key

_logger = logging.getLogger("pte_tracking")


class MappedKeys:
    """Names of the keys that a sink has received. Each kind of event has its own names.

    The state of the sink contains the names, so a key has the same name after a restart, a rewind, or a repeated
    delivery.

    Args:
        sink_key: Key of the sink in the run.
        limits: Limits of the sink.
    """

    def __init__(self, sink_key: str, limits: Limits) -> None:
        self._sink_key = sink_key
        self._limits = limits
        #: Whether the backend limits keys at all. If not, every key is its own name.
        self.is_needed = bool(limits.key_characters or limits.key_length or limits.key_is_path or limits.key_is_file)
        self.restore({})

    def state(self) -> dict[str, dict[str, str | None]]:
        """Return the state to save: the name of each key by kind, None if the key is its name."""
        return {
            kind: {key: None if name == key else name for key, name in names.items()}
            for kind, names in self._names.items()
        }

    def restore(self, state: Mapping[str, Mapping[str, str | None]]) -> None:
        """Restore a state that :meth:`state` returned."""
        self._names: dict[str, dict[str, str]] = {}
        self._taken: dict[str, _TakenNames] = {}
        for kind, names in state.items():
            for key, name in names.items():
                self._add(kind, key, key if name is None else name)

    def find(self, kind: str, key: str) -> str:
        """Return the name of a key. The first call for a key chooses the name.

        Args:
            kind: Kind of the event, such as ``"metrics"``.
            key: Key as the user logged it.
        """
        if not self.is_needed:
            return key
        known = self._names.get(kind, {}).get(key)
        if known is not None:
            return known
        name = map_key(key, self._limits, self._taken.get(kind, ()))
        if name != key:
            _logger.warning("%s: key %.300r is delivered as %r", self._sink_key, key, name)
        return self._add(kind, key, name)

    def map_values(self, kind: str, values: dict[str, Any]) -> dict[str, Any]:
        """Return values with the names of their keys: ``values`` itself if the backend does not limit keys."""
        if not self.is_needed:
            return values
        names = self._names.setdefault(kind, {})
        if not names.keys() >= values.keys():
            for key in values:
                self.find(kind, key)
        return {names[key]: value for key, value in values.items()}

    def _add(self, kind: str, key: str, name: str) -> str:
        self._names.setdefault(kind, {})[key] = name
        self._taken.setdefault(kind, _TakenNames(self._limits.key_is_file)).add(name)
        return name


class _TakenNames:
    """Names that a new key cannot have. If names are files, these are also names below or above other names."""

    def __init__(self, are_files: bool) -> None:
        self._are_files = are_files
        self._names: set[str] = set()
        self._directories: set[str] = set()

    def add(self, name: str) -> None:
        self._names.add(name)
        if self._are_files:
            self._directories.update(_parents(name))

    def __contains__(self, name: object) -> bool:
        if name in self._names or name in self._directories:
            return True
        return self._are_files and not self._names.isdisjoint(_parents(str(name)))


def _parents(name: str) -> list[str]:
    parents = []
    while name := posixpath.dirname(name):
        parents.append(name)
    return parents
