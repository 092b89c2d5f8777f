"""Conversion of tables to JSON."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from pte_tracking._runs.media import to_host
from pte_tracking._store.secrets import mask_secrets
from pte_tracking._store.values import to_text

MAX_ROWS = 10_000
_MAX_CELL_ELEMENTS = 1000
_MAX_DEPTH = 8  # of lists in lists; deeper values become texts
_INT64 = range(-(2**63), 2**63)  # Readers, such as pandas, refuse larger integers.


class EncodedTable(NamedTuple):
    """Table as JSON.

    Attributes:
        json: Object with the names ``columns`` and the rows ``data``.
        note: Description of rows that are left out. None if the table is complete.
    """

    json: bytes
    note: str | None = None


def encode_table(table: Any, name: str) -> EncodedTable:
    """Encode the first rows of a table.

    Args:
        table: Data frame of pandas or polars, table of pyarrow, list of mappings, or mapping from names to columns.
        name: Name of the table in messages.

    Raises:
        TypeError: If it is no table.
        ValueError: If the columns differ in length, or a cell is a large array.
    """
    columns, rows, count = _read(table, name)
    data = [[_to_plain(cell, name) for cell in row] for row in itertools.islice(rows, MAX_ROWS)]
    names = _make_unique(mask_secrets(to_text(str(column))) for column in columns)
    note = f"only the first {MAX_ROWS:,} of {count:,} rows are stored" if count > MAX_ROWS else None
    return EncodedTable(msgspec.json.encode({"columns": names, "data": data}), note)


def _make_unique(names: Iterable[str]) -> list[str]:
    """Number the repetitions of a name, since backends keep one column per name."""
    unique: dict[str, None] = {}
    for name in names:
        candidates = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
        unique[next(candidate for candidate in candidates if candidate not in unique)] = None
    return list(unique)


def _read(table: Any, name: str) -> tuple[Sequence[Any], Iterable[Iterable[Any]], int]:
    """Return the names of the columns, the rows, and their number."""
    if hasattr(table, "itertuples") and hasattr(table, "iloc"):  # pandas
        return list(table.columns), table.iloc[:MAX_ROWS].itertuples(index=False, name=None), len(table)
    if hasattr(table, "iter_rows"):  # polars
        return table.columns, table.head(MAX_ROWS).iter_rows(), len(table)
    if hasattr(table, "column_names") and hasattr(table, "to_pylist"):  # pyarrow
        columns = [column.to_pylist() for column in table.slice(0, MAX_ROWS).columns]
        return table.column_names, zip(*columns, strict=True), table.num_rows
    if isinstance(table, Mapping):
        return _read_columns(table, name)
    if isinstance(table, list | tuple) and all(isinstance(row, Mapping) for row in table):
        names = list(dict.fromkeys(column for row in table for column in row))
        return names, ([row.get(column) for column in names] for row in table), len(table)
    advice = " Call collect() first." if hasattr(table, "collect") else ""
    raise TypeError(
        f"{name}: expected a data frame of pandas or polars, a pyarrow Table, a list of dicts, or a dict of columns, "
        f"got {_describe(table)}.{advice}"
    )


def _read_columns(table: Mapping[Any, Any], name: str) -> tuple[Sequence[Any], Iterable[Iterable[Any]], int]:
    columns, lengths = [], {}
    for key, column in table.items():
        try:
            if isinstance(column, str | bytes | Mapping):
                raise TypeError
            lengths[str(key)] = len(column)
            values = to_host(column)[:MAX_ROWS]
        except (TypeError, IndexError):  # no sequence, or an array without dimensions
            raise TypeError(
                f"{name}: expected a list or array of cells for the column {key!r}, got {_describe(column)}"
            ) from None
        # Times of NumPy are kept as they are, because tolist() may return a number of nanoseconds.
        is_array = getattr(getattr(values, "dtype", None), "kind", "") in ("b", "i", "u", "f", "O", "U")
        columns.append(values.tolist() if is_array else values)
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{name}: expected columns of one length, got the lengths {lengths}")
    return list(table), zip(*columns, strict=True), max(lengths.values(), default=0)


def _describe(value: Any) -> str:
    kinds = sorted({type(item).__name__ for item in value}) if isinstance(value, list | tuple) else []
    return (
        f"{type(value).__name__} of {', '.join(kinds)}" if kinds else f"{value!r:.100} of type {type(value).__name__}"
    )


def _to_plain(value: Any, name: str, depth: int = 0) -> Any:
    """Convert a cell to a value of JSON."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return mask_secrets(to_text(value))
    if isinstance(value, int):
        return int(value) if value in _INT64 else str(int(value))
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else _NON_FINITE.get(float(value))
    if depth < _MAX_DEPTH:
        if isinstance(value, Mapping):
            return {to_text(str(key)): _to_plain(item, name, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [_to_plain(item, name, depth + 1) for item in value]
        if getattr(getattr(value, "dtype", None), "kind", None) not in ("M", "m") and hasattr(value, "tolist"):
            return _to_plain(_to_list(value, name), name, depth + 1)
    text = value.isoformat() if hasattr(value, "isoformat") else str(value)
    return None if text in _MISSING else mask_secrets(to_text(text))


_NON_FINITE = {math.inf: "Infinity", -math.inf: "-Infinity"}  # NaN is null
_MISSING = ("NaT", "<NA>")  # of NumPy and pandas


def _to_list(array: Any, name: str) -> Any:
    host = to_host(array)
    if getattr(host, "size", 0) > _MAX_CELL_ELEMENTS:
        raise ValueError(
            f"{name}: a cell contains an array of {host.size:,} elements, at most {_MAX_CELL_ELEMENTS:,} are allowed. "
            "Log pictures with log_image() and arrays with log_artifact()."
        )
    return host.tolist()
