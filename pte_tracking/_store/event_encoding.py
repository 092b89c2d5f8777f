"""Encoding of events as lines of JSON.

JSON has no NaN and no infinities, so non-finite values of :class:`Metrics` and :class:`Checkpoint` are stored as the
strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"`` and decoded to floats.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, get_args

import msgspec

from pte_tracking._store.events import AnyEvent, Checkpoint, Event, Metrics, StoredNumber

_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(AnyEvent)
_WITH_NUMBERS = (Metrics, Checkpoint)
_KINDS = [kind.__struct_config__.tag for kind in get_args(AnyEvent)]
_KIND_NAME = re.compile(r"[a-z][a-z_]{0,63}")


class EventHeader(msgspec.Struct):
    """Fields of every event, also of those of a newer version.

    Attributes:
        kind: Kind of the event.
        time: Time of the event in seconds since the Unix epoch.
        seq: Sequence number in the journal.
    """

    kind: str
    time: float
    seq: Annotated[int, msgspec.Meta(gt=0, le=2**63 - 1)]


decode_header = msgspec.json.Decoder(EventHeader).decode


def encode(event: Event) -> bytes:
    """Return an event as one line of JSON, including the newline."""
    # msgspec writes non-finite numbers as null. They are rare, and the sum shows quickly that there are none.
    if isinstance(event, _WITH_NUMBERS) and not math.isfinite(sum(event.values.values())):  # type: ignore[arg-type]
        encoded = {key: _encode_number(value) for key, value in event.values.items()}
        event = msgspec.structs.replace(event, values=encoded)
    return _encode(event) + b"\n"


def decode(line: bytes) -> AnyEvent:
    """Return the event of one line.

    Raises:
        msgspec.DecodeError: If the line is not JSON or not an event of this version.
        ValueError: If a number is malformed or the JSON is nested too deeply.
    """
    try:
        event: AnyEvent = _decoder.decode(line)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if isinstance(event, Metrics | Checkpoint) and str in map(type, event.values.values()):
        numbers = {key: float(value) if type(value) is str else value for key, value in event.values.items()}
        return msgspec.structs.replace(event, values=numbers)
    return event


def decode_newer(line: bytes) -> EventHeader | None:
    """Return the header of an event of a kind that a newer version has introduced, or None for any other line.

    A name that differs from a known kind in a single character is damage, such as one flipped bit.
    """
    try:
        header = decode_header(line)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return None
    is_new = _KIND_NAME.fullmatch(header.kind) and all(_count_differences(header.kind, kind) > 1 for kind in _KINDS)
    return header if is_new else None


def _count_differences(first: str, second: str) -> int:
    if len(first) != len(second):
        return max(len(first), len(second))
    return sum(a != b for a, b in zip(first, second, strict=True))


def _encode_number(value: StoredNumber) -> StoredNumber:
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
