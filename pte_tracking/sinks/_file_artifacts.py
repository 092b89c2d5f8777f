"""Files of events as artifacts."""

from __future__ import annotations

from pathlib import PurePosixPath

from pte_tracking._store.events import Artifact, MediaFile


def to_artifact(event: MediaFile) -> Artifact:
    """Return the file of an event as an artifact in the directory of the file.

    A backend uses it for the formats that it cannot show. The core uses it for the kinds that a sink does not declare.

    Args:
        event: Event with a file.

    Example:
        >>> from pte_tracking.sinks import Video, to_artifact
        >>> artifact = to_artifact(Video(seq=1, time=0.0, key="clip", step=2, path="media/video/clip/step_2.mp4"))
        >>> artifact.path, artifact.artifact_path
        ('media/video/clip/step_2.mp4', 'media/video/clip')
    """
    directory = PurePosixPath(event.path).parent.as_posix()
    return Artifact(event.seq, event.time, event.path, "" if directory == "." else directory)
