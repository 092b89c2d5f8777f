"""Contract between pte_tracking and a tracking backend.

A backend consists of a *sink* and a *connection*. The sink is a frozen configuration that is stored in ``run.json``
and rebuilt in the delivery process, where it opens the connection. The core implements the rest in the same way for
all backends: queueing, retries, cursors, key mapping, batch sizes, and rewinds for backends that cannot delete data.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from pte_tracking._store.events import AnyEvent, Rewound, Status

#: Limit that is never reached.
UNLIMITED = sys.maxsize


class RejectedEventError(Exception):
    """Raised by :meth:`Connection.write` when a backend can never store an event.

    The event is skipped and logged. The other events of the batch are delivered.

    Args:
        seq: Sequence number of the event.
        reason: Explanation for the log.

    Attributes:
        seq: Sequence number of the event.
        reason: Explanation for the log.

    Example:
        >>> from pte_tracking.sinks import RejectedEventError
        >>> raise RejectedEventError(7, "The image is damaged.")
        Traceback (most recent call last):
        pte_tracking.sinks._contract.RejectedEventError: (7, 'The image is damaged.')
    """

    def __init__(self, seq: int, reason: str) -> None:
        super().__init__(seq, reason)
        self.seq = seq
        self.reason = reason


class PostponedEventsError(Exception):
    """Raised by :meth:`Connection.write` when files of some events cannot be stored now, and all other events were.

    The postponed events count as pending. Each of them is delivered again later, in a batch of its own, while other
    events are delivered. Until then, later events that have a file or a text wait, too.

    Args:
        reasons: Explanations for the log by sequence number. The events are neither metrics nor tags.

    Attributes:
        reasons: Explanations for the log by sequence number.

    Example:
        >>> from pte_tracking.sinks import PostponedEventsError
        >>> raise PostponedEventsError({7: "The artifact store is not reachable."})
        Traceback (most recent call last):
        pte_tracking.sinks._contract.PostponedEventsError: {7: 'The artifact store is not reachable.'}
    """

    def __init__(self, reasons: Mapping[int, str]) -> None:
        super().__init__(reasons)
        self.reasons = dict(reasons)


class SinkClosedError(Exception):
    """Raised when a backend does not accept events of the run any more.

    A typical cause is a run that was deleted in the backend. The message is logged once, and the delivery stops until
    the next start of the run or ``pte-tracking sync``. Until then, the events count as pending.

    Args:
        reason: Explanation for the log, with a remedy.
        is_lost: Whether the backend has nothing of the run any more, for example because its database was replaced.
            ``pte-tracking sync`` then delivers all events again. Defaults to False.

    Attributes:
        is_lost: Whether the backend has nothing of the run any more.

    Example:
        >>> from pte_tracking.sinks import SinkClosedError
        >>> raise SinkClosedError("The run was deleted.")
        Traceback (most recent call last):
        pte_tracking.sinks._contract.SinkClosedError: The run was deleted.
    """

    def __init__(self, reason: str = "", *, is_lost: bool = False) -> None:
        super().__init__(reason)
        self.is_lost = is_lost


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
class Limits:
    r"""Limits of a backend.

    The core maps keys and splits batches accordingly before a sink receives events.

    Attributes:
        key_characters: Regular expression that matches one allowed character of a key. Defaults to None: all characters
            are allowed.
        key_length: Maximum number of characters in a key. Defaults to None: unlimited.
        key_is_path: Whether keys must be normalized POSIX paths: relative, without empty, ``.`` or ``..`` parts.
            Defaults to False.
        key_is_file: Whether no key can be a directory of another one, because each is the name of a file. Defaults to
            False.
        batch_values: Maximum number of metric values in one batch. A row with more values is split. Defaults to 1000.
            Use :data:`UNLIMITED` for no limit.
        batch_events: Maximum number of events in one batch. Defaults to 1000.
        separate_logs: Whether the backend stores the rows of each log separately, and not data points. If False (the
            default), a key that several logs report at the same step is delivered once, and a value that is measured
            within the interval of a row is delivered at its own step. If True, rows contain its mean instead.
        shared_names: Kinds of events that the backend stores under one set of names: ``"metric"``, ``"figure"``,
            ``"image"``, ``"histogram"``, ``"text"`` or ``"dataset"``. The kind that is delivered first keeps a name. An
            event of another kind is renamed: a figure ``loss`` becomes ``loss/figure``. The name of a dataset is
            ``dataset/<context>/<name>``. Defaults to (): a name may have several kinds.
        reserved_names: Names that the backend itself uses. Events of the kinds in ``shared_names`` are renamed in the
            same way. Defaults to an empty set.

    Example:
        >>> import re
        >>> from pte_tracking.sinks import Limits
        >>> limits = Limits(key_characters=re.compile(r"[\w./-]"), key_length=250)
        >>> limits.batch_values
        1000
    """

    key_characters: re.Pattern[str] | None = None
    key_length: int | None = None
    key_is_path: bool = False
    key_is_file: bool = False
    batch_values: int = 1000
    batch_events: int = 1000
    separate_logs: bool = False
    shared_names: tuple[str, ...] = ()
    reserved_names: frozenset[str] = frozenset()


class RunView(Protocol):
    """Read access to the run that a sink delivers.

    Example:
        A test that opens a connection without a run can pass any object with these attributes:

        >>> import types
        >>> from pathlib import Path
        >>> view = types.SimpleNamespace(
        ...     id="0" * 32, name="result", directory=Path("/tmp/result"), start_time=0.0, context={}
        ... )
        >>> view.name
        'result'
    """

    @property
    def id(self) -> str:
        """Run ID: 32 hexadecimal digits. It stays the same after every resume."""

    @property
    def name(self) -> str:
        """Display name of the run."""

    @property
    def directory(self) -> Path:
        """Absolute path of the run directory. Paths in events are relative to it."""

    @property
    def start_time(self) -> float:
        """Time of the first start, in seconds since the epoch."""

    @property
    def context(self) -> Mapping[str, str]:
        """Origin of the run.

        Keys are ``user``, ``host``, ``command``, ``source`` and ``git_commit``. Unknown values are missing.
        """

    def history(self, upto_seq: int | None = None) -> Iterator[AnyEvent]:
        """Iterate over the effective history as this sink receives it.

        Superseded events and rows for other sinks are left out, and keys are mapped to the limits of the sink. Use it
        to rebuild a file or to copy the history to a new run of the backend.

        Args:
            upto_seq: Sequence number of the last event. Defaults to None: the whole journal.

        Returns:
            An iterator over the events, in order.
        """

    def superseded(self, rewound: Rewound) -> Iterator[AnyEvent]:
        """Iterate over the events that this sink has received and that a rewind supersedes.

        Args:
            rewound: The rewind.

        Returns:
            An iterator over the events, in order, with keys mapped to the limits of the sink.
        """


class Connection(Protocol):
    """Open connection to a backend, returned by :meth:`Sink.open`.

    Any class with these methods is a connection. See :class:`Sink` for an example.
    """

    def write(self, events: Sequence[AnyEvent]) -> None:
        """Store a batch of events, in order.

        The events must be durable when the method returns. Skip events that the backend cannot show. A batch may be
        delivered twice, if a crash occurs after the write and before the cursor is saved. The second delivery must not
        change the result. A :class:`Rewound` event is always the only event of its batch. It is delivered only if
        :attr:`Sink.rewinds` is True.

        Args:
            events: Events within the limits of the sink. The batch is never empty.

        Raises:
            RejectedEventError: If one event can never be stored. The remaining events are delivered again immediately.
            PostponedEventsError: If the files of some events cannot be stored now. All other events are stored.
            SinkClosedError: If the backend does not accept events of the run any more.
            Exception: If the backend is temporarily unavailable. The connection is closed, and a new one is opened
                after a pause, with the last saved state.
        """

    def state(self) -> dict[str, Any]:
        """Return the state that a later connection needs to continue.

        The state is saved together with the cursor, atomically, after each batch and after :meth:`close`.

        Returns:
            A small dictionary of plain JSON values. Empty if the backend itself drops repeated events.
        """

    def close(self, status: Status | None) -> None:
        """Close the connection.

        Args:
            status: Final status of the run, if all events were written. None if the connection closes before the run
                ends, or after a failure.

        Raises:
            SinkClosedError: If the backend does not accept events of the run any more.
            Exception: If the backend is temporarily unavailable. The call is repeated later on a new connection.
        """


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
        files: Glob patterns of the files that the sink writes to the top of the run directory. Defaults to ``()``.
        schemes: URI schemes that :meth:`fetch` supports. Defaults to ``()``.
        limits: Limits of the backend. Defaults to ``Limits()``.

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
    limits: ClassVar[Limits] = Limits()

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
        those of the sink that the run has. Defaults to all fields, so that each configuration is another destination.
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
