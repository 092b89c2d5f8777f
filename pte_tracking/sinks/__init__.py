"""Public interface for tracking backends.

A backend imports this package and nothing else of pte_tracking: the sink contract, the events that a sink receives, and
helpers to read a run directory.
"""

from __future__ import annotations

from pte_tracking._store.checkpoint_files import checkpoint_digest as checkpoint_digest
from pte_tracking._store.checkpoint_files import delete_checkpoint as delete_checkpoint
from pte_tracking._store.checkpoint_files import verify_digest as verify_digest
from pte_tracking._store.checkpoints import list_checkpoints as list_checkpoints
from pte_tracking._store.events import (
    AnyEvent,
    Artifact,
    Checkpoint,
    CheckpointRemoved,
    Dataset,
    Figure,
    Histogram,
    Image,
    Metrics,
    Number,
    Params,
    Rewound,
    RunEnded,
    RunStarted,
    Scalar,
    Status,
    Tags,
    Text,
)
from pte_tracking._store.files import file_md5 as file_md5
from pte_tracking._store.files import safe_file_name as safe_file_name
from pte_tracking._store.files import sync_directory
from pte_tracking._store.journal import find_events as find_events
from pte_tracking._store.journal import read_effective as read_effective
from pte_tracking._store.layout import JOURNAL, PREVIOUS
from pte_tracking._store.layout import check_file_name as check_file_name
from pte_tracking.sinks._contract import ANY_NUMBER, BadEvent, Connection, Limits, RunView, Sink, SinkClosed
from pte_tracking.sinks._keys import map_key
from pte_tracking.sinks._registry import ENTRY_POINT_GROUP
from pte_tracking.sinks._registry import find as get_sink
from pte_tracking.sinks._registry import names as installed_sinks

__all__ = [
    "ANY_NUMBER",
    "ENTRY_POINT_GROUP",
    "JOURNAL",
    "PREVIOUS",
    "AnyEvent",
    "Artifact",
    "BadEvent",
    "Checkpoint",
    "CheckpointRemoved",
    "Connection",
    "Dataset",
    "Figure",
    "Histogram",
    "Image",
    "Limits",
    "Metrics",
    "Number",
    "Params",
    "Rewound",
    "RunEnded",
    "RunStarted",
    "RunView",
    "Scalar",
    "Sink",
    "SinkClosed",
    "Status",
    "Tags",
    "Text",
    "check_file_name",
    "checkpoint_digest",
    "delete_checkpoint",
    "file_md5",
    "find_events",
    "get_sink",
    "installed_sinks",
    "list_checkpoints",
    "map_key",
    "read_effective",
    "safe_file_name",
    "sync_directory",
    "verify_digest",
]
