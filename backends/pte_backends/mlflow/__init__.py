"""MLflow: a run with its metrics, params, tags, pictures and artifacts, and its snapshots as logged models."""

from pte_backends.mlflow._sink import MLflowSink

__all__ = ["MLflowSink"]
