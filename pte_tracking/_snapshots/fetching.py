"""Snapshots that are fetched from a backend."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pte_tracking._runs.run import Run
from pte_tracking._snapshots.candidate import Candidate
from pte_tracking._store.events import Checkpoint
from pte_tracking.sinks import Sink, check_client, load_sinks


def is_uri(source: str) -> bool:
    """Whether a source is the URI of a tracked checkpoint and not a path."""
    return re.match(r"[A-Za-z][\w+.-]+:/", source) is not None and not Path(source).exists()


def fetch(uri: str, sinks: Sequence[Sink], folder: Path | None, call: str) -> Candidate:
    """Fetch a tracked checkpoint from a backend.

    Args:
        uri: URI of the checkpoint.
        sinks: Sinks with a configured destination. Other sinks use the environment.
        folder: Directory in which a temporary directory is created. None for that of the system.
        call: Function of the user, as named in messages.

    Returns:
        The snapshot in the temporary directory.

    Raises:
        LookupError: If the URI does not exist.
        ValueError: If no sink supports the URI, or a supported version of the client library is not installed.
    """
    scheme = uri.partition(":")[0]
    sinks = [sink for sink in sinks if scheme in sink.schemes]
    if not sinks:
        installed = load_sinks()
        sinks = [sink_class() for sink_class in installed if scheme in sink_class.schemes]
    if not sinks:
        schemes = sorted(name for sink_class in installed for name in sink_class.schemes)
        raise ValueError(
            f"{call}({uri!r}): no installed sink supports {scheme}: URIs. Supported schemes: "
            f"{', '.join(schemes) or 'none'}. Otherwise pass 'latest', 'best', or a path."
        )
    check_client(type(sinks[0]))
    with _temporary_directory(folder) as target:
        return Candidate(sinks[0].fetch(uri, target), fetched_to=target)


def fetch_from_sinks(run: Run, rank: Callable[[Sequence[Checkpoint]], Sequence[Checkpoint]]) -> Candidate | None:
    """Fetch a snapshot of the run in the directory, or of the newest run if there is none, from a sink that has one.

    Args:
        run: The run, which is not open yet.
        rank: Returns the snapshots in the order in which they are tried.

    Returns:
        The snapshot. None if no sink has an intact one.

    Raises:
        Exception: If a backend is not available.
    """
    position = run.start_position()
    for sink in run.sinks:
        if type(sink).fetch_snapshot is Sink.fetch_snapshot:
            continue
        with _temporary_directory(run.directory) as target:
            path = sink.resolve().fetch_snapshot(None if position is None else position["id"], target, rank)
            if path is not None:
                return Candidate(path, fetched_to=target)
            shutil.rmtree(target)
    return None


@contextlib.contextmanager
def _temporary_directory(folder: Path | None) -> Iterator[Path]:
    """Create a directory for fetched files, which is deleted after an error only."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    target = Path(os.path.realpath(tempfile.mkdtemp(prefix=".fetched-", dir=folder)))
    try:
        yield target
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
