"""Offline session of ClearML: the folder of one task, written by the client library.

``Task.init`` is not used. It makes its task the only one of the process, installs signal handlers, examines the source
repository, and looks for updates on the network. ``Task.get_task`` opens the task of an existing session folder. Any
number of such tasks can be open in one process.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import zipfile
from pathlib import Path
from typing import Any

from clearml import Logger, Task

from pte_tracking.sinks import RunView, SinkClosedError, make_owned_directory, open_owned

#: Folder of the sessions in a run directory, which is a cache folder of ClearML.
_CACHE = "clearml"
#: The environment variable with the cache folder is the only public way to select the parent of the session folder.
_CACHE_VARIABLE = "CLEARML_CACHE_DIR"
_environment_lock = threading.Lock()


def session_folder(run_id: str) -> str:
    """Return the path of a session relative to the run directory.

    Args:
        run_id: ID of the run.

    Returns:
        The path.
    """
    return f"{_CACHE}/offline/offline-{run_id}"


class OfflineSession:
    """Task of an offline session.

    Args:
        run: Run to deliver.

    Attributes:
        task: The task of ClearML.
        logger: Logger of the task.

    Raises:
        SinkClosedError: If ClearML cannot be switched to offline mode.
    """

    def __init__(self, run: RunView) -> None:
        self._id = f"offline-{run.id}"
        self._folder = run.directory / session_folder(run.id)
        self._archive = self._folder.with_name(f"{self._id}.zip")
        self._metrics, self._task_file = self._folder / "metrics.jsonl", self._folder / "task.json"
        # The archive of an ended run would lack later events.
        self._archive.unlink(missing_ok=True)
        make_owned_directory(self._folder / "data", run.directory)
        os.close(open_owned(self._metrics, run.directory))
        with _environment_lock:
            previous = os.environ.get(_CACHE_VARIABLE)
            os.environ[_CACHE_VARIABLE] = str(run.directory / _CACHE)
            try:
                Task.set_offline(True)
                if not Task.is_offline():
                    raise SinkClosedError("ClearML ignores the offline mode in a task that clearml-agent started.")
                self.task = Task.get_task(task_id=self._id)
                self.task.get_offline_mode_folder()  # remembered by the task
            finally:
                if previous is None:
                    del os.environ[_CACHE_VARIABLE]
                else:
                    os.environ[_CACHE_VARIABLE] = previous
        self.task.reload()  # The name of the project is set only then.
        self.logger: Logger = self.task.get_logger()
        self._size, self._reported = self._metrics.stat().st_size, 0

    @staticmethod
    def create(run: RunView, project: str, name: str) -> OfflineSession:
        """Create an empty session, which replaces an existing one.

        Args:
            run: Run to deliver.
            project: Name of the project.
            name: Name of the task.

        Returns:
            The session.
        """
        folder = run.directory / session_folder(run.id)
        shutil.rmtree(folder, ignore_errors=True)
        make_owned_directory(folder, run.directory)
        task = {
            "id": folder.name,
            "name": name,
            "project_name": project,
            "type": "training",
            "execution": {},
            "script": {},
        }
        (folder / "task.json").write_text(json.dumps(task))
        return OfflineSession(run)

    @staticmethod
    def sizes(run: RunView) -> tuple[int, int]:
        """Return the sizes of the files of a session.

        Args:
            run: Run to deliver.

        Returns:
            Size of ``metrics.jsonl`` and of ``task.json``, in bytes. Zero for a missing file.
        """
        folder = run.directory / session_folder(run.id)
        paths = (folder / "metrics.jsonl", folder / "task.json")
        metrics, task = (path.stat().st_size if path.is_file() else 0 for path in paths)
        return metrics, task

    def upload_artifact(self, name: str, content: Path | dict[str, Any]) -> None:
        """Store an artifact.

        Args:
            name: Name of the artifact. An artifact with this name is replaced.
            content: A file, or a value that is stored as JSON.

        Raises:
            OSError: If the artifact was not stored.
        """
        if not self.task.upload_artifact(name, content, wait_on_upload=True):
            raise OSError(f"ClearML did not store the artifact {name}.")

    def count_report(self) -> None:
        """Count a call of a report method of the logger."""
        self._reported += 1

    def flush(self) -> None:
        """Wait until all reports are in the file.

        Raises:
            OSError: If reports are missing.
        """
        if not self._reported:
            return
        marker = f'"task": "{self._id}"'.encode()  # A quotation mark in a value is escaped.
        # The background thread of the client library may end the first wait with the reports of its previous turn.
        for _ in range(3):
            self.task.flush(wait_for_uploads=True)
            with self._metrics.open("rb") as file:
                file.seek(self._size)
                added = file.read()
            if added.count(marker) == self._reported:
                self._size, self._reported = self._size + len(added), 0
                return
        stored = added.count(marker)
        raise OSError(f"{self._metrics}: {stored} of {self._reported} reports were stored. The disk may be full.")

    def discard(self) -> None:
        """Remove the reports since the last call of :meth:`flush`.

        Raises:
            OSError: If the client library did not store them, so it may still do so.
        """
        size = self._size
        self.flush()
        os.truncate(self._metrics, size)
        self._size = size

    def close(self, *, has_ended: bool) -> None:
        """Close the task.

        Args:
            has_ended: Whether the run ended. The session is then also stored as an archive.

        Raises:
            OSError: If the archive is incomplete, which the client library ignores.
        """
        self.task.close()
        is_complete = has_ended and self._is_archived()
        if not is_complete:
            self._archive.unlink(missing_ok=True)
        if has_ended and not is_complete:
            raise OSError(f"{self._archive}: the archive was not stored completely. The disk may be full.")

    def _is_archived(self) -> bool:
        paths = (path for path in self._folder.rglob("*") if path.is_file())
        sizes = {path.relative_to(self._folder).as_posix(): path.stat().st_size for path in paths}
        try:
            with zipfile.ZipFile(self._archive) as archive:
                return {member.filename: member.file_size for member in archive.infolist()} == sizes
        except (FileNotFoundError, zipfile.BadZipFile):
            return False
