"""The command ``pte-tracking convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pte_tracking._cli.arguments import suggest_path
from pte_tracking._cli.rendering import echo, fail


def convert(
    snapshot: Annotated[
        Path, typer.Argument(metavar="SNAPSHOT", help="Directory of a sharded snapshot.", show_default=False)
    ],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File to write.", show_default=False)],
) -> None:
    """Convert a sharded snapshot to a single file.

    torch.load reads the file.
    """
    # The other commands do not import torch, which takes seconds.
    from pte_tracking._snapshots.errors import SnapshotError
    from pte_tracking._snapshots.file import write
    from pte_tracking._snapshots.shards import gather_shards

    if not snapshot.is_dir():
        reason = "a file does not need to be converted" if snapshot.exists() else "it does not exist"
        hint = "" if snapshot.exists() else suggest_path(snapshot)
        fail(f"{snapshot}: expected the directory of a sharded snapshot, but {reason}{hint}", 2)
    if file.exists():
        fail(f"{file} already exists. Choose another file name.", 2)
    try:
        digest = write(file, gather_shards(snapshot))
    except (SnapshotError, OSError) as error:
        fail(str(error), 1)
    echo(f"{file}: {digest.size} bytes, SHA-256 {digest.sha256}")
