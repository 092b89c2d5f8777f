"""Pointer to the newest run at a mirror."""

from __future__ import annotations

from typing import Annotated

import msgspec

from pte_backends.mirror._store import Store

_NAME = "latest.json"


class Pointer(msgspec.Struct, frozen=True):
    """Content of ``latest.json``.

    Attributes:
        run: ID of the newest run.
        time: Time of its last start in seconds since the Unix epoch.
    """

    run: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]
    time: float


def read_pointer(store: Store) -> Pointer | None:
    """Return the pointer. None if the mirror is empty.

    Raises:
        ValueError: If the pointer is damaged.
    """
    content = store.read(_NAME)
    try:
        return None if content is None else msgspec.json.decode(content, type=Pointer)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(
            f"{store.url}/{_NAME}: damaged: {error}. Pass the URL of a run, {store.url}/<run ID>."
        ) from error


def update_pointer(store: Store, pointer: Pointer) -> None:
    """Write the pointer unless it names a run that started later."""
    try:
        current = read_pointer(store)
    except ValueError:
        current = None
    if current is None or current.time <= pointer.time:
        store.write(_NAME, msgspec.json.encode(pointer))
