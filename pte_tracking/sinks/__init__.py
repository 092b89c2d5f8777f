"""Public interface for tracking backends.

A backend imports only this package of pte_tracking. The package contains the sink contract, the events that a sink
receives, and helpers that read a run directory.
"""

from __future__ import annotations

from pte_tracking._platform.files import read_at, replace_file, sync_directory, write_at
from pte_tracking._platform.locks import locked_directory
from pte_tracking._store.checkpoint_files import checkpoint_digest, delete_checkpoint, verify_digest
from pte_tracking._store.checkpoints import list_checkpoints
from pte_tracking._store.conditions import Condition
from pte_tracking._store.effective_files import list_models
from pte_tracking._store.events import (
    AnyEvent,
    Artifact,
    Audio,
    Checkpoint,
    CheckpointRemoved,
    Dataset,
    Figure,
    FirstBatch,
    Histogram,
    Html,
    Image,
    MediaFile,
    Metrics,
    Model,
    Number,
    Params,
    Provenance,
    Rewound,
    RunEnded,
    RunStarted,
    Scalar,
    Status,
    Table,
    Tags,
    Text,
    Video,
)
from pte_tracking._store.files import file_md5, safe_file_name
from pte_tracking._store.interpreter import python_command
from pte_tracking._store.journal_reader import find_events, read_effective
from pte_tracking._store.layout import JOURNAL, PREVIOUS, check_file_name
from pte_tracking._store.model_event import BestMetric, ModelSignature, TensorSpec
from pte_tracking._store.owned_files import (
    check_unchanged,
    list_owned_files,
    make_owned_directory,
    open_owned,
    owned_path,
)
from pte_tracking._store.samples import is_sample_file
from pte_tracking._store.table_file import StoredTable, read_table
from pte_tracking.sinks._connection import Connection, PolledConnection, RunView
from pte_tracking.sinks._contract import Location, Sink
from pte_tracking.sinks._errors import PostponedEventsError, RejectedEventError, SinkClosedError
from pte_tracking.sinks._file_artifacts import to_artifact
from pte_tracking.sinks._keys import map_key
from pte_tracking.sinks._kinds import FILE_KINDS, Display, EventKind, find_display
from pte_tracking.sinks._limits import UNLIMITED, Limits
from pte_tracking.sinks._registry import ENTRY_POINT_GROUP, check_client, get_sink, installed_sinks, load_sinks

__all__ = [
    "ENTRY_POINT_GROUP",
    "FILE_KINDS",
    "JOURNAL",
    "PREVIOUS",
    "UNLIMITED",
    "AnyEvent",
    "Artifact",
    "Audio",
    "BestMetric",
    "Checkpoint",
    "CheckpointRemoved",
    "Condition",
    "Connection",
    "Dataset",
    "Display",
    "EventKind",
    "Figure",
    "FirstBatch",
    "Histogram",
    "Html",
    "Image",
    "Limits",
    "Location",
    "MediaFile",
    "Metrics",
    "Model",
    "ModelSignature",
    "Number",
    "Params",
    "PolledConnection",
    "PostponedEventsError",
    "Provenance",
    "RejectedEventError",
    "Rewound",
    "RunEnded",
    "RunStarted",
    "RunView",
    "Scalar",
    "Sink",
    "SinkClosedError",
    "Status",
    "StoredTable",
    "Table",
    "Tags",
    "TensorSpec",
    "Text",
    "Video",
    "check_client",
    "check_file_name",
    "check_unchanged",
    "checkpoint_digest",
    "delete_checkpoint",
    "file_md5",
    "find_display",
    "find_events",
    "get_sink",
    "installed_sinks",
    "is_sample_file",
    "list_checkpoints",
    "list_models",
    "list_owned_files",
    "load_sinks",
    "locked_directory",
    "make_owned_directory",
    "map_key",
    "open_owned",
    "owned_path",
    "python_command",
    "read_at",
    "read_effective",
    "read_table",
    "replace_file",
    "safe_file_name",
    "sync_directory",
    "to_artifact",
    "verify_digest",
    "write_at",
]
