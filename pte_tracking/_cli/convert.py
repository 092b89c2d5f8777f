"""``pte-tracking convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pte_tracking._cli.rendering import fail


def convert(
    snapshot: Annotated[Path, typer.Argument(help="The folder of a snapshot that lies in shards.", show_default=False)],
    file: Annotated[Path, typer.Argument(help="The file to write.", show_default=False)],
) -> None:
    """Make one file of a snapshot whose tensors lie in shards; torch.load reads it anywhere."""
    # Of all commands, this one alone needs torch.
    from pte_tracking._snapshots.errors import SnapshotError
    from pte_tracking._snapshots.file import write
    from pte_tracking._snapshots.shards import gather_shards

    if not snapshot.is_dir():
        fail(f"{snapshot}: expected the folder of a snapshot that lies in shards", 2)
    if file.exists():
        fail(f"{file}: it exists already; give another name", 2)
    try:
        digest = write(file, gather_shards(snapshot))
    except (SnapshotError, OSError) as error:
        fail(str(error), 1)
    typer.echo(f"{file}: {digest.size} bytes, SHA-256 {digest.sha256}")
