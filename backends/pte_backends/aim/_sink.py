"""Aim sink."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pte_backends._options import check_texts
from pte_tracking.sinks import Connection, Display, EventKind, Limits, Location, RunView, Sink

_REPOSITORY = ".aim"


@dataclasses.dataclass(frozen=True)
class AimSink(Sink):
    """Sink that writes an Aim run, which ``aim up`` shows.

    The Aim run has the ID of the run as its hash, and stays the same after every resume.

    Args:
        repo: Directory that contains the Aim repository ``.aim``, or the address ``aim://host:port`` of a tracking
            server. Defaults to None: as in Aim, the nearest parent of the working directory that contains ``.aim``, or
            the working directory. A missing repository is created.
        experiment: Name of the experiment. Defaults to None: Aim's experiment ``default``.

    Raises:
        TypeError: If an option is not a string.
        ValueError: If an option is empty.

    Example:
        >>> from pte_backends.aim import AimSink
        >>> AimSink(experiment="digits").experiment
        'digits'
    """

    name: ClassVar[str] = "aim"
    requires: ClassVar[str | None] = "aim"
    install: ClassVar[str] = "pip install 'pte-tracking[aim]'"
    # A sequence has values of one kind.
    limits: ClassVar[Limits] = Limits(
        batch_events=100,  # Aim stores about 1,000 values per second, and the position is saved after each batch.
        shared_names=("metric", "figure", "image", "histogram", "text", "audio"),
    )
    shows: ClassVar[Mapping[EventKind, Display] | None] = {
        "metrics": "native",
        "params": "native",
        "tags": "native",
        "figure": "native",
        "image": "native",
        "histogram": "native",
        "text": "native",
        "audio": "native",
        "dataset": "artifact",
        "artifact": "native",
        "checkpoint": "artifact",
        "status": "native",
    }

    repo: str | None = None
    experiment: str | None = None

    def __post_init__(self) -> None:
        check_texts(self, "repo", "experiment")
        for field in ("repo", "experiment"):
            if getattr(self, field) == "":
                raise ValueError(f"{field}: expected a non-empty string, got ''. Pass None for the default.")

    def resolve(self) -> AimSink:
        """Find the repository.

        Returns:
            A sink with the absolute path of the repository.
        """
        return dataclasses.replace(self, repo=_find_repository(self.repo))

    @property
    def destination(self) -> object:
        """The repository, which contains one Aim run per run. Another experiment renames the one of the Aim run."""
        return self.repo

    def locate(self, directory: Path, state: Mapping[str, Any]) -> Location | None:
        """Return the command that opens the repository.

        Args:
            directory: Absolute path of the run directory.
            state: Last saved state of a connection.

        Returns:
            The hash of the Aim run and the command. No command for a tracking server, whose web page is not known.
        """
        repository = _find_repository(self.repo)
        command = None if "://" in repository else f"aim up --repo {shlex.quote(repository)}"
        return Location(state.get("run_id"), command=command)

    def open(self, run: RunView, state: Mapping[str, Any]) -> Connection:
        """Open the Aim run, or create it.

        Args:
            run: Run to deliver.
            state: Last state of an earlier connection.

        Returns:
            The open connection.

        Raises:
            SinkClosedError: If the Aim run was deleted.
            TimeoutError: If another process has the Aim run open.
        """
        # The import of Aim takes a second and 80 MB.
        from pte_backends.aim._connection import AimConnection

        return AimConnection(_find_repository(self.repo), self.experiment, run, state)


def _find_repository(repo: str | None) -> str:
    if repo is not None:
        return repo if "://" in repo else str(Path(repo).absolute())
    working_directory = Path.cwd()
    candidates = (working_directory, *working_directory.parents)
    return str(next((path for path in candidates if (path / _REPOSITORY).is_dir()), working_directory))
