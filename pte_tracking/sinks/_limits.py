"""Limits of backends, declared as data."""

from __future__ import annotations

import dataclasses
import re
import sys

#: Limit that is never reached.
UNLIMITED = sys.maxsize


@dataclasses.dataclass(frozen=True)
class Limits:
    r"""Limits of a backend.

    The core maps keys and splits batches accordingly before a sink receives events.

    Attributes:
        key_characters: Regular expression that matches one allowed character of a key. Defaults to None: all characters
            are allowed.
        key_length: Maximum number of characters in a key. Defaults to None: unlimited.
        key_is_path: Whether keys must be normalized POSIX paths: relative, without empty, ``.`` or ``..`` parts.
            Defaults to False.
        key_is_file: Whether no key can be a directory of another one, because each is the name of a file. Defaults to
            False.
        batch_values: Maximum number of metric values in one batch. A row with more values is split. Defaults to 1000.
            Use :data:`UNLIMITED` for no limit.
        batch_events: Maximum number of events in one batch. Defaults to 1000.
        separate_logs: Whether the backend stores the rows of each log separately, and not data points. If False (the
            default), a key that several logs report at the same step is delivered once, and a value that is measured
            within the interval of a row is delivered at its own step. If True, rows contain its mean instead.
        shared_names: Kinds of events that the backend stores under one set of names: ``"metric"``, ``"figure"``,
            ``"image"``, ``"histogram"``, ``"text"``, ``"table"``, ``"html"``, ``"audio"``, ``"video"`` or
            ``"dataset"``. The kind that is delivered first keeps a name. An event of another kind is renamed: a figure
            ``loss`` becomes ``loss/figure``. The name of a dataset is ``dataset/<context>/<name>``. Defaults to (): a
            name may have several kinds.
        reserved_names: Names that the backend itself uses. Events of the kinds in ``shared_names`` are renamed in the
            same way. Defaults to an empty set.

    Example:
        >>> import re
        >>> from pte_tracking.sinks import Limits
        >>> limits = Limits(key_characters=re.compile(r"[\w./-]"), key_length=250)
        >>> limits.batch_values
        1000
    """

    key_characters: re.Pattern[str] | None = None
    key_length: int | None = None
    key_is_path: bool = False
    key_is_file: bool = False
    batch_values: int = 1000
    batch_events: int = 1000
    separate_logs: bool = False
    shared_names: tuple[str, ...] = ()
    reserved_names: frozenset[str] = frozenset()
