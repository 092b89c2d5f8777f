"""Tags in which MLflow displays the origin of a run."""

from __future__ import annotations

from pte_backends._provenance import read_provenance_file
from pte_tracking.sinks import Provenance, RunView

MAX_TAG_LENGTH = 8000
_GIT_TAGS = {
    "mlflow.source.git.commit": "git_commit",
    "mlflow.source.git.branch": "git_branch",
    "mlflow.source.git.repoURL": "git_remote",
    "mlflow.source.git.dirty": "git_dirty",
}
_CONTEXT_TAGS = {"mlflow.user": "user", "mlflow.source.name": "source"} | _GIT_TAGS


def origin_tags(run: RunView) -> dict[str, str]:
    """Return the tags for the origin of the first start.

    Args:
        run: Run to deliver.

    Returns:
        The tags for the user, the source file, and the Git repository, as far as known.
    """
    tags = {tag: run.context[key] for tag, key in _CONTEXT_TAGS.items() if key in run.context}
    return {"mlflow.source.type": "LOCAL"} | tags


def provenance_tags(event: Provenance, run: RunView) -> dict[str, str]:
    """Return the tags for the Git repository of a session.

    The user and the source of the first start stay. A run that the script started may have those of a notebook.

    Args:
        event: Origin of the session.
        run: Run to deliver.

    Returns:
        The tags, including those of an earlier session that this one changes. The diff is a tag if it is short enough.
    """
    tags = {tag: event.values[key] for tag, key in _GIT_TAGS.items() if key in event.values}
    if "git_dirty" in event.values:
        diff = read_provenance_file(event, run, "diff.txt")
        tags["mlflow.source.git.diff"] = diff if len(diff) <= MAX_TAG_LENGTH else "See the artifact diff.txt."
    return tags
