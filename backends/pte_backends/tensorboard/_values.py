"""Summary values as protocol buffers that TensorBoard reads without TensorFlow."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2, types_pb2
from tensorboard.plugins.audio import plugin_data_pb2 as audio_plugin_data_pb2
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2

from pte_tracking.sinks import (
    AnyEvent,
    Audio,
    Dataset,
    Figure,
    Histogram,
    Image,
    Metrics,
    RunView,
    Scalar,
    Table,
    Text,
    Video,
)

EPOCH = "epoch"
SCALARS, HISTOGRAMS, IMAGES, TEXTS, LAYOUTS = "scalars", "histograms", "images", "text", "custom_scalars"
AUDIO = "audio"

# TensorBoard's own modules for hyperparameters also import NumPy, fsspec, and boto3 where they are installed, which
# takes longer than the delivery of a short run.
_HPARAMS = "hparams"
_SESSION_START_TAG, _SESSION_END_TAG = "_hparams_/session_start_info", "_hparams_/session_end_info"
_EMPTY_TENSOR = tensor_pb2.TensorProto(
    dtype=types_pb2.DT_FLOAT,
    tensor_shape=tensor_shape_pb2.TensorShapeProto(dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=0)]),
)

#: Bytes that, among the records with label 0, only the record of the end of the run contains.
SESSION_END = _SESSION_END_TAG.encode()

_DATA_CLASS = {
    SCALARS: summary_pb2.DATA_CLASS_SCALAR,
    HISTOGRAMS: summary_pb2.DATA_CLASS_TENSOR,
    IMAGES: summary_pb2.DATA_CLASS_BLOB_SEQUENCE,
    AUDIO: summary_pb2.DATA_CLASS_BLOB_SEQUENCE,
    TEXTS: summary_pb2.DATA_CLASS_TENSOR,
    LAYOUTS: summary_pb2.DATA_CLASS_TENSOR,
}
_PLUGIN = {"simple_value": SCALARS, "histo": HISTOGRAMS, "image": IMAGES}
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # By the color type in the header; see RFC 2083, section 4.1.1.
_MAX_EXACT_INTEGER = 2**53  # A 64-bit float rounds larger integers.
# A running data server keeps the metadata of the first value of a tag, which may be one that clears the tag.
_WAV_CONTENT = audio_plugin_data_pb2.AudioPluginData(
    encoding=audio_plugin_data_pb2.AudioPluginData.Encoding.WAV
).SerializeToString()
_HPARAM_FIELD = {bool: "bool_value", int: "number_value", float: "number_value", str: "string_value"}
_MISSING_HPARAMS = (None, "nan", "inf", "-inf")  # JSON has no non-finite numbers, so parameters are texts.


def get_tags(event: AnyEvent) -> dict[str, str]:
    """Return the tags under which an event is shown.

    Args:
        event: Event.

    Returns:
        The plugin of each tag.
    """
    if isinstance(event, Metrics):
        return dict.fromkeys(event.values if event.epoch is None else [*event.values, EPOCH], SCALARS)
    if isinstance(event, Figure | Image | Video):
        return {event.key: IMAGES}
    if isinstance(event, Audio):
        return {event.key: AUDIO}
    if isinstance(event, Histogram):
        return {event.key: HISTOGRAMS}
    if isinstance(event, Dataset):
        event = convert_dataset(event)
    return {event.key: TEXTS} if isinstance(event, Text | Table) else {}


def find_shown_tags(messages: Iterable[bytes]) -> dict[str, str]:
    """Return the tags that an event file shows.

    Args:
        messages: Serialized ``Event`` messages.

    Returns:
        The plugin of each tag.
    """
    plugins_by_tag: dict[str, str] = {}
    for message in messages:
        for value in event_pb2.Event.FromString(message).summary.value:
            plugin = _PLUGIN.get(value.WhichOneof("value"), value.metadata.plugin_data.plugin_name)
            if plugin in _DATA_CLASS:
                plugins_by_tag[value.tag] = plugin
    return plugins_by_tag


def encode_tag(tag: str) -> bytes:
    """Return the bytes that every record with a tag contains.

    Args:
        tag: Tag.
    """
    encoded: bytes = summary_pb2.Summary.Value(tag=tag).SerializeToString()
    return encoded


def build_metadata(plugin: str) -> Any:
    """Build the metadata that assign a value to a plugin.

    Args:
        plugin: Name of the plugin.
    """
    return summary_pb2.SummaryMetadata(
        plugin_data=summary_pb2.SummaryMetadata.PluginData(
            plugin_name=plugin, content=_WAV_CONTENT if plugin == AUDIO else b""
        ),
        data_class=_DATA_CLASS[plugin],
    )


def build_description(caption: str) -> Any:
    """Build the metadata with a description, which TensorBoard shows once per tag: that of the first event.

    Args:
        caption: Caption of an event. Empty for no description.
    """
    return summary_pb2.SummaryMetadata(summary_description=caption) if caption else None


def build_string_vector(values: list[bytes]) -> Any:
    """Build a tensor with a vector of strings.

    Args:
        values: Encoded strings.
    """
    shape = {"dim": [{"size": len(values)}]}
    return tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, tensor_shape=shape, string_val=values)


def build_string(value: bytes) -> Any:
    """Build a tensor with one string.

    Args:
        value: Encoded string.
    """
    return tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, tensor_shape={}, string_val=[value])


def build_image(key: str, path: Path, caption: str = "") -> Any:
    """Build the value of an image.

    Args:
        key: Key of the image.
        path: PNG file.
        caption: Description of the tag. Empty for no description.

    Returns:
        A ``Summary.Value``.

    Raises:
        OSError: If the file does not exist or cannot be read.
        ValueError: If the file is not a PNG.
    """
    data = path.read_bytes()
    if len(data) < 26 or not data.startswith(_PNG_SIGNATURE):
        raise ValueError(f"{path} is not a PNG file.")
    width, height = struct.unpack_from(">II", data, 16)
    picture = summary_pb2.Summary.Image(
        width=width, height=height, colorspace=_PNG_CHANNELS.get(data[25], 3), encoded_image_string=data
    )
    return summary_pb2.Summary.Value(tag=key, image=picture, metadata=build_description(caption))


def build_histogram(event: Histogram) -> Any:
    """Build the value of a histogram. TensorBoard uses the minimum and maximum as the outer edges.

    Args:
        event: Histogram event.
    """
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
    """Convert a dataset to a text, because TensorBoard does not support datasets.

    Args:
        event: Dataset event.
    """
    lines = [f"- digest: `{event.digest}`", f"- used for: {event.context}"]
    if event.source:
        lines.append(f"- source: {event.source}")
    return Text(event.seq, event.time, f"dataset/{event.context}/{event.name}", 0, "\n".join(lines))


def build_text(event: Text) -> Any:
    """Build the value of a Markdown text.

    Args:
        event: Text event.
    """
    return summary_pb2.Summary.Value(
        tag=event.key, metadata=build_metadata(TEXTS), tensor=build_string(event.text.encode())
    )


def build_session_start(run: RunView, params: Mapping[str, Scalar]) -> Any:
    """Build the value with the hyperparameters for the HPARAMS page, in a separate group for the run.

    Args:
        run: Run to deliver.
        params: Hyperparameters.
    """
    suffix = f"-{run.id[:6]}"  # Keeps runs with the same name in separate groups.
    group = run.name if run.name.endswith(suffix) else run.name + suffix
    start = plugin_data_pb2.SessionStartInfo(group_name=group, start_time_secs=run.start_time)
    for key, value in sorted(params.items()):
        hparam = _to_hparam(value)
        if hparam is not None:
            setattr(start.hparams[key], _HPARAM_FIELD[type(hparam)], hparam)
    return _build_session(_SESSION_START_TAG, plugin_data_pb2.HParamsPluginData(session_start_info=start))


def build_session_end(succeeded: bool, time: float) -> Any:
    """Build the value with the status of the run for the HPARAMS page.

    Args:
        succeeded: Whether the run finished without an error.
        time: Time of the end, in seconds since the epoch.
    """
    status = api_pb2.STATUS_SUCCESS if succeeded else api_pb2.STATUS_FAILURE
    data = plugin_data_pb2.HParamsPluginData(
        session_end_info=plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time)
    )
    return _build_session(_SESSION_END_TAG, data)


def _build_session(tag: str, data: Any) -> Any:
    plugin = summary_pb2.SummaryMetadata.PluginData(plugin_name=_HPARAMS, content=data.SerializeToString())
    return summary_pb2.Summary.Value(
        tag=tag, metadata=summary_pb2.SummaryMetadata(plugin_data=plugin), tensor=_EMPTY_TENSOR
    )


def build_clearing_values(tag: str, plugin: str) -> list[Any]:
    """Build values that remove all points of a tag from TensorBoard's data server.

    The data server drops the points of a tag only when a point with an earlier or equal step arrives for it. The first
    value has the kind of the tag. The second value has an obsolete kind that no plugin can show, and it displaces the
    first one. TensorBoard's own reader ignores the second value.

    Args:
        tag: Tag to clear.
        plugin: Plugin of the tag.
    """
    return [
        summary_pb2.Summary.Value(tag=tag, metadata=build_metadata(plugin), tensor=_EMPTY_TENSOR),
        summary_pb2.Summary.Value(tag=tag, obsolete_old_style_histogram=b""),
    ]


def build_empty_images(tag: str) -> Any:
    """Build a series without images.

    Args:
        tag: Tag of the series.
    """
    return summary_pb2.Summary.Value(tag=tag, metadata=build_metadata(IMAGES), tensor=build_string_vector([b"0", b"0"]))


def _to_hparam(value: Scalar) -> str | int | float | bool | None:
    # TensorBoard stores numbers as 64-bit floats, and one text among the runs makes a column of numbers a column of
    # texts. A run without a value has no effect on the others.
    if isinstance(value, int) and abs(value) > _MAX_EXACT_INTEGER:
        return str(value)
    return None if value in _MISSING_HPARAMS else value
