"""From the events of a run to the records of its event file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from tensorboard.compat.proto import event_pb2, summary_pb2

from pte_backends.tensorboard import _values
from pte_backends.tensorboard._custom_scalars import build_layout, get_subject, group_tags
from pte_backends.tensorboard._records import encode_record
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

_MAX_CHARTED_TAGS = 1000  # tags; a page with more charts is of no use, and the memory is saved after each batch


class SummaryBuilderState(msgspec.Struct):
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
    wall_time: float = 0.0
    params: dict[str, Scalar] = {}
    params_seq: int = 0
    has_hparams: bool = False
    is_stale: bool = False
    charted_tags: dict[str, int] = {}
    epoch_step: int = -1
    has_layout: bool = False
    emptied_image_tags: list[str] = []
    latest_media: dict[str, tuple[int, int]] = {}
    replaced_media: list[tuple[int, int]] = []


class SummaryBuilder:
    """Translates event after event.

    Args:
        run: The run.
        memory: What is known from earlier events.
    """

    def __init__(self, run: RunView, state: SummaryBuilderState) -> None:
        self.state = state
        self._run = run

    def build_header(self, cleared_tags: Mapping[str, str]) -> bytes:
        """The first records of a new file, which shows everything as it is now.

        Readers that have read an earlier file of the run forget what they know at the SessionLog.START of step
        0: all of it in TensorBoard's own reader, where the very first START counts for nothing, and in the
        class EventAccumulator; but in TensorBoard's data server only tag by tag, as points of earlier or equal
        steps come.

        Args:
            vanished: Tags that have lost all their points, each with the plugin that shows it.
        """
        start = self._build_event(session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))
        events = [self._build_event(file_version="brain.Event:2"), start]
        if cleared_tags:
            clearing_values = [
                value for tag, plugin in cleared_tags.items() for value in _values.build_clearing_values(tag, plugin)
            ]
            events += [self._build_event(summary=summary_pb2.Summary(value=clearing_values)), start]
        state = self.state
        emptied = {tag for tag, plugin in cleared_tags.items() if plugin == _values.IMAGES}
        state.emptied_image_tags = sorted(emptied.union(state.emptied_image_tags))
        state.has_layout |= _values.LAYOUTS in cleared_tags.values()
        # TensorBoard's own reader fails on pictures and layouts that it has seen and that are there no more.
        values = [_values.build_empty_images(tag) for tag in state.emptied_image_tags]
        if state.has_layout:
            values.append(build_layout(state.charted_tags))
        if state.params:
            values.append(_values.build_session_start(self._run, state.params))
        if values:
            events.append(self._build_event(summary=summary_pb2.Summary(value=values)))
        state.has_hparams, state.is_stale = bool(state.params), bool(cleared_tags)
        return b"".join(map(encode_record, events))

    def build_end(self, succeeded: bool) -> bytes:
        """The record of the run's end."""
        value = _values.build_session_end(succeeded, self.state.wall_time)
        return encode_record(_build_summary_event(self.state.wall_time, 0, value))

    def build(self, event: AnyEvent) -> bytes:
        """The record of an event; empty if there is nothing to show.

        Raises:
            RejectedEventError: A picture's file is missing or damaged.
        """
        self.state.seq, self.state.wall_time = event.seq, event.time
        if isinstance(event, Metrics):
            return self._build_metrics(event)
        if isinstance(event, Params):
            return self._build_params(event)
        if isinstance(event, Histogram):
            return encode_record(
                _build_summary_event(event.time, event.step, _values.build_histogram(event)), event.seq
            )
        if isinstance(event, Dataset):
            event = _values.convert_dataset(event)
        if isinstance(event, Figure | Image | Text):
            value = _values.build_text(event) if isinstance(event, Text) else self._build_image(event)
            self._replace_earlier(event)
            return encode_record(_build_summary_event(event.time, event.step, value), event.seq)
        return b""

    def rewind(self, seq: int, epoch_step: int) -> None:
        """Forget what came after an event.

        Args:
            seq: The event.
            epoch_step: The last step up to there that an epoch was shown at.
        """
        state = self.state
        if state.params_seq > seq:
            state.params, state.params_seq = {}, 0
            for event in self._run.history(seq):
                if isinstance(event, Params):
                    state.params |= event.values
                    state.params_seq = event.seq
            state.is_stale = state.has_hparams
        state.charted_tags = {tag: first for tag, first in state.charted_tags.items() if first <= seq}
        state.latest_media = {
            key: (step, media_seq) for key, (step, media_seq) in state.latest_media.items() if media_seq <= seq
        }
        state.replaced_media = [(old, new) for old, new in state.replaced_media if new <= seq]
        state.epoch_step = epoch_step
        state.seq = min(state.seq, seq)

    def _build_metrics(self, event: Metrics) -> bytes:
        message = event_pb2.Event(wall_time=event.time, step=event.step)
        add_value = message.summary.value.add
        for key, value in event.values.items():
            add_value(tag=key, simple_value=value)
        state = self.state
        if event.epoch is not None and event.step > state.epoch_step and _values.EPOCH not in event.values:
            add_value(tag=_values.EPOCH, simple_value=event.epoch)
            state.epoch_step = event.step
        if self._add_charted_tags(event):
            message.summary.value.append(build_layout(state.charted_tags))
            state.has_layout = True
        return encode_record(message, event.seq)

    def _add_charted_tags(self, event: Metrics) -> bool:
        """Whether the event brings tags that make the layout another one."""
        charted_tags = self.state.charted_tags
        new_tags = [tag for tag in event.values if get_subject(tag) and tag not in charted_tags]
        if not new_tags or len(charted_tags) + len(new_tags) > _MAX_CHARTED_TAGS:
            return False
        charted_tags.update(dict.fromkeys(new_tags, event.seq))
        return any(tag in members for members in group_tags(charted_tags).values() for tag in new_tags)

    def _build_params(self, event: Params) -> bytes:
        state = self.state
        previous, state.params, state.params_seq = state.params, state.params | event.values, event.seq
        if state.has_hparams:
            state.is_stale = state.is_stale or state.params != previous
            return b""
        state.has_hparams = True
        value = _values.build_session_start(self._run, state.params)
        return encode_record(_build_summary_event(event.time, 0, value))

    def _build_image(self, event: Figure | Image) -> Any:
        try:
            return _values.build_image(event.key, self._run.directory / event.path)
        except (OSError, ValueError) as error:
            raise RejectedEventError(event.seq, str(error)) from error

    def _replace_earlier(self, event: Figure | Image | Text) -> None:
        step, seq = self.state.latest_media.get(event.key, (-1, 0))
        if step == event.step:
            self.state.replaced_media.append((seq, event.seq))
            self.state.is_stale = True
        self.state.latest_media[event.key] = event.step, event.seq

    def _build_event(self, **fields: Any) -> Any:
        return event_pb2.Event(wall_time=self._run.start_time, **fields)


def _build_summary_event(wall_time: float, step: int, value: Any) -> Any:
    return event_pb2.Event(wall_time=wall_time, step=step, summary=summary_pb2.Summary(value=[value]))
