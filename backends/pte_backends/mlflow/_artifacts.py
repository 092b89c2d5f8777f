"""Files of the run at MLflow: pictures, texts, artifacts."""

from __future__ import annotations

import os
import posixpath
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any

from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from pte_backends.mlflow._client import patience
from pte_tracking.sinks import Artifact, Figure, Image, RejectedEventError, RunView, Text


class Files:
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

    def picture(self, event: Figure | Image) -> None:
        """Store a picture as ``log_image(key=, step=)`` does: MLflow's page has a slider over the steps of those.

        The page reads key and step from the name, and takes a second file for the small view. The time in the name
        is always the run's, so that a picture that is drawn again replaces the first.
        """
        time = int(self._run.start_time * 1000)
        name = f"images/{event.key.replace('/', '~')}+step+{event.step}+timestamp+{time}+{self._run.id}"
        path = self._local(event)
        self.put(path, f"{name}.png")
        self.put(path, f"{name}+compressed.png")
        if isinstance(event, Figure):
            # The newest one, to be seen without the slider.
            self.put(path, f"figures/{event.key}.png")

    def text(self, event: Text) -> None:
        """Store a text."""
        self.write(f"text/{event.key}/step_{event.step}.md", event.text)

    def artifact(self, event: Artifact) -> None:
        """Store a file or folder."""
        path = self._local(event)
        with patience(_size(path)):
            if path.is_dir():
                self._repository.log_artifacts(str(path), posixpath.join(event.artifact_path, path.name))
            else:
                self._repository.log_artifact(str(path), event.artifact_path or None)

    def write(self, name: str, text: str) -> None:
        """Store a text as the file ``name``."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "text")
            path.write_text(text, encoding="utf-8")
            self.put(path, name)

    def put(self, path: Path, name: str) -> None:
        """Store a file under another name."""
        folder, _, base = name.rpartition("/")
        with tempfile.TemporaryDirectory() as links, patience(path.stat().st_size):
            link = Path(links, base)
            os.symlink(path, link)
            self._repository.log_artifact(str(link), folder or None)

    @cached_property
    def _repository(self) -> Any:
        # An ArtifactRepository, which has no types. Storage that is out of reach must not keep metrics from MLflow, so
        # that it is not asked for before there is a file.
        return get_artifact_repository(self._location, tracking_uri=self._tracking_uri)

    def _local(self, event: Figure | Image | Artifact) -> Path:
        path = self._run.directory / event.path
        if not path.exists():
            raise RejectedEventError(event.seq, f"{event.path} is gone")
        return path


def _size(path: Path) -> int:
    return max((found.stat().st_size for found in [path, *path.rglob("*")] if found.is_file()), default=0)
