"""MLflow backend.

The sink delivers metrics, parameters, tags, figures and artifacts to an MLflow run, and snapshots as logged models.
"""

from pte_backends.mlflow._sink import MLflowSink

__all__ = ["MLflowSink"]
