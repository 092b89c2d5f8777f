"""Conversion of events to records of an event file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from tensorboard.compat.proto import event_pb2, summary_pb2

from pte_backends.tensorboard import _media_values, _values
from pte_backends.tensorboard._custom_scalars import build_layout, get_subject, group_tags
from pte_backends.tensorboard._records import encode_record
from pte_tracking.sinks import (
    AnyEvent,
    Audio,
    Histogram,
    Html,
    MediaFile,
    Metrics,
    Params,
    RejectedEventError,
    RunView,
    Scalar,
    Table,
    Text,
    Video,
    owned_path,
)

#: A page with more charts is not usable, and the state is saved after each batch.
_MAX_CHARTED_TAGS = 1000


class SummaryBuilderState(msgspec.Struct):
    """Saved state of a summary builder.

    Attributes:
        seq: Sequence number of the last event that was converted.
        wall_time: Time of that event, in seconds since the epoch.
        params: Hyperparameters logged so far.
        params_seq: Sequence number of the last event with hyperparameters.
        has_hparams: Whether the file contains hyperparameters. Readers use only the first ones in a file.
        is_stale: Whether a change can be shown only by a new file.
        charted_tags: Tags that may share a chart, with the sequence number of their first event.
        epoch_step: Last step with an epoch.
        max_step: Highest step of an event.
        is_unordered: Whether the steps of a tag may go back in the file.
        has_layout: Whether a layout of the Custom Scalars page was ever written.
        emptied_image_tags: Tags of figures and images that lost all their points.
        cleared_tags: Tags that the first records of the file clear, and the plugin of each.
        latest_media: Step and sequence number of the last file or text of each key.
        replaced_media: Pairs of sequence numbers: a file or text, and a later one with the same key and step.
    """

    seq: int = 0
    wall_time: float = 0.0
    params: dict[str, Scalar] = {}
    params_seq: int = 0
    has_hparams: bool = False
    is_stale: bool = False
    charted_tags: dict[str, int] = {}
    epoch_step: int = -1
    max_step: int = -(2**63)
    is_unordered: bool = False
    has_layout: bool = False
    emptied_image_tags: list[str] = []
    cleared_tags: dict[str, str] = {}
    latest_media: dict[str, tuple[int, int]] = {}
    replaced_media: list[tuple[int, int]] = []


class SummaryBuilder:
    """Converter from events to records.

    Args:
        run: Run to deliver.
        state: State after the last converted event.

    Attributes:
        state: Current state.
    """

    def __init__(self, run: RunView, state: SummaryBuilderState) -> None:
        self.state = state
        self._run = run

    def build_header(self, cleared_tags: Mapping[str, str]) -> bytes:
        """Build the first records of a new file.

        The ``SessionLog.START`` at step 0 makes readers forget an earlier file of the run. TensorBoard's own reader and
        the class ``EventAccumulator`` forget everything, but TensorBoard's own reader ignores the first START.
        TensorBoard's data server forgets a tag only when a point with an earlier or equal step arrives for it.

        Args:
            cleared_tags: Tags that have lost all their points, and the plugin of each.

        Returns:
            The records.
        """
        start = self._build_event(session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))
        events = [self._build_event(file_version="brain.Event:2"), start]
        if cleared_tags:
            clearing_values = [
                value for tag, plugin in cleared_tags.items() for value in _values.build_clearing_values(tag, plugin)
            ]
            events += [self._build_event(summary=summary_pb2.Summary(value=clearing_values)), start]
        state = self.state
        state.cleared_tags = dict(cleared_tags)
        emptied = {tag for tag, plugin in cleared_tags.items() if plugin == _values.IMAGES}
        state.emptied_image_tags = sorted(emptied.union(state.emptied_image_tags))
        state.has_layout |= _values.LAYOUTS in cleared_tags.values()
        # TensorBoard's own reader fails if images or a layout that it has read are missing from the new file.
        values = [_values.build_empty_images(tag) for tag in state.emptied_image_tags]
        if state.has_layout:
            values.append(build_layout(state.charted_tags))
        if state.params:
            values.append(_values.build_session_start(self._run, state.params))
        if values:
            events.append(self._build_event(summary=summary_pb2.Summary(value=values)))
        state.has_hparams, state.is_stale = bool(state.params), bool(cleared_tags)
        return b"".join(map(encode_record, events))

    def release_tags(self, events: Iterable[AnyEvent]) -> bool:
        """Stop clearing the tags of an earlier run that these events use for another kind of value.

        Args:
            events: Events to convert next.

        Returns:
            Whether the first records of the file contain such a tag.
        """
        state = self.state
        plugins = dict.fromkeys(state.emptied_image_tags, _values.IMAGES) | state.cleared_tags
        if not plugins:
            return False
        used = {tag: plugin for event in events for tag, plugin in _values.get_tags(event).items()}
        released = {tag for tag, plugin in plugins.items() if used.get(tag, plugin) != plugin}
        state.emptied_image_tags = [tag for tag in state.emptied_image_tags if tag not in released]
        for tag in released & state.cleared_tags.keys():
            del state.cleared_tags[tag]
        return bool(released)

    def build_end(self, succeeded: bool) -> bytes:
        """Build the record that ends the run.

        Args:
            succeeded: Whether the run finished without an error.

        Returns:
            The record.
        """
        value = _values.build_session_end(succeeded, self.state.wall_time)
        return encode_record(_build_summary_event(self.state.wall_time, 0, value))

    def build(self, event: AnyEvent) -> bytes:
        """Build the record of an event.

        Args:
            event: Event to convert.

        Returns:
            The record; empty if TensorBoard cannot show the event.

        Raises:
            RejectedEventError: If an image is missing or damaged.
        """
        self.state.seq, self.state.wall_time = max(event.seq, self.state.seq), event.time
        if isinstance(event, Html):
            return b""
        # The steps of samples of system metrics ascend.
        if event.seq > 0 and isinstance(event, Metrics | Histogram | MediaFile | Text):
            self.state.is_unordered |= event.step < self.state.max_step
            self.state.max_step = max(event.step, self.state.max_step)
        if isinstance(event, Metrics):
            return self._build_metrics(event)
        if isinstance(event, Params):
            return self._build_params(event)
        if isinstance(event, Histogram):
            return encode_record(
                _build_summary_event(event.time, event.step, _values.build_histogram(event)), event.seq
            )
        event = _values.describe_in_text(event)
        if isinstance(event, MediaFile | Text):
            value = _values.build_text(event) if isinstance(event, Text) else self._build_file(event)
            self._replace_earlier(event)
            return encode_record(_build_summary_event(event.time, event.step, value), event.seq)
        return b""

    def rewind(self, seq: int, epoch_step: int) -> None:
        """Forget all events after a position.

        Args:
            seq: Sequence number of the last event to keep.
            epoch_step: Last step with an epoch up to that event.
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
        """Add the tags of a row to the charts, and return whether the layout changed."""
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

    def _build_file(self, event: MediaFile) -> Any:
        path = owned_path(self._run.directory, event.path)
        if path is None:
            raise RejectedEventError(event.seq, f"File {event.path} does not exist in the run directory.")
        try:
            if isinstance(event, Table):
                return _values.build_text(_media_values.convert_table(event, path))
            if isinstance(event, Audio):
                return _media_values.build_audio(event, path)
            if isinstance(event, Video):
                return _media_values.build_video(event, path)
            return _values.build_image(event.key, path, event.caption)
        except (OSError, ValueError) as error:
            raise RejectedEventError(event.seq, str(error)) from error

    def _replace_earlier(self, event: MediaFile | Text) -> None:
        step, seq = self.state.latest_media.get(event.key, (-1, 0))
        if step == event.step:
            self.state.replaced_media.append((seq, event.seq))
            self.state.is_stale = True
        self.state.latest_media[event.key] = event.step, event.seq

    def _build_event(self, **fields: Any) -> Any:
        return event_pb2.Event(wall_time=self._run.start_time, **fields)


def _build_summary_event(wall_time: float, step: int, value: Any) -> Any:
    return event_pb2.Event(wall_time=wall_time, step=step, summary=summary_pb2.Summary(value=[value]))
