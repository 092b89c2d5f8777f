"""Downloads a checkpoint that is READY and has the right digest, with the run's journal up to it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, Run
from mlflow.exceptions import MlflowException

from pte_backends.mlflow import _journal, _runs
from pte_backends.mlflow._checkpoints import PATH, SHA256, repository
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
    """Bring a checkpoint; see :func:`pte_backends.mlflow._fetch.fetch`.

    Returns:
        The name of the file, or of the folder of shards, in ``directory``.

    Raises:
        LookupError: There is none that is whole; with the reasons.
    """
    client = MlflowClient(tracking_uri)
    scheme, _, rest = uri.partition(":")
    identity = rest.strip("/")
    if not identity or "/" in identity:
        raise LookupError(f"{uri}: expected runs:/<run id> or models:/<model id>")
    try:
        if scheme == "models":
            model = client.get_logged_model(identity)
            run_id = model.source_run_id
            candidates = [model]
        else:
            run_id = identity
            candidates = _checkpoints_of(client, _runs.get(client, identity))
        if run_id:
            _download_journal(client, _runs.get(client, run_id), directory)
    except (SinkClosedError, MlflowException) as error:
        if isinstance(error, SinkClosedError) or error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise LookupError(f"{uri}: {error}") from error
        raise
    return _first_whole(client, uri, _effective_first(candidates, directory), directory)


def _checkpoints_of(client: MlflowClient, run: Run) -> list[LoggedModel]:
    outputs = run.outputs.model_outputs if run.outputs else []
    found = []
    for output in outputs:
        try:
            found.append(client.get_logged_model(output.model_id))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # it was pruned
                raise
    return found


def _effective_first(models: list[LoggedModel], directory: Path) -> list[LoggedModel]:
    """The newest first, but those that were taken back after those that hold."""
    holding = {(one.path, one.sha256) for one in list_checkpoints(directory)}
    return sorted(
        models,
        key=lambda model: (
            (model.tags.get(PATH), model.tags.get(SHA256)) in holding,
            int(model.params.get("step", -1)),
        ),
        reverse=True,
    )


def _first_whole(client: MlflowClient, uri: str, models: list[LoggedModel], directory: Path) -> str:
    reasons = []
    for model in models:
        if model.status != "READY":
            reasons.append(f"{model.model_id} is {model.status}: its upload was not finished")
        elif SHA256 not in model.tags or Path(model.tags.get(PATH, "")).name in ("", ".."):
            reasons.append(f"{model.model_id} is no checkpoint of pte_tracking")
        else:
            name = Path(model.tags[PATH]).name
            repository(client, model).download_artifacts(name, str(directory))
            damage = verify_digest(directory / name, model.tags[SHA256])
            if damage is None:
                _cut_journal(directory / JOURNAL, model)
                return name
            delete_checkpoint(directory / name)
            reasons.append(f"{model.model_id}: {damage}")
    raise LookupError(f"{uri}: no whole checkpoint ({'; '.join(reasons) or 'there is none'})")


def _download_journal(client: MlflowClient, run: Run, directory: Path) -> None:
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        pieces = [
            Path(client.download_artifacts(run.info.run_id, piece.path, folder))
            for piece in client.list_artifacts(run.info.run_id, _journal.FOLDER)
        ]
        _journal.join(pieces, directory / JOURNAL)


def _cut_journal(path: Path, model: LoggedModel) -> None:
    """End the journal with the checkpoint; without that in it, it is of no use."""
    ends = [
        behind
        for event, behind in find_events(path, Checkpoint)
        if (event.path, event.sha256) == (model.tags[PATH], model.tags[SHA256])
    ]
    if ends:
        os.truncate(path, ends[-1])
    else:
        path.unlink()
