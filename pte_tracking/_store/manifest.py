"""Manifest of a run, ``run.json``."""

from __future__ import annotations

import glob
import logging
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from pte_tracking._store.events import Checkpoint, Metrics, RunStarted
from pte_tracking._store.files import write_atomically
from pte_tracking._store.journal_reader import find_events, read
from pte_tracking._store.layout import JOURNAL, MANIFEST, MANIFEST_LOCK
from pte_tracking._store.lock import Lock
from pte_tracking._store.provenance import describe_process
from pte_tracking._store.values import to_text

FORMAT = 2
_FIRST_FORMAT = 1  # the first versions wrote no number
_logger = logging.getLogger("pte_tracking")
#: Directories whose manifest was rebuilt, which is logged once.
_rebuilt: set[Path] = set()
#: Limit of times in seconds since the Unix epoch, in the year 9892. Python cannot represent dates after 9999.
MAX_TIME = 250_000_000_000


class RunNotFoundError(ValueError):
    """Raised when a directory contains no run, or a run that this version cannot read.

    Example:
        >>> import pathlib, tempfile
        >>> import pte_tracking
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     _ = pathlib.Path(directory, "run.json").write_text("{}")
        ...     try:
        ...         pte_tracking.Run(directory).open()
        ...     except pte_tracking.RunNotFoundError as error:
        ...         print(str(error).rpartition("/")[2])
        run.json: damaged or not a run manifest: Object missing required field `id`. Move the run ...
    """


class SinkEntry(msgspec.Struct, frozen=True):
    """Sink of a run.

    Attributes:
        key: Key of the sink in the run: its name, followed by a number for further sinks of that name.
        name: Name of the sink, which is the name of its entry point.
        options: Fields of the sink, with values from the environment resolved when the run started.
        given: Fields of the sink as configured by the user.
    """

    key: str
    name: str
    options: dict[str, Any] = {}
    given: dict[str, Any] = {}


class ParentRun(msgspec.Struct, frozen=True):
    """Run that another run was forked from.

    Attributes:
        id: ID of the parent.
        name: Display name of the parent.
        directory: Run directory of the parent at the fork.
        step: Number of completed iterations at the fork.
        has_history: Whether the fork contains the history of the parent.
    """

    id: str
    name: str
    directory: str
    step: int
    has_history: bool


class Sampling(msgspec.Struct, frozen=True):
    """Request of a training process to sample the system metrics of its node.

    Attributes:
        interval: Time between two samples, in seconds.
        pids: Process IDs of the ranks on the node. The first is that of the process that writes the run. A request of
            an earlier process has no effect.
        node: Name of the node in the keys. Empty if the training uses only one node.
    """

    interval: Annotated[float, msgspec.Meta(gt=0)]
    pids: Annotated[list[int], msgspec.Meta(min_length=1)]
    node: str = ""


class Manifest(msgspec.Struct, frozen=True):
    """Content of ``run.json``.

    Attributes:
        id: ID of the run, 32 hexadecimal digits.
        name: Display name of the run.
        start_time: Time of the first start, in seconds since the Unix epoch.
        sinks: Sinks of the run.
        files: Glob patterns of the files at the top of the directory that belong to the run and are archived with it.
        context: Origin of the first start: ``user``, ``host``, ``command``, ``source``, and, as soon as they are known,
            ``git_commit``, ``git_branch``, ``git_remote``, ``git_dirty``, and ``git_root``.
        world_size: Number of processes that train together, since the last start.
        format: Format number of the run directory.
        parent: Run that this run was forked from. None if it was not forked.
        group: Name of the group that the run belongs to, such as a sweep. None if it belongs to none.
        ranking: Metric by which the snapshots are ranked, and ``"min"`` or ``"max"``. None if they are not ranked.
        sampling: Request to sample system metrics. None if there is none.
    """

    id: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]
    name: str
    start_time: Annotated[float, msgspec.Meta(ge=0, lt=MAX_TIME)]
    sinks: list[SinkEntry] = []
    files: list[str] = []
    context: dict[str, str] = {}
    world_size: int = 1
    format: int = FORMAT
    parent: ParentRun | None = None
    group: str | None = None
    ranking: tuple[str, Literal["min", "max"]] | None = None
    sampling: Sampling | None = None

    @classmethod
    def new(cls, directory: Path, name: str | None, group: str | None = None) -> Manifest:
        """Create the manifest of a run that starts now.

        Args:
            directory: The run directory.
            name: Display name of the run. By default the name of the directory and a part of the ID.
            group: Name of the group of the run.

        Returns:
            The manifest, without sinks.
        """
        run_id = uuid.uuid4().hex
        name = name or f"{to_text(directory.name)}-{run_id[:6]}"
        return cls(run_id, name, time.time(), context=describe_process(), group=group)

    @classmethod
    def load(cls, directory: Path) -> Manifest:
        """Read the manifest of a run directory.

        A manifest that is missing, or that has no content since a loss of power, is rebuilt from the journal.

        Args:
            directory: The run directory.

        Returns:
            The manifest.

        Raises:
            RunNotFoundError: If the manifest is missing or damaged, or has another format.
            OSError: If the file cannot be read.
        """
        path = directory / MANIFEST
        if path.is_fifo():  # reading would block
            raise RunNotFoundError(f"{path}: damaged or not a run manifest: named pipe")
        try:
            data = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            if rebuilt := _rebuild(directory):
                return rebuilt
            reason = "it is a file" if directory.exists() else "it does not exist"
            reason = f"it contains no {MANIFEST}" if directory.is_dir() else reason
            raise RunNotFoundError(f"{directory}: not a run directory ({reason})") from None
        if not data.strip(b"\0") and (rebuilt := _rebuild(directory)):
            return rebuilt
        try:
            content = msgspec.json.decode(data)
            _check_format(path, content)
            return msgspec.convert(content, cls)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise RunNotFoundError(f"{path}: damaged or not a run manifest: {error}") from error

    def save(self, directory: Path) -> None:
        """Replace the manifest of a run directory atomically.

        Args:
            directory: The run directory.

        Raises:
            OSError: If the file cannot be written.
        """
        data = msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"
        write_atomically(directory / MANIFEST, data, is_durable=True)


def update_manifest(directory: Path, update: Callable[[Manifest], Manifest], new: Manifest | None = None) -> Manifest:
    """Change a manifest under a lock, so that no change of another process is lost.

    Args:
        directory: The run directory.
        update: Called with the current manifest. Returns the changed manifest.
        new: Manifest of a new run, which replaces the current manifest before the change.

    Returns:
        The changed manifest.

    Raises:
        RunNotFoundError: If ``new`` is None and the directory contains no run.
        LockedError: If another process holds the lock for 5 seconds.
        OSError: If the file cannot be written.
    """
    held = Lock(directory / MANIFEST_LOCK, timeout=5)
    try:
        changed = update(new or Manifest.load(directory))
        changed.save(directory)
        return changed
    finally:
        held.release()


def check_format(directory: Path) -> None:
    """Check the format of a run directory without changing it. Other faults of ``run.json`` are not reported.

    Args:
        directory: The run directory, which may not exist.

    Raises:
        RunNotFoundError: If the directory contains a run of another format.
    """
    path = directory / MANIFEST
    try:
        content = msgspec.json.decode(path.read_bytes()) if path.is_file() else None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return
    _check_format(path, content)


def _rebuild(directory: Path) -> Manifest | None:
    """Return the manifest of the run in the journal, without its sinks and its context. None if there is no run."""
    journal = directory / JOURNAL
    first, _ = next(read(journal), (None, 0)) if journal.is_file() else (None, 0)
    if not isinstance(first, RunStarted):
        return None
    paths = {event.log for event, _ in find_events(journal, Metrics) if event.log}
    paths |= {event.path for event, _ in find_events(journal, Checkpoint)}
    if directory not in _rebuilt:
        _rebuilt.add(directory)
        _logger.warning(
            "%s: %s is missing or empty. It was rebuilt from the journal, without sinks.", directory, MANIFEST
        )
    files = sorted({glob.escape(path.split("/")[0]) for path in paths})
    try:
        return msgspec.convert(
            {"id": first.run_id, "name": first.name, "start_time": first.time, "files": files}, Manifest
        )
    except msgspec.ValidationError:
        return None


def _check_format(path: Path, content: object) -> None:
    # Other programs write files of this name, too. Without an ID, the file is not reported as an earlier format.
    if not isinstance(content, dict) or "id" not in content:
        return
    number = content.get("format", _FIRST_FORMAT)
    if type(number) is not int or number == FORMAT:
        return
    remedy = "Upgrade pte-tracking" if number > FORMAT else "Use the version that wrote it"
    raise RunNotFoundError(
        f"{path}: run directory format {number} is not supported (this version reads format {FORMAT}). "
        f"{remedy}, or choose another directory."
    )
