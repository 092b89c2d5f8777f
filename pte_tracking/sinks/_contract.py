"""What a tracking backend implements, and how backends are found.

A backend is two small things: a *sink*, a frozen configuration that can be written to ``run.json`` and built again
in the delivery process, and the *connection* that it opens there. Everything hard (queueing, retrying, saved positions,
key grammar, batch sizes, rewinds for backends that only append) is done by the core, the same for all backends.
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

#: A limit that nothing reaches.
UNLIMITED = sys.maxsize


class RejectedEventError(Exception):
    """One event can never be stored by this backend: it is set aside and told, and the rest of the batch goes on.

    Args:
        seq: The event's ``seq``.
        reason: Why, for people.
    """

    def __init__(self, seq: int, reason: str) -> None:
        super().__init__(seq, reason)
        self.seq = seq
        self.reason = reason


class SinkClosedError(Exception):
    """The backend will never take this run again (it was deleted there, say): said once, then given up."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a backend can hold, as data. The core maps keys and cuts batches by it, so that no backend has to.

    Attributes:
        key_characters: A regular expression for one allowed character of a key; None allows any.
        key_length: Longest key in characters.
        key_is_path: Keys must be their own normalised POSIX paths (no empty, ``.`` or ``..`` parts).
        batch_values: Most metric values in one write.
        batch_events: Most events in one write.
        separate_logs: Rows of different logs are kept apart, so that one key and step may come from each.
    """

    key_characters: re.Pattern[str] | None = None
    key_length: int | None = None
    key_is_path: bool = False
    batch_values: int = 1000
    batch_events: int = 1000
    separate_logs: bool = False


class RunView(Protocol):
    """What a sink may know of the run that it is opened for."""

    @property
    def id(self) -> str:
        """The run's identity, the same after every resume (32 hexadecimal digits)."""

    @property
    def name(self) -> str:
        """The run's name, for people."""

    @property
    def directory(self) -> Path:
        """The run's directory, absolute; paths in events are relative to it."""

    @property
    def start_time(self) -> float:
        """When the run first started, in seconds since the epoch."""

    @property
    def context(self) -> Mapping[str, str]:
        """Where the run comes from: ``user``, ``host``, ``command``, ``source``, ``git_commit`` as far as known."""

    def history(self, upto_seq: int | None = None) -> Iterator[AnyEvent]:
        """What this sink is given of the effective history: all events up to ``upto_seq``, less those that were
        taken back before it, with the keys that this sink gets.
        """

    def superseded(self, rewound: Rewound) -> Iterator[AnyEvent]:
        """What this sink was given and ``rewound`` takes back, with the keys that this sink gets."""


class Connection(Protocol):
    """An open sink."""

    def write(self, events: Sequence[AnyEvent]) -> None:
        """Store a batch of events, in order; what this backend cannot show is skipped.

        They are durable on return. The same batch may come twice (a crash came between the write and the
        saved position), and must then leave what one would have left. A :class:`Rewound` always comes alone, and
        only to sinks whose ``rewinds`` is true.

        Raises:
            RejectedEventError: One event can never be stored. The others of the batch come again at once.
            SinkClosedError: Nothing will ever be stored again.
            Exception: Anything else means 'again later'. A failure is treated as a crash is: this connection is
                closed, and after a pause another one is opened with the state that was saved last.
        """

    def state(self) -> dict[str, Any]:
        """What is needed to go on after a restart: small, plain JSON, saved after each batch and close."""

    def close(self, status: Status | None) -> None:
        """Everything was written, and the run ended so; or this connection stops before that (None)."""


@dataclasses.dataclass(frozen=True)
class Sink(ABC):
    """A backend's configuration: a frozen dataclass with plain JSON fields and no secrets.

    Attributes:
        name: The word a user types, which is also the name of the entry point.
        inline: Written in the training process; only for sinks that cost microseconds.
        requires: The module of the backend's product; None if it needs nothing beyond this package.
        install: What a user types to get it.
        files: Globs of what the sink leaves at the top of the run's directory.
        schemes: URI schemes that :meth:`fetch` understands.
        limits: What the backend can hold.
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
        """Whether it is a server that many runs write to: while a run goes on it asks seldom, with more at once."""
        return False

    @property
    def rewinds(self) -> bool:
        """Whether the backend can take points back. If not, the core sends it no point of a key and step twice."""
        return True

    def resolve(self) -> Sink:
        """Fix what depends on the environment; called once in the training process, when the run starts."""
        return self

    def fetch(self, uri: str, directory: Path) -> Path:
        """Bring a tracked checkpoint from the backend, with the journal up to it as ``journal.jsonl``.

        Args:
            uri: Its name there; the scheme is one of ``schemes``.
            directory: An empty folder to put the files in.

        Returns:
            The snapshot's file in ``directory``.

        Raises:
            LookupError: There is no whole checkpoint of that name.
        """
        raise LookupError(f"{type(self).__name__} stores no checkpoints")

    @abstractmethod
    def open(self, run: RunView, state: Mapping[str, Any]) -> Connection:
        """Connect.

        Args:
            run: The run to be shown.
            state: What the last connection of this run returned from ``state()``; empty at first.

        Raises:
            SinkClosedError: It will never be possible.
            Exception: Anything else means 'again later'.
        """
