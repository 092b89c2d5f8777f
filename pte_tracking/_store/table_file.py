"""Reader of the files of tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec


class StoredTable(msgspec.Struct, frozen=True):
    """Content of the file of a :class:`Table` event.

    Attributes:
        columns: Names of the columns.
        data: Rows, with one cell per column. A cell is any JSON value.
    """

    columns: list[str]
    data: list[list[Any]]


def read_table(path: Path) -> StoredTable:
    """Read the file of a table.

    Args:
        path: Path of the file.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it does not contain a table.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from pte_tracking.sinks import read_table
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     path = Path(directory, "table.json")
        ...     _ = path.write_text('{"columns":["label","count"],"data":[["cat",2]]}')
        ...     read_table(path)
        StoredTable(columns=['label', 'count'], data=[['cat', 2]])
    """
    try:
        table = msgspec.json.decode(path.read_bytes(), type=StoredTable)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not the file of a table: {error}") from error
    if any(len(row) != len(table.columns) for row in table.data):
        raise ValueError(f"{path} is not the file of a table: a row does not have {len(table.columns)} cells")
    return table
