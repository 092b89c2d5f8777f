"""Upload of files to the artifacts of an MLflow run."""

from __future__ import annotations

import logging
import os
import posixpath
import shlex
import shutil
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any

from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from pte_backends.mlflow import _runs, _tracking_uri
from pte_backends.mlflow._client import upload_timeout
from pte_backends.mlflow._errors import RefusedUploadError, is_raised_by_client, translate_upload_errors
from pte_tracking.sinks import (
    Artifact,
    Figure,
    Image,
    MediaFile,
    RejectedEventError,
    RunView,
    Table,
    Text,
    list_owned_files,
    owned_path,
)

_logger = logging.getLogger("pte_tracking")
#: Scheme of artifacts that only an MLflow server reads and writes.
_PROXIED = "mlflow-artifacts:"


def need_server(location: str, tracking_uri: str) -> bool:
    """Return whether artifacts can be stored only through an MLflow server, and the tracking URI names none.

    A server creates its experiments with such a location. A client that opens the database of the server directly can
    store data points, but never a file.

    Args:
        location: Location of the artifacts of a run or an experiment.
        tracking_uri: Tracking URI.
    """
    return location.startswith(_PROXIED) and not tracking_uri.startswith(("http:", "https:"))


class ArtifactUploader:
    """Uploader of files to the artifacts of an MLflow run.

    An upload overwrites an existing artifact of the same name, so a repeated upload changes nothing.

    Args:
        run: Run to deliver.
        mlflow_run: MLflow run that the artifacts belong to.
        tracking_uri: Tracking URI of the server, which may proxy the artifacts.
    """

    def __init__(self, run: RunView, mlflow_run: Run, tracking_uri: str) -> None:
        self._run = run
        self._mlflow_run = mlflow_run
        self._location = mlflow_run.info.artifact_uri
        self._tracking_uri = tracking_uri

    def check_location(self) -> None:
        """Check that MLflow's client can write to the location of the artifacts, without a request.

        Raises:
            RefusedUploadError: If no file can ever be stored there.
        """
        with translate_upload_errors(self._location):
            self._repository  # noqa: B018

    def upload_image(self, event: Figure | Image) -> None:
        """Store an image in the layout of MLflow's ``log_image(key=, step=)``.

        MLflow reads the key and the step from the file name and offers a slider over the steps. It expects a second
        file for the thumbnail. The time in the file name is always the start time of the run, so that an image that is
        drawn again replaces the first one.

        Args:
            event: Figure or image to store.

        Raises:
            RejectedEventError: If the file does not exist.
        """
        timestamp = int(self._run.start_time * 1000)
        name = f"images/{event.key.replace('/', '~')}+step+{event.step}+timestamp+{timestamp}+{self._run.id}"
        path = self._local_path(event)
        self.upload_file(path, f"{name}.png")
        self.upload_file(path, f"{name}+compressed.png")

    def upload_newest_figure(self, event: Figure) -> None:
        """Store a figure as ``figures/<key>.png``, which is visible without the slider over the steps.

        Args:
            event: Figure to store.

        Raises:
            RejectedEventError: If the file does not exist.
        """
        self.upload_file(self._local_path(event), f"figures/{event.key}.png")

    def upload_table(self, event: Table, name: str) -> None:
        """Store a table, which has the format of MLflow's ``log_table``.

        Args:
            event: Table to store.
            name: Path of the artifact.

        Raises:
            RejectedEventError: If the file does not exist.
        """
        self.upload_file(self._local_path(event), name)

    def upload_text(self, event: Text) -> None:
        """Store a text as ``text/<key>/step_<step>.md``.

        Args:
            event: Text to store.
        """
        self.write_text(f"text/{event.key}/step_{event.step}.md", event.text)

    def upload_artifact(self, event: Artifact) -> None:
        """Store a file or directory.

        Args:
            event: Artifact to store.

        Raises:
            RejectedEventError: If the file does not exist.
        """
        path = self._local_path(event)
        with upload_timeout(_max_file_size(self._run.directory, path)), translate_upload_errors(self._location):
            if path.is_dir():
                self._upload_directory(path, posixpath.join(event.artifact_path, path.name))
            else:
                self._repository.log_artifact(str(path), event.artifact_path or None)

    def _upload_directory(self, path: Path, name: str) -> None:
        files, left_out = list_owned_files(self._run.directory, path)
        if not left_out:
            self._repository.log_artifacts(str(path), name)
            return
        _logger.warning("mlflow: %s lacks %d entries: links, pipes, or unreadable files.", path, left_out)
        with tempfile.TemporaryDirectory() as temporary:
            for file in files:
                link = Path(temporary, file.relative_to(path))
                link.parent.mkdir(parents=True, exist_ok=True)
                link_or_copy(file.resolve(), link)
            self._repository.log_artifacts(temporary, name)

    def write_text(self, name: str, text: str) -> None:
        """Store a text as an artifact.

        Args:
            name: Path of the artifact.
            text: Content of the artifact, stored as UTF-8.
        """
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary, "text")
            path.write_text(text, encoding="utf-8")
            self.upload_file(path, name)

    def upload_file(self, path: Path, name: str) -> None:
        """Store a file as an artifact with another name.

        Args:
            path: File to upload.
            name: Path of the artifact.
        """
        directory, _, file_name = name.rpartition("/")
        with tempfile.TemporaryDirectory() as temporary, upload_timeout(path.stat().st_size):
            link = Path(temporary, file_name)
            link_or_copy(path, link)
            with translate_upload_errors(self._location):
                self._repository.log_artifact(str(link), directory or None)

    @cached_property
    def _repository(self) -> Any:
        # An ArtifactRepository, which has no type annotations. The repository is opened with the first upload, so that
        # unreachable storage does not block metrics.
        if need_server(self._location, self._tracking_uri):
            raise RefusedUploadError(self._describe_missing_server())
        try:
            return get_artifact_repository(self._location, tracking_uri=self._tracking_uri)
        except MlflowException as error:
            if is_raised_by_client(error):  # The scheme is unknown, for example.
                raise RefusedUploadError(f"Files cannot be stored at {self._location}: {error}") from error
            raise

    def _describe_missing_server(self) -> str:
        # With this option, the sink finds the same MLflow run.
        named = self._mlflow_run.data.tags.get(_runs.TARGET)
        option = f"run_id={named}" if named else f"experiment_id={self._mlflow_run.info.experiment_id}"
        return (
            f"Only an MLflow server can store the files of this MLflow run ({self._location}), but the tracking URI is "
            f"{_tracking_uri.strip_credentials(self._tracking_uri)}. To deliver them, start the server and run: "
            f"pte-tracking sync {shlex.quote(str(self._run.directory))} --to mlflow --option "
            f"tracking_uri=http://HOST:PORT --option {option}. For later runs, set MLFLOW_EXPERIMENT_NAME to a new "
            "experiment, or MLFLOW_TRACKING_URI to the server."
        )

    def _local_path(self, event: MediaFile | Artifact) -> Path:
        path = owned_path(self._run.directory, event.path)
        if path is None:
            raise RejectedEventError(event.seq, f"File {event.path} does not exist in the run directory.")
        return path


def _max_file_size(directory: Path, path: Path) -> int:
    return max((file.stat().st_size for file in list_owned_files(directory, path)[0]), default=0)


def link_or_copy(source: Path, target: Path) -> None:
    """Create a link to a file, or a copy where links are not allowed.

    Args:
        source: The file.
        target: Path of the link.
    """
    try:
        os.symlink(source, target)
    except OSError:  # Windows lets few users create links
        shutil.copyfile(source, target)
