"""The MLflow sink: what a user configures, and how it is opened."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pte_backends.mlflow import _client, _fetch, _tracking_uri
from pte_backends.mlflow._resolution import LIMITS, Target, resolve_target
from pte_tracking.sinks import Connection, Limits, RunView, Sink


@dataclasses.dataclass(frozen=True)
class MLflowSink(Sink):
    """Shows the run on an MLflow server, or in a local store.

    What is not given is taken from where MLflow itself looks: ``MLFLOW_TRACKING_URI`` and its companions for user
    name, password, token and certificates, ``MLFLOW_EXPERIMENT_NAME`` or ``_ID``, ``MLFLOW_RUN_NAME``. A run named by
    ``MLFLOW_RUN_ID`` is gone on with; one that the script has started (``mlflow.start_run()``) is joined, and left
    for the script to end. Secrets in ``tracking_uri`` are moved to the environment; a later ``pte-tracking sync``
    from another shell needs them there again.

    MLflow stores the infinities as ±1.797e308, and shows no histograms. It cannot delete points: see ``on_rewind``.

    Args:
        tracking_uri: The server or store.
        experiment: The experiment's name; it is made if it is not there.
        run_name: The run's name there; the run's own name by default.
        on_rewind: When the run goes on from an earlier step, ``"keep"`` the points that are there and add only what
            is new; or ``"fork"``: begin a new MLflow run with the history that still holds, and put the superseded
            one beneath it.

    Raises:
        ValueError: ``on_rewind`` is neither.
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
    #: Filled in by :meth:`resolve`.
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
        """All but files of one's own."""
        return not _tracking_uri.resolve(self.tracking_uri).startswith(("file:", "sqlite:"))

    @property
    def rewinds(self) -> bool:
        """Only by a new run."""
        return self.on_rewind == "fork"

    def resolve(self) -> MLflowSink:
        """Fix the store, the experiment and the run."""
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
        """Bring ``models:/<model id>``, or the newest whole checkpoint of ``runs:/<run id>``."""
        return _fetch.fetch(_tracking_uri.resolve(self.tracking_uri), uri, directory)

    def open(self, run: RunView, state: Mapping[str, Any]) -> Connection:
        """Find the run, or begin it."""
        sink = self if self.tracking_uri else self.resolve()
        _client.configure()
        # MLflow takes more than a second to import.
        from pte_backends.mlflow._connection import MLflowConnection

        target = Target(**{field: getattr(sink, field) for field in Target._fields})
        return MLflowConnection(target, run, state)
