"""Reader of event files that any program wrote."""

from __future__ import annotations

import collections
import fnmatch
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tensorboard.compat.proto import event_pb2
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2

from pte_backends.tensorboard import _stored_values as stored
from pte_backends.tensorboard._event_file import find_restarts, read_events
from pte_tracking.sinks import (
    AnyEvent,
    Histogram,
    Image,
    Metrics,
    Number,
    Params,
    RunEnded,
    RunStarted,
    Status,
    Text,
    safe_file_name,
)

_logger = logging.getLogger("pte_tracking")

PATTERN = "*tfevents*"
_MAX_NAMED = 10
#: Plugins whose values describe other values.
_LAYOUT_PLUGINS = ("custom_scalars",)
_STATUS: dict[int, Status] = {api_pb2.STATUS_SUCCESS: "FINISHED", api_pb2.STATUS_FAILURE: "FAILED"}


def read_run(source: str, directory: Path) -> Iterator[AnyEvent]:
    """Read the event files of a run; see :meth:`TensorBoardSink.read_run`."""
    files = _find_files(Path(source))
    folder = Path(source).absolute()
    reader = _Reader(directory)
    name = (folder if folder.is_dir() else folder.parent).resolve().name
    is_started = False
    for event in _effective_events(files):
        if not is_started:
            is_started = True
            yield RunStarted(0, event.wall_time, "", name, 0, "")
        yield from reader.convert(event)
    reader.report_skipped(source)
    if reader.end:
        yield reader.end


def _find_files(source: Path) -> list[Path]:
    """Return the event files of a run in the order in which they were started."""
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise LookupError(f"{source}: no such file or directory")
    found = sorted(path for path in source.rglob("*") if fnmatch.fnmatch(path.name, PATTERN) and path.is_file())
    files = [path for path in found if path.parent == source]
    folders = list(dict.fromkeys(str(path.parent) for path in found if path.parent != source))
    more = f", and {len(folders) - _MAX_NAMED} more" if len(folders) > _MAX_NAMED else ""
    below = ", ".join(folders[:_MAX_NAMED]) + more
    if not files:
        hint = f" Each directory below is a run, import them one by one: {below}" if folders else ""
        raise LookupError(f"{source}: contains no event file ({PATTERN}).{hint}")
    if folders:
        _logger.warning("%s: the runs in its subdirectories were not imported: %s", source, below)
    return sorted(files, key=_read_start_time)


def _read_start_time(path: Path) -> float:
    """Return the time of the first event, because names contain whole seconds, and a counter without leading zeros."""
    return next((event.wall_time for event in read_events(path)), 0.0)


def _effective_events(files: Iterable[Path]) -> Iterator[Any]:
    """Iterate over the events that are not superseded by a restart from an earlier step."""
    files = list(files)
    restarts = [(number, *restart) for number, path in enumerate(files) for restart in find_restarts(path)]
    superseded = 0
    for number, path in enumerate(files):
        limit = _next_limit(restarts)
        for index, event in enumerate(read_events(path)):
            while restarts and restarts[0][:2] <= (number, index):
                del restarts[0]
                limit = _next_limit(restarts)
            if limit is not None and event.step >= limit and not _is_session(event):
                superseded += len(event.summary.value)
            else:
                yield event
    if superseded:
        _logger.warning("%d values were left out, because the program restarted from an earlier step.", superseded)


def _next_limit(restarts: list[tuple[int, int, int]]) -> int | None:
    return min((step for _, _, step in restarts), default=None)


def _is_session(event: Any) -> bool:
    """Whether an event belongs to the run and not to a step."""
    return not event.summary.value or any(
        value.metadata.plugin_data.plugin_name == stored.HPARAMS for value in event.summary.value
    )


class _Reader:
    """Converter from ``Event`` messages to events.

    Attributes:
        end: Event that ends the run. None if the source does not contain its status.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._plugins: dict[str, str] = {}
        self._skipped: collections.Counter[str] = collections.Counter()
        self._pictures = 0
        self.end: RunEnded | None = None

    def convert(self, event: event_pb2.Event) -> Iterable[AnyEvent]:
        """Convert the values of one event."""
        content = event.WhichOneof("what")
        if content != "summary":
            if content in ("graph_def", "meta_graph_def"):
                self._skipped["graph"] += 1
            return ()
        # Most events contain one number.
        values = event.summary.value
        if len(values) == 1 and (value := values[0]).WhichOneof("value") == "simple_value" and (tag := value.tag):
            return (Metrics(0, event.wall_time, event.step, {tag: value.simple_value}),)
        return self._convert_values(event)

    def _convert_values(self, event: event_pb2.Event) -> Iterator[AnyEvent]:
        numbers: dict[str, Number | str] = {}
        for value in event.summary.value:
            kind, tag = value.WhichOneof("value"), value.tag
            if kind == "simple_value" and tag:
                if tag in numbers:
                    yield Metrics(0, event.wall_time, event.step, numbers)
                    numbers = {}
                numbers[tag] = value.simple_value
            elif not tag:
                self._skipped["value without a name"] += 1
            elif (number := self._find_number(value, kind)) is not None:
                numbers[tag] = number
            else:
                yield from self._convert_other(event, value, kind)
        if numbers:
            yield Metrics(0, event.wall_time, event.step, numbers)

    def report_skipped(self, source: str) -> None:
        """Log the kinds of values that were left out."""
        skipped = ", ".join(f"{kind} ({count})" for kind, count in sorted(self._skipped.items()) if count)
        if skipped:
            _logger.warning("%s: not imported: %s", source, skipped)

    def _find_plugin(self, value: Any) -> str:
        # Only the first value of a tag is required to contain its plugin.
        plugin: str = value.metadata.plugin_data.plugin_name
        if plugin:
            self._plugins[value.tag] = plugin
        return plugin or self._plugins.get(value.tag, "")

    def _find_number(self, value: Any, kind: str | None) -> float | None:
        is_number = kind == "tensor" and self._find_plugin(value) == stored.SCALARS
        return stored.read_number(value.tensor) if is_number else None

    def _convert_other(self, event: Any, value: Any, kind: str | None) -> Iterator[AnyEvent]:
        plugin = self._find_plugin(value)
        if plugin == stored.HPARAMS:
            yield from self._convert_session(event, value)
        elif kind == "histo":
            yield from self._check(stored.read_histogram(value.histo), "histogram", event, value)
        elif plugin == stored.HISTOGRAMS:
            yield from self._check(stored.read_histogram_tensor(value.tensor), "histogram", event, value)
        elif kind == "image":
            yield from self._save_images(event, value.tag, [value.image.encoded_image_string])
        elif plugin == stored.IMAGES:
            # The first two texts are width and height.
            yield from self._save_images(event, value.tag, list(value.tensor.string_val[2:]))
        elif plugin == stored.TEXTS:
            text = "\n".join(part.decode(errors="replace") for part in value.tensor.string_val)
            yield Text(0, event.wall_time, value.tag, event.step, text)
        elif plugin not in _LAYOUT_PLUGINS:
            self._skipped[plugin or kind or "value without content"] += 1

    def _check(self, fields: stored.HistogramFields | None, kind: str, event: Any, value: Any) -> Iterator[AnyEvent]:
        if fields is None:
            self._skipped[f"{kind} without finite numbers"] += 1
        else:
            yield Histogram(0, event.wall_time, value.tag, event.step, *fields)

    def _save_images(self, event: Any, tag: str, pictures: list[bytes]) -> Iterator[Image]:
        for index, picture in enumerate(pictures):
            if not picture.startswith(stored.PNG_SIGNATURE):
                self._skipped["image that is not a PNG"] += 1
                continue
            path = self._directory / safe_file_name(tag) / f"{self._pictures:06}.png"
            self._pictures += 1
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(picture)
            key = tag if len(pictures) == 1 else f"{tag}/{index}"
            yield Image(0, event.wall_time, key, event.step, path.relative_to(self._directory).as_posix())

    def _convert_session(self, event: Any, value: Any) -> Iterator[AnyEvent]:
        data = plugin_data_pb2.HParamsPluginData.FromString(value.metadata.plugin_data.content)
        if data.HasField("session_start_info"):
            params = {key: stored.read_param(param) for key, param in data.session_start_info.hparams.items() if key}
            if params:
                yield Params(0, event.wall_time, params)
        elif data.session_end_info.status in _STATUS:
            self.end = RunEnded(0, event.wall_time, _STATUS[data.session_end_info.status])
