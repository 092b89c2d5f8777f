"""What lies where in a run's directory."""

from __future__ import annotations

MANIFEST = "run.json"
JOURNAL = "journal.jsonl"
CHECKPOINTS = "checkpoints.json"
WRITER_LOCK = ".lock"
PREVIOUS = "previous"

FIGURES = "figures"
IMAGES = "images"
ARTIFACTS = "artifacts"

DELIVERY = "delivery"
DELIVERY_LOCK = "delivery/lock"
DELIVERY_LOG = "delivery/log.txt"
MANIFEST_LOCK = "delivery/run.json.lock"
WAKE = "delivery/wake"
