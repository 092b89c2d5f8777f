"""From the events of a run to the records of its event file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from tensorboard.compat.proto import event_pb2, summary_pb2

from pte_backends.tensorboard import _values
from pte_backends.tensorboard._custom_scalars import charts, layout, subject
from pte_backends.tensorboard._records import record
from pte_tracking.sinks import (
    AnyEvent,
    Dataset,
    Figure,
    Histogram,
    Image,
    Metrics,
    Params,
    RejectedEventError,
    RunView,
    Scalar,
    Text,
)

_MOST_CHARTED = 1000  # tags; a page with more charts is of no use, and the memory is saved after each batch


class Memory(msgspec.Struct):
    """What the translation of an event depends on besides the event; saved with the position.

    Attributes:
        seq: The last event that was translated.
        time: When it happened.
        params: The hyperparameters so far.
        params_seq: The event that the last of them came from.
        is_shown: Whether the file shows hyperparameters; readers take notice of the first ones in a file alone.
        is_stale: Whether there is something that only a new file can show.
        charted: The tags that may share a chart, with the events that they first came in.
        epoch_step: The last step that an epoch was shown at.
        has_layout: Whether the Custom Scalars page was ever laid out.
        hollow: The tags of figures and pictures that lost all their points.
        latest: The step and event of the last figure, picture or text of each key.
        replaced: The events whose figure, picture or text was replaced by one of the same key and step, each with it.
    """

    seq: int = 0
    time: float = 0.0
    params: dict[str, Scalar] = {}
    params_seq: int = 0
    is_shown: bool = False
    is_stale: bool = False
    charted: dict[str, int] = {}
    epoch_step: int = -1
    has_layout: bool = False
    hollow: list[str] = []
    latest: dict[str, tuple[int, int]] = {}
    replaced: list[tuple[int, int]] = []


class Translation:
    """Translates event after event.

    Args:
        run: The run.
        memory: What is known from earlier events.
    """

    def __init__(self, run: RunView, memory: Memory) -> None:
        self.memory = memory
        self._run = run

    def begin(self, vanished: Mapping[str, str]) -> bytes:
        """The first records of a new file, which shows everything as it is now.

        Readers that have read an earlier file of the run forget what they know at the SessionLog.START of step
        0: all of it in TensorBoard's own reader, where the very first START counts for nothing, and in the
        class EventAccumulator; but in TensorBoard's data server only tag by tag, as points of earlier or equal
        steps come.

        Args:
            vanished: Tags that have lost all their points, each with the plugin that shows it.
        """
        start = self._event(session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))
        events = [self._event(file_version="brain.Event:2"), start]
        if vanished:
            nothing = [value for tag, plugin in vanished.items() for value in _values.nothing(tag, plugin)]
            events += [self._event(summary=summary_pb2.Summary(value=nothing)), start]
        memory = self.memory
        emptied = {tag for tag, plugin in vanished.items() if plugin == _values.IMAGES}
        memory.hollow = sorted(emptied.union(memory.hollow))
        memory.has_layout |= _values.LAYOUTS in vanished.values()
        # TensorBoard's own reader fails on pictures and layouts that it has seen and that are there no more.
        shown = [_values.no_images(tag) for tag in memory.hollow]
        if memory.has_layout:
            shown.append(layout(memory.charted))
        if memory.params:
            shown.append(_values.session_start(self._run, memory.params))
        if shown:
            events.append(self._event(summary=summary_pb2.Summary(value=shown)))
        memory.is_shown, memory.is_stale = bool(memory.params), bool(vanished)
        return b"".join(map(record, events))

    def end(self, succeeded: bool) -> bytes:
        """The record of the run's end."""
        value = _values.session_end(succeeded, self.memory.time)
        return record(_summary(self.memory.time, 0, value))

    def translate(self, event: AnyEvent) -> bytes:
        """The record of an event; empty if there is nothing to show.

        Raises:
            RejectedEventError: A picture's file is missing or damaged.
        """
        self.memory.seq, self.memory.time = event.seq, event.time
        if isinstance(event, Metrics):
            return self._metrics(event)
        if isinstance(event, Params):
            return self._params(event)
        if isinstance(event, Histogram):
            return record(_summary(event.time, event.step, _values.histogram(event)), event.seq)
        if isinstance(event, Dataset):
            event = _values.note(event)
        if isinstance(event, Figure | Image | Text):
            value = _values.text(event) if isinstance(event, Text) else self._image(event)
            self._replace_earlier(event)
            return record(_summary(event.time, event.step, value), event.seq)
        return b""

    def cut(self, seq: int, epoch_step: int) -> None:
        """Forget what came after an event.

        Args:
            seq: The event.
            epoch_step: The last step up to there that an epoch was shown at.
        """
        memory = self.memory
        if memory.params_seq > seq:
            memory.params, memory.params_seq = {}, 0
            for event in self._run.history(seq):
                if isinstance(event, Params):
                    memory.params |= event.values
                    memory.params_seq = event.seq
            memory.is_stale = memory.is_shown
        memory.charted = {tag: first for tag, first in memory.charted.items() if first <= seq}
        memory.latest = {key: (at, last) for key, (at, last) in memory.latest.items() if last <= seq}
        memory.replaced = [(old, new) for old, new in memory.replaced if new <= seq]
        memory.epoch_step = epoch_step
        memory.seq = min(memory.seq, seq)

    def _metrics(self, event: Metrics) -> bytes:
        message = event_pb2.Event(wall_time=event.time, step=event.step)
        add = message.summary.value.add
        for key, value in event.values.items():
            add(tag=key, simple_value=value)
        memory = self.memory
        if event.epoch is not None and event.step > memory.epoch_step and _values.EPOCH not in event.values:
            add(tag=_values.EPOCH, simple_value=event.epoch)
            memory.epoch_step = event.step
        if self._chart(event):
            message.summary.value.append(layout(memory.charted))
            memory.has_layout = True
        return record(message, event.seq)

    def _chart(self, event: Metrics) -> bool:
        """Whether the event brings tags that make the layout another one."""
        charted = self.memory.charted
        new = [tag for tag in event.values if subject(tag) and tag not in charted]
        if not new or len(charted) + len(new) > _MOST_CHARTED:
            return False
        charted.update(dict.fromkeys(new, event.seq))
        return any(tag in members for members in charts(charted).values() for tag in new)

    def _params(self, event: Params) -> bytes:
        memory = self.memory
        before, memory.params, memory.params_seq = memory.params, memory.params | event.values, event.seq
        if memory.is_shown:
            memory.is_stale = memory.is_stale or memory.params != before
            return b""
        memory.is_shown = True
        value = _values.session_start(self._run, memory.params)
        return record(_summary(event.time, 0, value))

    def _image(self, event: Figure | Image) -> Any:
        try:
            return _values.image(event.key, self._run.directory / event.path)
        except (OSError, ValueError) as error:
            raise RejectedEventError(event.seq, str(error)) from error

    def _replace_earlier(self, event: Figure | Image | Text) -> None:
        step, seq = self.memory.latest.get(event.key, (-1, 0))
        if step == event.step:
            self.memory.replaced.append((seq, event.seq))
            self.memory.is_stale = True
        self.memory.latest[event.key] = event.step, event.seq

    def _event(self, **fields: Any) -> Any:
        return event_pb2.Event(wall_time=self._run.start_time, **fields)


def _summary(time: float, step: int, value: Any) -> Any:
    return event_pb2.Event(wall_time=time, step=step, summary=summary_pb2.Summary(value=[value]))
