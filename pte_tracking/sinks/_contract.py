"""Contract between pte_tracking and a tracking backend.

A backend consists of a *sink* and a *connection*. The sink is a frozen configuration that is stored in ``run.json``
and rebuilt in the delivery process, where it opens the connection. The core implements the rest in the same way for
all backends: queueing, retries, cursors, key mapping, batch sizes, and rewinds for backends that cannot delete data.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pte_tracking._store.events import AnyEvent, Checkpoint
from pte_tracking.sinks._connection import Connection, RunView
from pte_tracking.sinks._kinds import Display, EventKind
from pte_tracking.sinks._limits import Limits


@dataclasses.dataclass(frozen=True)
class Location:
    """Place where a user finds a run in a backend, as returned by :meth:`Sink.locate`.

    Attributes:
        run_id: ID of the run in the backend. Defaults to None: the backend has no such ID.
        url: Web page of the run, without credentials. Defaults to None: there is no server.
        command: Command that opens the run. Defaults to None: the web page suffices.

    Example:
        >>> from pte_tracking.sinks import Location
        >>> Location(command="tensorboard --logdir results").command
        'tensorboard --logdir results'
    """

    run_id: str | None = None
    url: str | None = None
    command: str | None = None


@dataclasses.dataclass(frozen=True)
class Sink(ABC):
    """Base class for the configuration of a backend.

    A subclass is a frozen dataclass whose fields are plain JSON values. The fields are written to ``run.json``, so they
    must not contain credentials. Fields whose names start with an underscore are set by :meth:`resolve` only. Register
    the class in the entry point group ``pte_tracking.sinks`` under its name.

    Attributes:
        name: Name of the sink, as passed in ``sinks=``. It equals the name of the entry point.
        inline: Whether the training process writes the sink. Only for sinks that need microseconds per event. Defaults
            to False: the delivery process writes it.
        requires: Name of the module of the client library. Defaults to None: only pte_tracking is required.
        install: Command that installs the client library, for the error message if it is missing. Defaults to ``""``.
        files: Glob patterns of the files that the sink writes to the top of the run directory. ``{log}`` stands for the
            name of each log. Defaults to ``()``.
        schemes: URI schemes that :meth:`fetch` supports. Defaults to ``()``.
        sources: Sources that :meth:`read_run` supports: glob patterns of file names, such as ``"*.csv"``, and URI
            schemes with their colon, such as ``"runs:"``. A directory is recognized by the names of its files, except
            by patterns of a suffix such as ``"*.csv"``. Defaults to ``()``.
        limits: Limits of the backend. Defaults to ``Limits()``.
        shows: How the backend shows each kind of event: ``"native"``, or ``"artifact"`` for a file, text, or
            parameter of the run. Kinds that it does not show are missing. The test suite
            :class:`pte_tracking.testing.SinkContract` tests the declaration. Defaults to None: not declared.
        poll_seconds: Seconds between two calls of :meth:`PolledConnection.poll`. An inline sink is not polled. Defaults
            to None: the connections have no such method.

    Example:
        >>> import dataclasses
        >>> from pte_tracking.sinks import Metrics, Sink
        >>> class PrintConnection:
        ...     def __init__(self, prefix):
        ...         self.prefix = prefix
        ...     def write(self, events):
        ...         for event in events:
        ...             if isinstance(event, Metrics):
        ...                 print(self.prefix, event.step, event.values)
        ...     def state(self):
        ...         return {}
        ...     def close(self, status):
        ...         print(self.prefix, status)
        >>> @dataclasses.dataclass(frozen=True)
        ... class PrintSink(Sink):
        ...     name = "print"
        ...     prefix: str = ""
        ...     def open(self, run, state):
        ...         return PrintConnection(self.prefix)
        >>> connection = PrintSink("metrics:").open(run=None, state={})
        >>> connection.write([Metrics(seq=1, time=0.0, step=10, values={"loss": 0.5})])
        metrics: 10 {'loss': 0.5}
        >>> connection.close("FINISHED")
        metrics: FINISHED
    """

    name: ClassVar[str]
    inline: ClassVar[bool] = False
    requires: ClassVar[str | None] = None
    install: ClassVar[str] = ""
    files: ClassVar[tuple[str, ...]] = ()
    schemes: ClassVar[tuple[str, ...]] = ()
    sources: ClassVar[tuple[str, ...]] = ()
    limits: ClassVar[Limits] = Limits()
    shows: ClassVar[Mapping[EventKind, Display] | None] = None
    poll_seconds: ClassVar[float | None] = None

    @property
    def uses_shared_server(self) -> bool:
        """Whether the sink writes to a server that many runs share.

        If True, the delivery process sends fewer and larger requests while the run is in progress. Defaults to False.
        """
        return False

    @property
    def rewinds(self) -> bool:
        """Whether the backend can remove superseded events.

        If False, the core delivers no :class:`Rewound` event and no second data point with the same key and step.
        Defaults to True.
        """
        return True

    @property
    def destination(self) -> object:
        """Fields that identify the destination of a resolved sink, comparable with ``==``.

        A run has one sink per destination. If a sink of the same name and destination has other fields, they replace
        those of the sink that the run has. Defaults to all fields, so each configuration is another destination.
        """
        return dataclasses.astuple(self)

    def resolve(self) -> Sink:
        """Resolve settings that depend on the environment.

        The training process calls the method once, when the run starts. The default implementation returns the sink
        unchanged.

        Returns:
            A sink with all such settings fixed. Its fields are stored in ``run.json``.
        """
        return self

    def locate(self, directory: Path, state: Mapping[str, Any]) -> Location | None:
        """Return where a user finds a run, for a message of the training and for ``pte-tracking show``.

        Any process may call the method, so it must not import the client library or use the network.

        Args:
            directory: Absolute path of the run directory.
            state: Last saved state of a connection. Empty before the first delivery.

        Returns:
            The place. None if it is not known yet. The default implementation always returns None.
        """
        return None

    def fetch(self, uri: str, directory: Path) -> Path:
        """Download a tracked checkpoint.

        The journal up to the checkpoint is stored next to it as ``journal.jsonl``. Override the method in a sink that
        stores checkpoints, and list the URI schemes in ``schemes``.

        Args:
            uri: URI of the checkpoint or of its run.
            directory: Empty directory for the downloaded files.

        Returns:
            Path of the snapshot in ``directory``.

        Raises:
            LookupError: If the backend has no complete checkpoint at this URI.
        """
        raise LookupError(f"{type(self).__name__} does not store checkpoints.")

    @classmethod
    def read_run(cls, source: str, directory: Path) -> Iterable[AnyEvent]:
        """Read a run that any program wrote in the format of this backend, for ``pte-tracking import``.

        Override the method in a sink that can read runs, and list their sources in ``sources``. Keyword-only arguments
        with a default are options of the command, and receive strings. The event numbers ``seq`` are not used.

        - :class:`Metrics` contain the values of a row, or one value. Consecutive ones with the same step become one
          row. Times are those of the source.
        - A first :class:`RunStarted` contains the name and the start time of the run. A last :class:`RunEnded`
          contains its status. Without them, the run has the name of its new directory, starts with its first event,
          and is FINISHED.
        - Files are written to ``directory``, under names that are not paths of the source. The ``path`` of an event is
          relative to it.

        If only the beginning of a source can be read, yield its events, and log a warning for the logger
        ``pte_tracking``.

        Args:
            source: Path of a file or directory, or URI.
            directory: Empty directory for the files of images, figures, and artifacts.

        Returns:
            The events, in the order of the source.

        Raises:
            LookupError: If the source does not exist or contains no run.
            ValueError: If the source has another format, or an option is wrong.
            OSError: If the source cannot be read or the server cannot be reached.
        """
        raise LookupError(f"{cls.__name__} cannot read runs.")

    def fetch_snapshot(
        self, run_id: str | None, directory: Path, rank: Callable[[Sequence[Checkpoint]], Sequence[Checkpoint]]
    ) -> Path | None:
        """Download a snapshot for ``resume()``, which calls the method if the run directory has no usable one.

        The journal of the run is stored next to it as ``journal.jsonl``, and its files in ``figures``, ``images``, and
        ``artifacts``, if the backend has them. The default implementation returns None.

        Args:
            run_id: ID of the run. None for the newest run of the sink.
            directory: Empty directory for the downloaded files.
            rank: Returns the snapshots in the order in which they are tried. It receives them by ascending step.

        Returns:
            Path of the snapshot in ``directory``. None if the sink does not store snapshots, or has no intact one.

        Raises:
            Exception: If the backend is not available. The training does not start.
        """
        return None

    @abstractmethod
    def open(self, run: RunView, state: Mapping[str, Any]) -> Connection:
        """Open a connection to the backend.

        Import the client library here, because only the process that delivers the run calls this method.

        Args:
            run: Run to deliver.
            state: Last state that a connection of this run returned from :meth:`Connection.state`. Empty at first.

        Returns:
            The open connection.

        Raises:
            SinkClosedError: If the backend does not accept events of the run.
            Exception: If the backend is temporarily unavailable. The call is repeated after a pause.
        """
