"""Download of a complete checkpoint with the journal up to it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, Run
from mlflow.exceptions import MlflowException

from pte_backends.mlflow import _journal, _runs
from pte_backends.mlflow._checkpoints import PATH_TAG, SHA256_TAG, open_repository
from pte_tracking.sinks import (
    JOURNAL,
    Checkpoint,
    SinkClosedError,
    delete_checkpoint,
    find_events,
    list_checkpoints,
    verify_digest,
)


def download(tracking_uri: str, uri: str, directory: Path) -> str:
    """Download a checkpoint; see :func:`pte_backends.mlflow._fetch.fetch`.

    Args:
        tracking_uri: Tracking URI of the server or store.
        uri: ``runs:/<run id>`` or ``models:/<model id>``.
        directory: Directory for the downloaded files.

    Returns:
        The name of the file, or of the directory of shards, in ``directory``.

    Raises:
        LookupError: If there is no complete checkpoint. The message contains the reasons.
    """
    client = MlflowClient(tracking_uri)
    scheme, _, rest = uri.partition(":")
    object_id = rest.strip("/")
    if not object_id or "/" in object_id:
        raise LookupError(f"Cannot fetch {uri!r}. Expected runs:/<run id> or models:/<model id>.")
    try:
        if scheme == "models":
            model = client.get_logged_model(object_id)
            run_id = model.source_run_id
            candidates = [model]
        else:
            run_id = object_id
            candidates = _list_models(client, _runs.get_run(client, object_id))
        if run_id:
            _download_journal(client, _runs.get_run(client, run_id), directory)
    except (SinkClosedError, MlflowException) as error:
        if isinstance(error, SinkClosedError) or error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise LookupError(f"Cannot fetch {uri!r}: {error}") from error
        raise
    return _download_first_complete(client, uri, _sort_candidates(candidates, directory), directory)


def _list_models(client: MlflowClient, run: Run) -> list[LoggedModel]:
    outputs = run.outputs.model_outputs if run.outputs else []
    models = []
    for output in outputs:
        try:
            models.append(client.get_logged_model(output.model_id))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # The model of a pruned snapshot was deleted.
                raise
    return models


def _sort_candidates(models: list[LoggedModel], directory: Path) -> list[LoggedModel]:
    """Sort models by step, newest first, with superseded checkpoints after effective ones."""
    effective = {(checkpoint.path, checkpoint.sha256) for checkpoint in list_checkpoints(directory)}
    return sorted(
        models,
        key=lambda model: (
            (model.tags.get(PATH_TAG), model.tags.get(SHA256_TAG)) in effective,
            int(model.params.get("step", -1)),
        ),
        reverse=True,
    )


def _download_first_complete(client: MlflowClient, uri: str, models: list[LoggedModel], directory: Path) -> str:
    reasons = []
    for model in models:
        if model.status != "READY":
            reasons.append(f"{model.model_id} is {model.status}, its upload is incomplete")
        elif SHA256_TAG not in model.tags or Path(model.tags.get(PATH_TAG, "")).name in ("", ".."):
            reasons.append(f"{model.model_id} is not a checkpoint of pte_tracking")
        else:
            name = Path(model.tags[PATH_TAG]).name
            open_repository(client, model).download_artifacts(name, str(directory))
            damage = verify_digest(directory / name, model.tags[SHA256_TAG])
            if damage is None:
                _truncate_journal(directory / JOURNAL, model)
                return name
            delete_checkpoint(directory / name)
            reasons.append(f"{model.model_id}: {damage}")
    raise LookupError(f"No complete checkpoint at {uri!r}: {'; '.join(reasons) or 'the run has no checkpoints'}.")


def _download_journal(client: MlflowClient, run: Run, directory: Path) -> None:
    with tempfile.TemporaryDirectory(dir=directory) as temporary:
        pieces = [
            Path(client.download_artifacts(run.info.run_id, piece.path, temporary))
            for piece in client.list_artifacts(run.info.run_id, _journal.JOURNAL_DIRECTORY)
        ]
        _journal.join_pieces(pieces, directory / JOURNAL)


def _truncate_journal(path: Path, model: LoggedModel) -> None:
    """Truncate the journal after the checkpoint. Delete it if it does not contain the checkpoint."""
    ends = [
        end_position
        for event, end_position in find_events(path, Checkpoint)
        if (event.path, event.sha256) == (model.tags[PATH_TAG], model.tags[SHA256_TAG])
    ]
    if ends:
        os.truncate(path, ends[-1])
    else:
        path.unlink()
