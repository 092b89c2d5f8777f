"""Run whose events have given times, and whose files are passed as their content."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pte_tracking._runs import attachments
from pte_tracking._runs.media import Bins
from pte_tracking._runs.null_writer import NullWriter
from pte_tracking._runs.run import Run
from pte_tracking._runs.run_media import MediaContent
from pte_tracking._store import events
from pte_tracking._store.files import safe_file_name
from pte_tracking._store.journal_reader import read_effective
from pte_tracking._store.layout import ARTIFACTS, JOURNAL
from pte_tracking._store.secrets import mask_secrets
from pte_tracking._store.values import check_key, check_step, to_numbers, to_progress, to_text


class SummaryRun(Run):
    """Run to which a :class:`~pte_tracking.integrations.tensorboard.SummaryWriter` writes.

    The argument ``at`` of the methods is the time of the event in seconds since the Unix epoch, or None for the current
    time.
    """

    _next_steps: dict[str, int] | None = None

    def next_step(self, *keys: str) -> int:
        """Return the step of values without one: the number of earlier ones of a key, also of earlier sessions."""
        with self._lock:
            if self._next_steps is None:
                self._next_steps = self._read_next_steps()
            step = max(self._next_steps.get(key, 0) for key in keys)
            self._next_steps.update(dict.fromkeys(keys, step + 1))
        return step

    def add_scalars(self, values: Mapping[str, Any], step: int, at: float | None) -> None:
        """Log the data points of one step as a row. Texts of numbers are numbers, as for torch's class."""
        numbers = to_numbers({key: _parse(value) if isinstance(value, str) else value for key, value in values.items()})
        self.log_row(numbers, check_step(step), None, None, "log", None, None, True, _to_time(at))

    def add_bins(self, key: str, step: int, bins: Bins, at: float | None) -> None:
        """Log a histogram."""
        self._append(events.Histogram, check_key(key, "tag"), check_step(step), *bins, at=_to_time(at))

    def add_text(self, key: str, step: int, text: str, at: float | None) -> None:
        """Log a text."""
        fields = check_key(key, "tag"), check_step(step), mask_secrets(to_text(text))
        self._append(events.Text, *fields, at=_to_time(at))

    def add_figure(self, key: str, step: int, render: Callable[[str], bytes], at: float | None) -> None:
        """Log a figure, whose function returns a PNG file for the name of the figure in messages."""
        self._add_picture(events.Figure, key, step, render, at=_to_time(at))

    def add_image(self, key: str, step: int, render: Callable[[str], bytes], at: float | None) -> None:
        """Log an image, whose function returns a PNG file for the name of the image in messages."""
        self._add_picture(events.Image, key, step, render, at=_to_time(at))

    def add_media(
        self, kind: type[events.MediaFile], key: str, step: int, render: Callable[[str], MediaContent], at: float | None
    ) -> None:
        """Log a sound or a video, whose function returns the file for the name of the event in messages."""
        self._add_file(kind, key, step, render, "", _to_time(at))

    def add_file(self, folder: str, key: str, name: str, render: Callable[[], bytes], at: float | None = None) -> None:
        """Log an artifact.

        Args:
            folder: Directory of the artifacts of one kind.
            key: Tag of the artifact.
            name: Path of the file below the directory of the tag.
            render: Returns the content of the file.
            at: Time of the event.
        """
        path = artifact_path(folder, key, name)

        def store(content: bytes) -> tuple[str, str] | None:
            kept = attachments.save_content(self.directory, path, content)
            return None if kept is None else (kept, path.relative_to(ARTIFACTS).parent.as_posix())

        self._opened().add_deferred(events.Artifact, render, store, _to_time(at))

    def append_file(self, name: str, text: str) -> None:
        """Append a text to a file in the run directory, unless the file contains it."""
        writer = self._opened()
        if isinstance(writer, NullWriter):
            return
        writer.add_files(name)
        path = self.directory / name
        content = path.read_text() if path.exists() else ""
        if text not in content:
            attachments.save_content(self.directory, Path(name), f"{content}{text}".encode())

    def _read_next_steps(self) -> dict[str, int]:
        self._opened()  # Another run in the directory is archived first.
        journal = self.directory / JOURNAL
        steps: dict[str, int] = {}
        if not journal.exists():  # on a rank that writes nothing
            return steps
        for event, _ in read_effective(journal):
            if isinstance(event, events.Metrics):
                steps.update(dict.fromkeys(event.values, event.step + 1))
            elif isinstance(event, events.MediaFile | events.Histogram | events.Text):
                steps[event.key] = event.step + 1
        return steps


def _parse(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _to_time(walltime: object) -> float | None:
    """Return a time as a Python number. None for the current time.

    Raises:
        TypeError: If the time is neither a number nor None.
    """
    return to_progress("walltime", walltime)


def artifact_path(folder: str, key: str, name: str) -> Path:
    """Return the path of an artifact relative to the run directory; see :meth:`SummaryRun.add_file`."""
    return Path(ARTIFACTS, folder, safe_file_name(check_key(key, "tag")), name)
