"""The kinds of summary values, as protocol buffers that TensorBoard's readers take without TensorFlow."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, types_pb2
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from tensorboard.plugins.hparams.summary_v2 import hparams_pb

from pte_tracking.sinks import AnyEvent, Dataset, Figure, Histogram, Image, Metrics, RunView, Scalar, Text

EPOCH = "epoch"
SCALARS, HISTOGRAMS, IMAGES, TEXTS, LAYOUTS = "scalars", "histograms", "images", "text", "custom_scalars"

#: What the record of the run's end holds, and no other record of the file's own.
SESSION_END = metadata.SESSION_END_INFO_TAG.encode()

_DATA_CLASS = {
    SCALARS: summary_pb2.DATA_CLASS_SCALAR,
    HISTOGRAMS: summary_pb2.DATA_CLASS_TENSOR,
    IMAGES: summary_pb2.DATA_CLASS_BLOB_SEQUENCE,
    TEXTS: summary_pb2.DATA_CLASS_TENSOR,
    LAYOUTS: summary_pb2.DATA_CLASS_TENSOR,
}
_PLUGIN = {"simple_value": SCALARS, "histo": HISTOGRAMS, "image": IMAGES}
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # by the colour type of the header (RFC 2083, section 4.1.1)
_MAX_EXACT_INTEGER = 2**53  # integers beyond are rounded by a 64-bit float


def get_tags(event: AnyEvent) -> dict[str, str]:
    """The tags that an event is shown under, and the plugin that shows them."""
    if isinstance(event, Metrics):
        return dict.fromkeys(event.values if event.epoch is None else [*event.values, EPOCH], SCALARS)
    if isinstance(event, Figure | Image):
        return {event.key: IMAGES}
    if isinstance(event, Histogram):
        return {event.key: HISTOGRAMS}
    if isinstance(event, Dataset):
        event = convert_dataset(event)
    return {event.key: TEXTS} if isinstance(event, Text) else {}


def find_shown_tags(messages: Iterable[bytes]) -> dict[str, str]:
    """The tags that serialised ``Event`` messages show something under, and the plugin that shows it."""
    plugins_by_tag: dict[str, str] = {}
    for message in messages:
        for value in event_pb2.Event.FromString(message).summary.value:
            plugin = _PLUGIN.get(value.WhichOneof("value"), value.metadata.plugin_data.plugin_name)
            if plugin in _DATA_CLASS:
                plugins_by_tag[value.tag] = plugin
    return plugins_by_tag


def encode_tag(tag: str) -> bytes:
    """Bytes that stand in every record which shows something under the tag."""
    encoded: bytes = summary_pb2.Summary.Value(tag=tag).SerializeToString()
    return encoded


def build_metadata(plugin: str) -> Any:
    """What tells readers which plugin shows a value."""
    return summary_pb2.SummaryMetadata(
        plugin_data=summary_pb2.SummaryMetadata.PluginData(plugin_name=plugin),
        data_class=_DATA_CLASS[plugin],
    )


def build_string_vector(values: list[bytes]) -> Any:
    """A vector of strings."""
    shape = {"dim": [{"size": len(values)}]}
    return tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, tensor_shape=shape, string_val=values)


def build_string(value: bytes) -> Any:
    """A single string."""
    return tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, tensor_shape={}, string_val=[value])


def build_image(key: str, path: Path) -> Any:
    """A picture.

    Raises:
        OSError: The file is not there, or cannot be read.
        ValueError: It is no PNG.
    """
    data = path.read_bytes()
    if len(data) < 26 or not data.startswith(_PNG_SIGNATURE):
        raise ValueError(f"{path} is no PNG")
    width, height = struct.unpack_from(">II", data, 16)
    picture = summary_pb2.Summary.Image(
        width=width, height=height, colorspace=_PNG_CHANNELS.get(data[25], 3), encoded_image_string=data
    )
    return summary_pb2.Summary.Value(tag=key, image=picture)


def build_histogram(event: Histogram) -> Any:
    """A distribution. TensorBoard takes the smallest and the largest value for the outermost borders."""
    histo = summary_pb2.HistogramProto(
        min=event.min,
        max=event.max,
        num=sum(event.counts),
        sum=event.sum,
        sum_squares=event.sum_squares,
        bucket_limit=event.edges[1:],
        bucket=event.counts,
    )
    return summary_pb2.Summary.Value(tag=event.key, histo=histo)


def convert_dataset(event: Dataset) -> Text:
    """A dataset as a piece of text: TensorBoard knows no datasets."""
    lines = [f"- digest: `{event.digest}`", f"- used for: {event.context}"]
    if event.source:
        lines.append(f"- source: {event.source}")
    return Text(event.seq, event.time, f"dataset/{event.context}/{event.name}", 0, "\n".join(lines))


def build_text(event: Text) -> Any:
    """A piece of Markdown."""
    return summary_pb2.Summary.Value(
        tag=event.key, metadata=build_metadata(TEXTS), tensor=build_string(event.text.encode())
    )


def build_session_start(run: RunView, params: Mapping[str, Scalar]) -> Any:
    """The hyperparameters on the HPARAMS page, in a group of the run's own."""
    suffix = f"-{run.id[:6]}"  # runs of one name stay apart
    group = run.name if run.name.endswith(suffix) else run.name + suffix
    summary = hparams_pb({key: _to_hparam(value) for key, value in params.items()}, group, run.start_time)
    return summary.value[0]


def build_session_end(succeeded: bool, time: float) -> Any:
    """The run's status on the HPARAMS page."""
    status = api_pb2.STATUS_SUCCESS if succeeded else api_pb2.STATUS_FAILURE
    data = plugin_data_pb2.HParamsPluginData(
        session_end_info=plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time)
    )
    return summary_pb2.Summary.Value(
        tag=metadata.SESSION_END_INFO_TAG,
        metadata=metadata.create_summary_metadata(data),
        tensor=metadata.NULL_TENSOR,
    )


def build_clearing_values(tag: str, plugin: str) -> list[Any]:
    """Values that displace all that TensorBoard's data server holds of a tag, and that it shows nothing of.

    The data server drops a tag's points only when one of an earlier or equal step comes for it. The first value here
    carries the kind of the tag; the second, of a form that went out of use, is one that no kind can show, and displaces
    the first. TensorBoard's own reader looks past the second.
    """
    return [
        summary_pb2.Summary.Value(tag=tag, metadata=build_metadata(plugin), tensor=metadata.NULL_TENSOR),
        summary_pb2.Summary.Value(tag=tag, obsolete_old_style_histogram=b""),
    ]


def build_empty_images(tag: str) -> Any:
    """A series of no pictures."""
    return summary_pb2.Summary.Value(tag=tag, metadata=build_metadata(IMAGES), tensor=build_string_vector([b"0", b"0"]))


def _to_hparam(value: Scalar) -> str | int | float | bool:
    # TensorBoard knows no None, and has its numbers in 64-bit floats.
    is_inexact = isinstance(value, int) and abs(value) > _MAX_EXACT_INTEGER
    return str(value) if value is None or is_inexact else value
