"""Sink that copies the snapshots and the journal of a run elsewhere."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pte_backends.mirror._url import PROTOCOLS, absolute_url, check_url
from pte_tracking.sinks import UNLIMITED, Checkpoint, Display, EventKind, Limits, Location, RunView, Sink

if TYPE_CHECKING:
    from pte_backends.mirror._connection import MirrorConnection

_RUN_URL = re.compile(r"(.+)/([0-9a-f]{32})/?")


@dataclasses.dataclass(frozen=True)
class MirrorSink(Sink):
    """Sink that copies the snapshots and the journal of a run to an object store, another machine, or a second disk.

    ``extensions.snapshot(mirror=url)`` adds it to a run. ``resume()`` on a machine without the run directory continues
    the newest run at the mirror. Credentials and the address of an S3 server are read from the environment.

    Args:
        url: Directory of the mirror, for one training: ``"s3://bucket/prefix"``, ``"gs://..."``, ``"az://..."``,
            ``"sftp://host/path"``, or the path of a local directory.

    Raises:
        TypeError: If ``url`` is not a string.
        ValueError: If the protocol is not supported, its package is not installed, or the URL contains credentials.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import pte_tracking as pte
        >>> from pte_backends.mirror import MirrorSink
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     sink = MirrorSink(f"{folder}/mirror")
        ...     with pte.Run(f"{folder}/result", sinks=[sink], close_timeout=60) as run:
        ...         run.log_metrics({"loss": 0.5}, 1)
        ...     print(Path(folder, "mirror", run.id, "journal").is_dir())
        True
    """

    name: ClassVar[str] = "mirror"
    schemes: ClassVar[tuple[str, ...]] = PROTOCOLS
    limits: ClassVar[Limits] = Limits(separate_logs=True, batch_values=UNLIMITED)
    shows: ClassVar[Mapping[EventKind, Display] | None] = {
        "metrics": "artifact",
        "params": "artifact",
        "tags": "artifact",
        "figure": "artifact",
        "image": "artifact",
        "histogram": "artifact",
        "text": "artifact",
        "table": "artifact",
        "html": "artifact",
        "audio": "artifact",
        "video": "artifact",
        "dataset": "artifact",
        "artifact": "artifact",
        "checkpoint": "native",
        "model": "artifact",
        "status": "artifact",
    }
    #: Rows and samples are copied at this interval. Snapshots, rewinds, and the end of the run do not wait.
    poll_seconds: ClassVar[float | None] = 30.0
    url: str = ""

    def __post_init__(self) -> None:
        check_url(self.url)

    def resolve(self) -> MirrorSink:
        """Make a local path absolute.

        Returns:
            The sink to store in ``run.json``.

        Raises:
            ValueError: If there is no URL.
        """
        if not self.url:
            raise ValueError("MirrorSink: expected a URL such as MirrorSink('s3://bucket/prefix'), got none.")
        return dataclasses.replace(self, url=absolute_url(self.url))

    def locate(self, directory: Path, state: Mapping[str, Any]) -> Location | None:
        """Return the directory of the mirror.

        Args:
            directory: Absolute path of the run directory.
            state: Last state of a connection. Empty before the first delivery.

        Returns:
            The place. None before the first delivery.
        """
        return Location(url=self.url) if state else None

    def fetch(self, uri: str, directory: Path) -> Path:
        """Download the newest intact snapshot of a run and its journal.

        Args:
            uri: URL of a mirror, for its newest run, or of a run in it, ``<url>/<run ID>``.
            directory: Empty directory for the files.

        Returns:
            Path of the snapshot in ``directory``.

        Raises:
            LookupError: If there is no intact snapshot.
            ConnectionError: If the mirror cannot be reached.
            ValueError: If the URL contains credentials, or a package is not installed.
        """
        match = _RUN_URL.fullmatch(uri)
        sink, run_id = dataclasses.replace(self, url=match[1] if match else uri), match and match[2]
        path = sink._fetch(run_id, directory, lambda checkpoints: checkpoints[::-1], with_media=False)
        if path is None:
            raise LookupError(f"{uri} contains no intact snapshot.")
        return path

    def fetch_snapshot(
        self, run_id: str | None, directory: Path, rank: Callable[[Sequence[Checkpoint]], Sequence[Checkpoint]]
    ) -> Path | None:
        """Download the first intact snapshot of a run, its journal, and its media and artifacts.

        Args:
            run_id: ID of the run. None for the newest run at the mirror.
            directory: Empty directory for the files.
            rank: Returns the snapshots in the order in which they are tried. It receives them by ascending step.

        Returns:
            Path of the snapshot in ``directory``. None if the mirror contains no intact snapshot of the run.

        Raises:
            ConnectionError: If the mirror cannot be reached.
            LookupError: If ``rank`` raises it.
        """
        return self._fetch(run_id, directory, rank, with_media=True)

    def _fetch(
        self,
        run_id: str | None,
        directory: Path,
        rank: Callable[[Sequence[Checkpoint]], Sequence[Checkpoint]],
        *,
        with_media: bool,
    ) -> Path | None:
        # Only the process that fetches or delivers imports a client library.
        from pte_backends.mirror._fetch import fetch
        from pte_backends.mirror._store import Store

        url = absolute_url(self.url)
        try:
            return fetch(Store(url), run_id, directory, rank, with_media=with_media)
        except OSError as error:
            raise ConnectionError(
                f"The mirror {url} cannot be read. {str(error).rstrip('.')}. It may contain a snapshot, so a start "
                "from step 0 would be another run. Check the network, the URL, and the credentials, and "
                "start again. To train from the beginning, choose another URL."
            ) from error

    def open(self, run: RunView, state: Mapping[str, Any]) -> MirrorConnection:
        """Compare the journal at the mirror with that of the run.

        Args:
            run: Run to deliver.
            state: Last state of an earlier connection.

        Returns:
            The open connection.

        Raises:
            SinkClosedError: If the run continued in another directory, or the mirror has lost the run.
            OSError: If the mirror cannot be reached.
        """
        from pte_backends.mirror._connection import MirrorConnection
        from pte_backends.mirror._store import Store

        return MirrorConnection(Store(absolute_url(self.url)), run, is_started=bool(state))
