"""MLflow sink."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pte_backends.mlflow import _client, _fetch, _tracking_uri
from pte_backends.mlflow._limits import LIMITS
from pte_backends.mlflow._resolution import Target, resolve_target
from pte_tracking.sinks import Connection, Limits, RunView, Sink


@dataclasses.dataclass(frozen=True)
class MLflowSink(Sink):
    """Sink that delivers a run to an MLflow server or a local store.

    Options that are not set follow MLflow's own configuration: ``MLFLOW_TRACKING_URI`` and the variables for user name,
    password, token and certificates, ``MLFLOW_EXPERIMENT_NAME`` or ``MLFLOW_EXPERIMENT_ID``, and ``MLFLOW_RUN_NAME``.
    The run in ``MLFLOW_RUN_ID`` is continued. A run that the script started with ``mlflow.start_run()`` is reused and
    left open. Credentials in ``tracking_uri`` are moved to the environment. A later ``pte-tracking sync`` from another
    shell needs them in its environment.

    MLflow stores infinities as ±1.797e308 and does not support histograms. It cannot delete data points; see
    ``on_rewind``.

    Args:
        tracking_uri: Tracking URI of the server or store. Defaults to None: MLflow's own choice.
        experiment: Name of the experiment, which is created if it does not exist. Defaults to None: the environment, or
            MLflow's ``Default``.
        run_name: Name of the MLflow run. Defaults to None: the environment, or the name of the run.
        on_rewind: ``"keep"`` (the default) keeps all stored data points and adds only new steps after a rewind.
            ``"fork"`` creates a new MLflow run with the effective history and makes the superseded run its child.

    Raises:
        ValueError: If ``on_rewind`` is neither ``"keep"`` nor ``"fork"``.
        TypeError: If another option is not a string.

    Example:
        >>> from pte_backends.mlflow import MLflowSink
        >>> sink = MLflowSink("http://localhost:5000", experiment="digits", on_rewind="fork")
        >>> sink.rewinds
        True
    """

    name: ClassVar[str] = "mlflow"
    requires: ClassVar[str | None] = "mlflow"
    install: ClassVar[str] = "pip install 'pte-tracking[mlflow]'"
    schemes: ClassVar[tuple[str, ...]] = ("runs", "models")
    limits: ClassVar[Limits] = LIMITS

    tracking_uri: str | None = None
    experiment: str | None = None
    run_name: str | None = None
    on_rewind: Literal["keep", "fork"] = "keep"
    _: dataclasses.KW_ONLY
    #: Set by :meth:`resolve`, like the following fields.
    experiment_id: str | None = None
    run_id: str | None = None
    is_joined: bool = False
    artifact_root: str | None = None

    def __post_init__(self) -> None:
        if self.on_rewind not in ("keep", "fork"):
            raise ValueError(f'on_rewind: expected "keep" or "fork", got {self.on_rewind!r}')
        for field in ("tracking_uri", "experiment", "run_name"):
            value = getattr(self, field)
            if value is not None and not isinstance(value, str):
                raise TypeError(f"{field}: expected a string, got {value!r} of type {type(value).__name__}")
        if self.tracking_uri:
            object.__setattr__(self, "tracking_uri", _tracking_uri.move_credentials_to_environment(self.tracking_uri))

    @property
    def uses_shared_server(self) -> bool:
        """Whether the store is a server, rather than local files."""
        return not _tracking_uri.resolve(self.tracking_uri).startswith(("file:", "sqlite:"))

    @property
    def rewinds(self) -> bool:
        """Whether a rewind creates a new MLflow run."""
        return self.on_rewind == "fork"

    def resolve(self) -> MLflowSink:
        """Resolve the store, the experiment, and the run from the environment.

        Returns:
            A sink with all options set.
        """
        uri = _tracking_uri.resolve(self.tracking_uri)
        target = resolve_target(uri)
        return dataclasses.replace(
            self,
            tracking_uri=uri,
            experiment=self.experiment or target.experiment,
            experiment_id=None if self.experiment else target.experiment_id,
            run_id=target.run_id,
            is_joined=target.is_joined,
            run_name=self.run_name or target.run_name,
            artifact_root=target.artifact_root,
        )

    def fetch(self, uri: str, directory: Path) -> Path:
        """Download a checkpoint from MLflow.

        Args:
            uri: ``models:/<model id>``, or ``runs:/<run id>`` for the newest complete checkpoint of a run.
            directory: Empty directory for the downloaded files.

        Returns:
            Path of the snapshot in ``directory``.

        Raises:
            LookupError: If there is no complete checkpoint at this URI.
            ConnectionError: If the download failed for another reason.
        """
        return _fetch.fetch(_tracking_uri.resolve(self.tracking_uri), uri, directory)

    def open(self, run: RunView, state: Mapping[str, Any]) -> Connection:
        """Find the MLflow run or create it.

        Args:
            run: Run to deliver.
            state: Last state of an earlier connection.

        Returns:
            The open connection.

        Raises:
            SinkClosedError: If the MLflow run or its experiment was deleted.
            PermissionError: If the server denies access to this user.
        """
        sink = self if self.tracking_uri else self.resolve()
        _client.configure()
        # The import of MLflow takes more than one second.
        from pte_backends.mlflow._connection import MLflowConnection

        target = Target(**{field: getattr(sink, field) for field in Target._fields})
        return MLflowConnection(target, run, state)
