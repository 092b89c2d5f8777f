"""Exported models as logged models of MLflow and as versions of registered models.

A logged model is ``PENDING`` until its files are uploaded completely.
"""

from __future__ import annotations

import datetime
import json
import logging
import platform
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient, __version__
from mlflow.entities import LoggedModel, LoggedModelOutput, Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from pte_backends.mlflow import _runs
from pte_backends.mlflow._artifacts import link_or_copy
from pte_backends.mlflow._checkpoints import open_repository
from pte_backends.mlflow._client import upload_timeout
from pte_backends.mlflow._descriptions import DESCRIPTION, REGISTERED_MODEL, describe_model
from pte_backends.mlflow._errors import RefusedUploadError, translate_upload_errors
from pte_backends.mlflow._origin import origin_tags
from pte_tracking.sinks import (
    BestMetric,
    Model,
    RejectedEventError,
    RunView,
    TensorSpec,
    checkpoint_digest,
    list_models,
    owned_path,
)

_logger = logging.getLogger("pte_tracking")

#: Tag with the directory of the model, relative to the run directory.
PATH_TAG = "pte.model"
_SHA256_TAG = "pte.model_sha256"
#: Tags of a version. They identify it, and contain the metric by which it is the best.
_MODEL_ID_TAG = "pte.model_id"
_BEST_TAG = "pte.best"
_SUPERSEDED_TAG = "pte.superseded"
_BEST_ALIAS = "best"
_READY_SECONDS = 60
#: Types of NumPy, in which MLflow describes tensors.
_DTYPES = re.compile(r"bool|u?int(8|16|32|64)|float(16|32|64)|complex(64|128)")


class Models:
    """Exported models of a run.

    Args:
        client: MLflow client.
        run: Run to deliver.
        mlflow_run: MLflow run that the models belong to.
    """

    def __init__(self, client: MlflowClient, run: RunView, mlflow_run: Run) -> None:
        self._client = client
        self._run = run
        self._run_id = mlflow_run.info.run_id
        self._experiment_id = mlflow_run.info.experiment_id

    def add(self, event: Model, *, is_newest_best: bool) -> None:
        """Store an exported model as a logged model, and register it. An interrupted call is completed by the next one.

        Args:
            event: The exported model.
            is_newest_best: Whether no later export is the best of the run.

        Raises:
            RejectedEventError: If the files do not exist any more.
            RefusedUploadError: If the registry does not accept the model.
        """
        models = self._find_models() or self._find_models()
        model = _first(models, event)
        if model is None:
            self._create_model(event)
            model = _first(self._find_models(), event)
            _runs.check_id(model.model_id if model else "")
        assert model is not None
        if model.status != "READY":
            self._upload(model, event)
            self._link_to_run(model, event.step)
            self._client.finalize_logged_model(model.model_id, "READY")
        effective = {(other.path, other.sha256) for other in list_models(self._run.directory)}
        for other in models:
            if (other.tags[PATH_TAG], other.tags[_SHA256_TAG]) not in effective and _SUPERSEDED_TAG not in other.tags:
                self._client.set_logged_model_tags(other.model_id, {_SUPERSEDED_TAG: "true"})
        if event.registered_name:
            try:
                self._register(model, event, is_newest_best)
            except MlflowException as error:
                if error.error_code == "PERMISSION_DENIED":  # of the registry, while the run itself can be written
                    raise RefusedUploadError(f"registered model {event.registered_name!r}: {error}") from error
                raise

    def return_aliases(self, newest: Mapping[str, int], before_seq: int) -> dict[str, int]:
        """Move the alias from an export that a resume superseded to the newest best export that remains.

        Args:
            newest: Sequence number of the newest best export of each registered model.
            before_seq: Sequence number of the start of the resume.

        Returns:
            The changed numbers. Models without another best export keep the alias.
        """
        exports = [event for event in list_models(self._run.directory) if event.best and event.seq < before_seq]
        remaining = {event.registered_name: event for event in exports if event.registered_name in newest}
        changed = {name: event.seq for name, event in remaining.items() if event.seq < newest[name]}
        models = self._find_models() if changed else []
        for name in changed:
            model = _first(models, remaining[name])
            versions = self._find_versions(name, model) if model else []
            current = self._find_best(name)
            if versions and current and current.tags.get(_runs.RUN_ID) == self._run.id:
                self._client.set_registered_model_alias(name, _BEST_ALIAS, versions[0].version)
        return changed

    def _find_models(self) -> list[LoggedModel]:
        """Return all exports of the run, complete ones first."""
        models: list[LoggedModel] = []
        token = None
        while True:
            page = self._client.search_logged_models(
                [self._experiment_id], f"tags.`{_runs.RUN_ID}` = '{self._run.id}'", page_token=token
            )
            models += [model for model in page if PATH_TAG in model.tags]
            if not (token := page.token):
                break
        for model in models:
            _runs.check_id(model.model_id)
        return sorted(models, key=lambda model: (model.status != "READY", model.model_id))

    def _create_model(self, event: Model) -> None:
        params: dict[str, object] = {"step": event.step, "size": event.size}
        if event.best:
            params["best"] = f"{event.best.key}: {event.best.value}"
        self._client.create_logged_model(
            self._experiment_id,
            name=re.sub(r"[/:.%\"']", "_", event.name),
            source_run_id=self._run_id,
            tags=origin_tags(self._run)
            | {
                _runs.RUN_ID: self._run.id,
                PATH_TAG: event.path,
                _SHA256_TAG: event.sha256,
                DESCRIPTION: describe_model(event, self._run),
            },
            params={key: str(value) for key, value in params.items()},
            model_type="pytorch",
        )

    def _upload(self, model: LoggedModel, event: Model) -> None:
        source = owned_path(self._run.directory, event.path)
        weights = source and owned_path(self._run.directory, f"{event.path}/state_dict.pt")
        if source is None or weights is None or checkpoint_digest(weights).sha256 != event.sha256:
            raise RejectedEventError(
                event.seq, f"The files of the exported model {event.path} were replaced or deleted."
            )
        repository = open_repository(self._client, model)
        with tempfile.TemporaryDirectory() as temporary:
            _write_files(Path(temporary), source, event, model, self._run_id)
            with upload_timeout(event.size), translate_upload_errors(model.artifact_location):
                repository.log_artifacts(temporary)

    def _link_to_run(self, model: LoggedModel, step: int) -> None:
        outputs = _runs.get_run(self._client, self._run_id).outputs
        if model.model_id not in {output.model_id for output in (outputs.model_outputs if outputs else ())}:
            self._client.log_outputs(self._run_id, [LoggedModelOutput(model.model_id, step)])

    def _register(self, model: LoggedModel, event: Model, is_newest_best: bool) -> None:
        name = event.registered_name
        if not self._find_versions(name, model):
            try:
                self._client.create_registered_model(name, description=REGISTERED_MODEL)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            tags = {_MODEL_ID_TAG: model.model_id, _runs.RUN_ID: self._run.id, "pte.step": str(event.step)}
            # A local store searches a model of its own in the store that the process uses by default.
            is_server = self._client.tracking_uri.startswith(("http", "databricks"))
            self._client.create_model_version(
                name,
                f"models:/{model.model_id}" if is_server else model.artifact_location,
                self._run_id,
                tags | ({_BEST_TAG: _encode_best(event.best)} if event.best else {}),
                description=describe_model(event, self._run),
                await_creation_for=_READY_SECONDS,
                model_id=model.model_id,
            )
        versions = self._find_versions(name, model)
        _runs.check_id(versions[0].version if versions else "")
        for other in versions[1:]:  # which a repeated request created
            self._client.delete_model_version(name, other.version)
        if event.best and is_newest_best and self._is_best(name, event.best):
            self._client.set_registered_model_alias(name, _BEST_ALIAS, versions[0].version)

    def _find_versions(self, name: str, model: LoggedModel) -> list[ModelVersion]:
        quote = '"' if "'" in name else "'"

        def search() -> list[ModelVersion]:
            versions = self._client.search_model_versions(f"name={quote}{name}{quote}", max_results=10_000)
            return [found for found in versions if found.tags.get(_MODEL_ID_TAG) == model.model_id]

        return sorted(search() or search(), key=lambda found: int(found.version))  # a response may be truncated

    def _is_best(self, name: str, best: BestMetric) -> bool:
        """Return whether no other run has a better version with the alias, by the same metric."""
        current = self._find_best(name)
        stored = current.tags.get(_BEST_TAG) if current else None
        if current is None or stored is None or current.tags.get(_runs.RUN_ID) == self._run.id:
            return True
        key, mode, value = json.loads(stored)
        sign = 1 if mode == "max" else -1
        if (key, mode) != (best.key, best.mode) or sign * best.value >= sign * value:
            return True
        _logger.info(
            "mlflow: version %s of registered model %r keeps the alias 'best': its %s is %s, that of this run is %s",
            *(current.version, name, key, value, best.value),
        )
        return False

    def _find_best(self, name: str) -> ModelVersion | None:
        try:
            return self._client.get_model_version_by_alias(name, _BEST_ALIAS)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):  # There is no alias.
                return None
            raise


def _first(models: list[LoggedModel], event: Model) -> LoggedModel | None:
    """Return the model of an event. A repeated request may have created two."""
    return next(
        (model for model in models if (model.tags[PATH_TAG], model.tags[_SHA256_TAG]) == (event.path, event.sha256)),
        None,
    )


def _encode_best(best: BestMetric) -> str:
    return json.dumps([best.key, best.mode, best.value])


def _write_files(target: Path, source: Path, event: Model, model: LoggedModel, run_id: str) -> None:
    """Write the directory of an MLflow model: the exported program as the flavor pytorch."""
    (target / "data").mkdir()
    for name, link in (("model.pt2", "data/model.pt2"), ("state_dict.pt", "state_dict.pt")):
        link_or_copy((source / name).resolve(), target / link)
    config: dict[str, Any] = {
        "artifact_path": model.artifact_location,
        "flavors": {"pytorch": {"code": None, "model_data": "data", "pytorch_version": event.torch}},
        "mlflow_version": __version__,
        "model_id": model.model_id,
        "model_size_bytes": event.size,
        "model_uuid": model.model_id,
        "run_id": run_id,
        "utc_time_created": str(
            datetime.datetime.fromtimestamp(event.time, datetime.timezone.utc).replace(tzinfo=None)
        ),
    }
    inputs, outputs = event.signature.inputs, event.signature.outputs
    specs = [*inputs, *outputs]
    if all(_DTYPES.fullmatch(spec.dtype) for spec in specs):
        config["signature"] = {"inputs": _encode(inputs), "outputs": _encode(outputs), "params": None}
    if len(specs) == 2 and not event.signature.takes_keywords:  # other models do not fit the interface of pyfunc
        config["flavors"]["python_function"] = {
            "config": {"device": None},
            "data": "data",
            "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
            "loader_module": "mlflow.pytorch",
            "python_version": platform.python_version(),
        }
    if (source / "input_example.json").is_file():
        example = json.loads((source / "input_example.json").read_bytes())
        _write(target / "serving_input_example.json", json.dumps(example))
        _write(target / "input_example.json", json.dumps(example["inputs"]))
        config["saved_input_example_info"] = {
            "artifact_path": "input_example.json",
            "serving_input_path": "serving_input_example.json",
            "type": "ndarray",
        }
    _write_environment(target, event.torch)
    _write(target / "MLmodel", _to_yaml(config))


def _write_environment(target: Path, torch: str) -> None:
    """Write the packages that load the model. The source code of the training is not required."""
    python = platform.python_version()
    # PyPI has no packages with a local version such as +cpu.
    requirements = [f"mlflow=={__version__}", f"torch=={torch.partition('+')[0]}", "numpy"]
    _write(target / "requirements.txt", "\n".join(requirements) + "\n")
    environment = {"python": python, "build_dependencies": ["pip"], "dependencies": ["-r requirements.txt"]}
    _write(target / "python_env.yaml", _to_yaml(environment))
    conda = {
        "name": "mlflow-env",
        "channels": ["conda-forge"],
        "dependencies": [f"python={python}", "pip", {"pip": requirements}],
    }
    _write(target / "conda.yaml", _to_yaml(conda))


def _encode(specs: list[TensorSpec]) -> str:
    """Encode tensors as MLflow does. It requires names only if there are several."""
    return json.dumps(
        [
            {"type": "tensor", "tensor-spec": {"dtype": spec.dtype, "shape": spec.shape}}
            | ({"name": spec.name} if len(specs) > 1 else {})
            for spec in specs
        ]
    )


def _to_yaml(value: object) -> str:
    return json.dumps(value, indent=2) + "\n"  # YAML contains JSON.


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
