"""Connection to an Aim run."""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import aim
import filelock
from aim.sdk.repo_utils import get_repo

from pte_backends._files import find_file
from pte_backends.aim import _rewind, _values
from pte_tracking.sinks import (
    AnyEvent,
    Artifact,
    Audio,
    Checkpoint,
    CheckpointRemoved,
    Dataset,
    Figure,
    Histogram,
    Image,
    Metrics,
    Params,
    Provenance,
    RejectedEventError,
    Rewound,
    RunView,
    SinkClosedError,
    Status,
    Tags,
    Text,
    list_owned_files,
    locked_directory,
    to_artifact,
)

_MAX_WAIT_SECONDS = 5.0
_WAIT_SECONDS = 0.1


class AimConnection:
    """Open Aim run.

    Aim writes each value to its store at once, so it survives the end of the process. A value that is tracked
    again replaces the value of the same name and step, so a repeated batch changes nothing.

    Args:
        repository: Directory of the repository, or the address of a tracking server.
        experiment: Name of the experiment. None for Aim's default.
        run: Run to deliver.
        state: State that an earlier connection returned from :meth:`state`.

    Raises:
        SinkClosedError: If the Aim run was deleted.
        TimeoutError: If another process has the Aim run open.
    """

    def __init__(self, repository: str, experiment: str | None, run: RunView, state: Mapping[str, Any]) -> None:
        self._run = run
        self._repository = repository
        self._repo = _open_repository(repository)
        if not self._repo.run_exists(run.id):
            if state:
                raise SinkClosedError(f"The Aim run {run.id} was deleted from {repository}.", is_lost=True)
            self._create_run()
        self._aim_run = self._open_run()
        self._aim_run.name = run.name
        if experiment is not None and self._aim_run.experiment != experiment:
            self._aim_run.experiment = experiment
        self._aim_run["status"] = "RUNNING"
        for key, origin in run.context.items():
            self._aim_run["origin", key] = origin

    def write(self, events: Sequence[AnyEvent]) -> None:
        """Store events.

        Args:
            events: Batch of events.

        Raises:
            RejectedEventError: If a file of the run is missing or damaged.
        """
        if isinstance(events[0], Rewound):
            self._rewind(events[0])
            return
        for event in events:
            if isinstance(event, Audio) and not _values.is_playable(event):
                self._store_artifact(to_artifact(event))
            elif isinstance(event, Metrics):
                # Aim shows no metric that has both integers and floats.
                numbers = {key: float(value) for key, value in event.values.items()}
                self._aim_run.track(numbers, step=event.step, epoch=event.epoch)
            elif isinstance(event, Figure | Image | Histogram | Text | Audio):
                self._aim_run.track(_values.build_object(event, self._run), name=event.key, step=event.step)
            elif isinstance(event, Artifact):
                self._store_artifact(event)
            else:
                self._store_properties(event)

    def state(self) -> dict[str, Any]:
        """Return the hash of the Aim run.

        Returns:
            The state as plain JSON.
        """
        return {"run_id": self._run.id}

    def close(self, status: Status | None) -> None:
        """Close the Aim run, which sets its end time.

        Args:
            status: Final status of the run; None if the run continues.
        """
        if status is not None:
            self._aim_run["status"] = status
        if status == "FINISHED":
            self._aim_run.report_successful_finish()
        self._aim_run.close()

    def _create_run(self) -> None:
        # Aim chooses the hash of a new run itself, and opens a run with a given hash only if it has a container. The
        # hash of this run is its ID, so a repeated creation after a crash finds the same run.
        self._repo.request_tree("meta", self._run.id, read_only=False)
        start_time = datetime.datetime.fromtimestamp(self._run.start_time, tz=datetime.timezone.utc)
        self._repo.request_props(self._run.id, False, start_time)
        deadline = time.monotonic() + _MAX_WAIT_SECONDS
        # Aim caches the list of runs for half a second.
        while not self._repo.run_exists(self._run.id) and time.monotonic() < deadline:
            time.sleep(_WAIT_SECONDS)

    def _open_run(self) -> aim.Run:
        try:
            return aim.Run(
                self._run.id,
                repo=self._repo,
                system_tracking_interval=None,
                log_system_params=False,
                capture_terminal_logs=False,
            )
        except filelock.Timeout as error:
            raise TimeoutError(
                f"Another process has the Aim run {self._run.id} open. End it. If it was killed on another machine, "
                f"run: aim runs --repo {self._repository} close {self._run.id}"
            ) from error

    def _rewind(self, rewound: Rewound) -> None:
        superseded = list(self._run.superseded(rewound))
        _rewind.remove_values(self._aim_run, superseded)
        for event in superseded:
            if isinstance(event, Checkpoint):
                self._remove_checkpoint(event.path)
        self._aim_run.close()
        self._aim_run = self._open_run()

    def _store_properties(self, event: AnyEvent) -> None:
        if isinstance(event, Params):
            for key, value in event.values.items():
                self._aim_run["hparams", key] = _values.convert_param(value)
        elif isinstance(event, Tags):
            for key, value in event.values.items():
                self._set_tag(key, value)
        elif isinstance(event, Dataset):
            dataset = {"digest": event.digest, "source": event.source}
            self._aim_run["datasets", f"{event.context}/{event.name}"] = dataset
        elif isinstance(event, Checkpoint):
            checkpoint = {"step": event.step, "epoch": event.epoch, "sha256": event.sha256}
            self._aim_run["checkpoints", event.path] = checkpoint
        elif isinstance(event, CheckpointRemoved):
            self._remove_checkpoint(event.path)
        elif isinstance(event, Provenance):
            for key, fact in event.values.items():
                self._aim_run["origin", key] = fact
            self._aim_run["__system_params"] = _values.build_system_params(event, self._run)

    def _set_tag(self, key: str, value: str) -> None:
        tag = f"{key}: {value}"
        for other in self._aim_run.tags:
            if other.startswith(f"{key}: ") and other != tag:
                self._aim_run.remove_tag(other)
        if tag not in self._aim_run.tags:
            self._aim_run.add_tag(tag)

    def _remove_checkpoint(self, path: str) -> None:
        if path in self._aim_run.get("checkpoints", {}):
            del self._aim_run["checkpoints", path]

    def _store_artifact(self, event: Artifact) -> None:
        path = find_file(event, self._run)
        if self._aim_run.artifacts_uri is None:
            if "://" in self._repository:
                raise RejectedEventError(event.seq, "An Aim tracking server has no place for artifacts.")
            self._aim_run.set_artifacts_uri(Path(self._repo.path, "artifacts").as_uri())
        for file in list_owned_files(self._run.directory, path)[0]:
            name = Path(event.artifact_path, file.relative_to(path.parent)).as_posix()
            self._aim_run.log_artifact(str(file), name, block=True)


def _open_repository(repository: str) -> Any:
    if "://" in repository:
        return get_repo(repository)
    directory = Path(repository)
    directory.mkdir(parents=True, exist_ok=True)
    # Aim refuses a repository that another process or thread is still creating.
    with locked_directory(directory):
        return get_repo(repository)
