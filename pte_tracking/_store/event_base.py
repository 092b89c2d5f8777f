"""Base class and field types of the events."""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeAlias

import msgspec

Number: TypeAlias = int | float
Scalar: TypeAlias = str | int | float | bool | None
Status: TypeAlias = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]

#: Signed 64-bit integer.
Int64: TypeAlias = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]

#: Number as stored in the journal. Non-finite numbers are strings.
StoredNumber: TypeAlias = Int64 | float | str

#: Path relative to the run directory. The pattern keeps paths of a foreign journal within that directory.
RelativePath: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"\A(?!/)(?!(.*/)?\.\.(/|\Z))[^\0]+\Z")]

#: Directory in which backends show an artifact. Empty for the top level.
SubdirectoryPath: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"\A(?!/)(?!(.*/)?\.\.(/|\Z))[^\0]*\Z")]


def _kind(class_name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", class_name).lower()


class Event(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag=_kind):
    """Base class of all events.

    Attributes:
        seq: Sequence number in the journal: 1, 2, 3, ... without gaps. Samples of system metrics, which are not in the
            journal, have negative numbers.
        time: Time of the event in seconds since the Unix epoch. The time never changes, so a redelivered event yields
            an identical data point.
    """

    seq: Int64
    time: float
