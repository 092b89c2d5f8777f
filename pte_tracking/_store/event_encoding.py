"""Encoding of events as lines of JSON.

JSON has no NaN and no infinities, so non-finite values of :class:`Metrics` and :class:`Checkpoint` are stored as the
strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"`` and decoded to floats.
"""

from __future__ import annotations

import math

import msgspec

from pte_tracking._store.events import AnyEvent, Checkpoint, Event, Metrics, StoredNumber

_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(AnyEvent)
_WITH_NUMBERS = (Metrics, Checkpoint)


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


def _encode_number(value: StoredNumber) -> StoredNumber:
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
