"""Figures, images, texts, and tables of an MLflow run."""

from __future__ import annotations

import json
import logging

from mlflow import MlflowClient

from pte_backends.mlflow import _runs
from pte_backends.mlflow._artifacts import ArtifactUploader
from pte_backends.mlflow._state import MLflowState
from pte_tracking.sinks import AnyEvent, Artifact, Figure, Image, Table, Text, to_artifact

_logger = logging.getLogger("pte_tracking")
_TABLES_TAG = "mlflow.loggedArtifacts"  # lists the tables for MLflow's page and for load_table()
_MAX_TAG_LENGTH = 5000  # of servers before MLflow 2.11; later ones accept 8000 characters


class MediaStore:
    """Uploader of media, in the places where MLflow's page and client expect them.

    Args:
        client: Client of the server.
        state: State of the connection, which contains the newest figures and tables.
        uploader: Uploader of the files.
    """

    def __init__(self, client: MlflowClient, state: MLflowState, uploader: ArtifactUploader) -> None:
        self._client = client
        self._state = state
        self._uploader = uploader
        #: Tables in the tag of the run. The tag itself is read again, because the script may add tables.
        self._announced: set[str] = set()

    def store(self, event: AnyEvent) -> None:
        """Store the files of an event. Do nothing for an event without files."""
        if isinstance(event, Figure | Image):
            self._uploader.upload_image(event)
            if isinstance(event, Figure) and self._is_newest(self._state.newest_figures, event):
                self._uploader.upload_newest_figure(event)
                self._state.newest_figures[event.key] = event.seq
        elif isinstance(event, Text):
            self._uploader.upload_text(event)
        elif isinstance(event, Table):
            self._store_table(event)
        elif isinstance(event, Artifact):
            self._uploader.upload_artifact(event)

    def _store_table(self, event: Table) -> None:
        self._uploader.upload_artifact(to_artifact(event))
        if self._is_newest(self._state.newest_tables, event):
            name = f"tables/{event.key}.json"
            self._uploader.upload_table(event, name)
            self._announce(name)
            self._state.newest_tables[event.key] = event.seq

    @staticmethod
    def _is_newest(newest: dict[str, int], event: Figure | Table) -> bool:
        """Whether no later event of the key was stored. A postponed file must not replace a newer one."""
        return event.seq >= newest.get(event.key, 0)

    def _announce(self, name: str) -> None:
        """Add a table to the tag of the run, unless the tag would be too long."""
        if name in self._announced:
            return
        entry = {"path": name, "type": "table"}
        stored = _read_entries(_runs.get_run(self._client, self._state.run_id).data.tags.get(_TABLES_TAG, ""))
        value = json.dumps([*stored, entry])
        if len(value) > _MAX_TAG_LENGTH:
            _logger.warning("mlflow: too many tables, the artifact %r is not listed on the page of tables", name)
        elif entry not in stored:
            self._client.set_tag(self._state.run_id, _TABLES_TAG, value)
        self._announced.add(name)


def _read_entries(value: str) -> list[object]:
    try:
        entries = json.loads(value or "[]")
    except ValueError:
        return []
    return entries if isinstance(entries, list) else []
