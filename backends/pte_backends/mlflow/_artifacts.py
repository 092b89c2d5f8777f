"""Files of the run at MLflow: pictures, texts, artifacts."""

from __future__ import annotations

import os
import posixpath
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any

from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from pte_backends.mlflow._client import upload_timeout
from pte_tracking.sinks import Artifact, Figure, Image, RejectedEventError, RunView, Text


class ArtifactUploader:
    """Puts files of a run's directory into its artifacts. What is there already is replaced by the same.

    Args:
        run: The run.
        location: Where the artifacts of the MLflow run are.
        tracking_uri: The server that may stand before them.
    """

    def __init__(self, run: RunView, location: str, tracking_uri: str) -> None:
        self._run = run
        self._location = location
        self._tracking_uri = tracking_uri

    def upload_image(self, event: Figure | Image) -> None:
        """Store a picture as ``log_image(key=, step=)`` does: MLflow's page has a slider over the steps of those.

        The page reads key and step from the name, and takes a second file for the small view. The time in the name
        is always the run's, so that a picture that is drawn again replaces the first.
        """
        timestamp = int(self._run.start_time * 1000)
        name = f"images/{event.key.replace('/', '~')}+step+{event.step}+timestamp+{timestamp}+{self._run.id}"
        path = self._local_path(event)
        self.upload_file(path, f"{name}.png")
        self.upload_file(path, f"{name}+compressed.png")
        if isinstance(event, Figure):
            # The newest one, to be seen without the slider.
            self.upload_file(path, f"figures/{event.key}.png")

    def upload_text(self, event: Text) -> None:
        """Store a text."""
        self.write_text(f"text/{event.key}/step_{event.step}.md", event.text)

    def upload_artifact(self, event: Artifact) -> None:
        """Store a file or folder."""
        path = self._local_path(event)
        with upload_timeout(_max_file_size(path)):
            if path.is_dir():
                self._repository.log_artifacts(str(path), posixpath.join(event.artifact_path, path.name))
            else:
                self._repository.log_artifact(str(path), event.artifact_path or None)

    def write_text(self, name: str, text: str) -> None:
        """Store a text as the file ``name``."""
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary, "text")
            path.write_text(text, encoding="utf-8")
            self.upload_file(path, name)

    def upload_file(self, path: Path, name: str) -> None:
        """Store a file under another name."""
        directory, _, file_name = name.rpartition("/")
        with tempfile.TemporaryDirectory() as temporary, upload_timeout(path.stat().st_size):
            link = Path(temporary, file_name)
            os.symlink(path, link)
            self._repository.log_artifact(str(link), directory or None)

    @cached_property
    def _repository(self) -> Any:
        # An ArtifactRepository, which has no types. Storage that is out of reach must not keep metrics from MLflow, so
        # that it is not asked for before there is a file.
        return get_artifact_repository(self._location, tracking_uri=self._tracking_uri)

    def _local_path(self, event: Figure | Image | Artifact) -> Path:
        path = self._run.directory / event.path
        if not path.exists():
            raise RejectedEventError(event.seq, f"{event.path} is gone")
        return path


def _max_file_size(path: Path) -> int:
    return max((file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file()), default=0)
