"""MLflow sink."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pte_backends._options import check_texts
from pte_backends.mlflow import _client, _fetch, _tracking_uri
from pte_backends.mlflow._limits import FILE_STORE_LIMITS, LIMITS
from pte_backends.mlflow._resolution import RunOrigin, Target, resolve_target
from pte_tracking.sinks import AnyEvent, Connection, Display, EventKind, Limits, Location, RunView, Sink

_TEXT_FIELDS = ("tracking_uri", "experiment", "run_name", "run_id", "experiment_id", "artifact_root")


@dataclasses.dataclass(frozen=True)
class MLflowSink(Sink):
    """Sink that delivers a run to an MLflow server or a local store.

    Options that are not set follow MLflow's own configuration: ``MLFLOW_TRACKING_URI`` and the variables for user name,
    password, token and certificates, ``MLFLOW_EXPERIMENT_NAME`` or ``MLFLOW_EXPERIMENT_ID``, and ``MLFLOW_RUN_NAME``.
    The run in ``MLFLOW_RUN_ID`` is continued. A run that the script started with ``mlflow.start_run()`` is reused and
    left open. If it contains another run already, the run is delivered to a child of it. Credentials in
    ``tracking_uri`` are moved to the environment. A later ``pte-tracking sync`` from another shell needs them in its
    environment.

    MLflow stores infinities as ±1.797e308 and does not support histograms. It cannot delete data points; see
    ``on_rewind``.

    Args:
        tracking_uri: Tracking URI of the server or store. Defaults to None: MLflow's own choice.
        experiment: Name of the experiment, which is created if it does not exist. Defaults to None: the environment, or
            MLflow's ``Default``. If a server created ``Default`` in a local store, so that only the server can write
            its artifacts, a new run is created in ``Default-local`` instead.
        run_name: Name of the MLflow run. Defaults to None: the environment, or the name of the run.
        on_rewind: ``"keep"`` (the default) keeps all stored data points and adds only new steps after a rewind.
            ``"fork"`` creates a new MLflow run with the effective history and makes the superseded run its child.
        run_id: ID of an existing MLflow run to continue. Delivery stops if the run does not exist or contains another
            run. Defaults to None: the active run, the environment, or a new run.
        experiment_id: ID of an existing experiment, instead of ``experiment``. Defaults to None.
        artifact_root: Location of the artifacts of an experiment that the sink creates, a path or a URI. Delivery stops
            if the experiment exists with another location. Defaults to None: MLflow's own choice.

    Raises:
        ValueError: If ``on_rewind`` is neither ``"keep"`` nor ``"fork"``, a string is empty, two options exclude each
            other, or ``artifact_root`` contains credentials.
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
    sources: ClassVar[tuple[str, ...]] = ("runs:", "mlflow:")
    limits: ClassVar[Limits] = LIMITS
    shows: ClassVar[Mapping[EventKind, Display] | None] = {
        "metrics": "native",
        "params": "native",
        "tags": "native",
        "figure": "native",
        "image": "native",
        "text": "artifact",
        "table": "native",
        "dataset": "native",
        "artifact": "native",
        "checkpoint": "native",
        "model": "native",
        "status": "native",
    }

    tracking_uri: str | None = None
    experiment: str | None = None
    run_name: str | None = None
    on_rewind: Literal["keep", "fork"] = "keep"
    _: dataclasses.KW_ONLY
    run_id: str | None = None
    experiment_id: str | None = None
    artifact_root: str | None = None
    #: Set by :meth:`resolve`, like the following fields.
    _run_origin: RunOrigin | None = dataclasses.field(default=None, repr=False)
    _is_experiment_given: bool = dataclasses.field(default=False, repr=False)
    _store_artifact_root: str | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.on_rewind not in ("keep", "fork"):
            raise ValueError(f'on_rewind: expected "keep" or "fork", got {self.on_rewind!r}')
        check_texts(self, *_TEXT_FIELDS)
        for field in _TEXT_FIELDS:
            if getattr(self, field) == "":
                raise ValueError(f"{field}: expected a non-empty string. Omit the option to use the default.")
        self._check_combinations()
        if self.tracking_uri:
            object.__setattr__(self, "tracking_uri", _tracking_uri.move_credentials_to_environment(self.tracking_uri))
            if self.tracking_uri.startswith("file:"):
                object.__setattr__(self, "limits", FILE_STORE_LIMITS)

    def _check_combinations(self) -> None:
        if self.experiment and self.experiment_id:
            raise ValueError(
                f"experiment={self.experiment!r} and experiment_id={self.experiment_id!r} exclude each other. Pass one."
            )
        if self.run_id and self._run_origin is None:
            for field in ("experiment", "experiment_id", "artifact_root"):
                if value := getattr(self, field):
                    raise ValueError(
                        f"{field}={value!r} has no effect together with run_id={self.run_id!r}, because that MLflow "
                        "run is in an experiment already. Pass one of them."
                    )
        if self.artifact_root and _tracking_uri.strip_credentials(self.artifact_root) != self.artifact_root:
            raise ValueError("artifact_root: contains credentials. Set them in the environment of the storage client.")

    @property
    def uses_shared_server(self) -> bool:
        """Whether the store is a server, rather than local files."""
        return not _tracking_uri.is_local(_tracking_uri.resolve(self.tracking_uri))

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
        _tracking_uri.name_server(uri)
        target = resolve_target(uri)
        has_experiment = bool(self.experiment or self.experiment_id)
        return dataclasses.replace(
            self,
            tracking_uri=uri,
            experiment=self.experiment if has_experiment else target.experiment,
            experiment_id=self.experiment_id if has_experiment else target.experiment_id,
            run_id=self.run_id or target.run_id,
            run_name=self.run_name or (None if self.run_id else target.run_name),
            artifact_root=self.artifact_root and _tracking_uri.make_absolute(self.artifact_root),
            _run_origin=self._run_origin or ("argument" if self.run_id else target.run_origin),
            _is_experiment_given=self._is_experiment_given or (has_experiment and self._store_artifact_root is None),
            _store_artifact_root=target.store_artifact_root,
        )

    @property
    def destination(self) -> object:
        """Server, experiment, and run, which identify the MLflow run."""
        return self.tracking_uri, self.experiment, self.experiment_id, self.run_id

    def locate(self, directory: Path, state: Mapping[str, Any]) -> Location | None:
        """Return the ID and the web page of the MLflow run, or the command that shows a local store.

        Args:
            directory: Absolute path of the run directory.
            state: Last saved state of a connection.

        Returns:
            The place. None before the MLflow run is known.
        """
        run_id, experiment_id, uri = state.get("run_id"), state.get("experiment_id"), self.tracking_uri or ""
        if not run_id:
            return None
        if uri.startswith(("http:", "https:")):
            return Location(run_id, f"{uri.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}")
        if uri.partition(":")[0] in ("databricks", "databricks-uc", "uc"):
            return Location(run_id)
        return Location(run_id, command=f"mlflow ui --backend-store-uri {shlex.quote(uri)}")

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
            PermissionError: If there are credentials, and only the files of a run name the server.
        """
        tracking_uri = _tracking_uri.resolve(self.tracking_uri)
        _tracking_uri.check_credentials(tracking_uri)
        return _fetch.fetch(tracking_uri, uri, directory)

    @classmethod
    def read_run(cls, source: str, directory: Path, *, tracking_uri: str | None = None) -> Iterable[AnyEvent]:
        """Read an MLflow run: its metrics with all data points, parameters, tags, name, times, and status.

        Tags of MLflow itself are left out. Artifacts are named in a warning.

        Args:
            source: ``runs:/<run id>`` or ``mlflow:<run id>``.
            directory: Not used, because artifacts are left out.
            tracking_uri: Tracking URI of the server or store. Defaults to None: the environment, or MLflow's own
                choice.

        Returns:
            The events, ordered by time.

        Raises:
            LookupError: If the store or the run does not exist.
            ConnectionError: If the server cannot be reached, or its response is an error.
            PermissionError: If the server does not accept the credentials.
        """
        configured_uri = cls(tracking_uri).tracking_uri
        _client.configure_for_reading()
        from pte_backends.mlflow._reader import read_run

        return read_run(source, _tracking_uri.resolve(configured_uri))

    def open(self, run: RunView, state: Mapping[str, Any]) -> Connection:
        """Find the MLflow run or create it.

        Args:
            run: Run to deliver.
            state: Last state of an earlier connection.

        Returns:
            The open connection.

        Raises:
            SinkClosedError: If the MLflow run or its experiment was deleted, MLflow refuses an option, or an option
                cannot take effect.
            PermissionError: If the server denies access to this user.
        """
        sink = self if self.tracking_uri else self.resolve()
        _client.configure()
        # The import of MLflow takes more than one second.
        from pte_backends.mlflow._connection import MLflowConnection

        target = Target(
            sink.tracking_uri or "",
            sink.experiment,
            sink.experiment_id,
            sink._is_experiment_given,
            sink.run_id,
            sink._run_origin,
            sink.run_name,
            sink.artifact_root,
            sink._store_artifact_root,
        )
        return MLflowConnection(target, run, state)
