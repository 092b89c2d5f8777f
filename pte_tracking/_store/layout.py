"""What lies where in a run's directory."""

from __future__ import annotations

from pathlib import PurePosixPath

from pte_tracking._store.values import check_key

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
CONTROL = "delivery/control.json"
CONTROL_LOCK = "delivery/control.json.lock"

#: What nothing else in the directory may be called.
RESERVED_NAMES = frozenset(
    {MANIFEST, JOURNAL, CHECKPOINTS, WRITER_LOCK, PREVIOUS, FIGURES, IMAGES, ARTIFACTS, DELIVERY}
)


def check_file_name(name: object, argument: str) -> str:
    """The name itself, if a file of that name may lie in a run's directory beside what is there already.

    Raises:
        TypeError: It is not a string.
        ValueError: It leads out of the directory, or is a name of ours.
    """
    path = PurePosixPath(check_key(name, argument))
    leads_out = path.is_absolute() or not path.name or ".." in path.parts
    if leads_out or path.as_posix() != name or path.parts[0] in RESERVED_NAMES or "\0" in path.as_posix():
        raise ValueError(
            f"{argument}: expected a relative path such as 'log' or 'val/log', "
            f"and none of {', '.join(sorted(RESERVED_NAMES))}; got {name!r}"
        )
    return path.as_posix()
