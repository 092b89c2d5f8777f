"""Environment of a delivery process: its command, its variables, and the servers that it sends credentials to."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from pte_tracking._delivery.credentials import are_renewed, read_credentials
from pte_tracking._store.interpreter import python_command
from pte_tracking._store.manifest import Manifest

_MODULE = "pte_tracking._delivery.process"
#: Exit status of a process without runs. Not 0, which ``Popen`` also reports if another part of the program waited for
#: the process.
DONE_STATUS = 10


@dataclasses.dataclass(frozen=True)
class DeliveryEnvironment:
    """What the delivery process of a run finds. Runs share a process if their environments are equal.

    Attributes:
        command: Command that starts the process, with the directories of ``sys.path``.
        credentials: Variables that may contain credentials.
        servers: Servers of the run. A process sends its credentials to the servers of its runs, so runs of different
            servers do not share one.
        variables: All variables.
    """

    command: tuple[str, ...]
    credentials: Mapping[str, str] = dataclasses.field(repr=False)
    servers: frozenset[str]
    variables: Mapping[str, str] = dataclasses.field(repr=False, compare=False)

    @classmethod
    def current(cls, directory: Path) -> DeliveryEnvironment:
        """Return the environment of this process for the run in a directory.

        Args:
            directory: The run directory.

        Raises:
            OSError: If the manifest cannot be read.
            RunNotFoundError: If the directory contains no run.
        """
        return cls(tuple(python_command(_MODULE)), read_credentials(), _read_servers(directory), child_variables())

    def has_new_credentials(self) -> bool:
        """Whether this process has other credentials now for the same servers."""
        return are_renewed(self.credentials)


def _read_servers(directory: Path) -> frozenset[str]:
    """Return the servers that the sinks of a run name."""
    options = [value for entry in Manifest.load(directory).sinks for value in entry.options.values()]
    return frozenset(filter(None, (_server(value) for value in options if isinstance(value, str))))


def _server(url: str) -> str | None:
    """Return the scheme and the host of a URL, None for another text."""
    try:
        parts = urlsplit(url)
    except ValueError:  # the backend reports it
        return url
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else None


def child_variables() -> dict[str, str]:
    """Return the environment variables of a process in the background that imports only installed modules."""
    variables = dict(os.environ)
    # Files in the current directory may have the name of a module.
    variables["PYTHONSAFEPATH"] = "1"
    # Warnings of client libraries, turned into errors for the user's own code, would end the delivery.
    variables.pop("PYTHONWARNINGS", None)
    return variables
