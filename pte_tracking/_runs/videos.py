"""Conversion of videos to files."""

from __future__ import annotations

import io
import math
import os
from typing import Any, NamedTuple

from pte_tracking._runs.attachments import read_media_file
from pte_tracking._runs.media import read_array
from pte_tracking._runs.pixels import to_bytes
from pte_tracking._runs.png import import_pillow
from pte_tracking._store.printable import describe_value

_CHANNELS = (1, 3, 4)
_MIN_DURATION = 20  # milliseconds; browsers show frames of GIF files with a shorter duration for 100 milliseconds
_MAX_UINT16 = 65_535  # of a GIF file: the size in pixels, and the duration of a frame in hundredths of a second


class EncodedVideo(NamedTuple):
    """Video as a file.

    Attributes:
        content: Content of the file.
        suffix: Suffix of the file name.
        note: Description of an inexact conversion. None if the conversion is exact.
    """

    content: bytes
    suffix: str
    note: str | None = None


def encode_video(video: Any, fps: float, name: str) -> EncodedVideo:
    """Encode a video as an animated GIF file. The content of a file is not changed.

    Args:
        video: Array ``(frames, height, width[, channels])`` or tensor ``(frames, [channels, ]height, width)`` with 1,
            3, or 4 channels, the bytes of a GIF, MP4, or WebM file, or its path.
        fps: Frames per second of an array or tensor.
        name: Name of the video in messages.

    Raises:
        ImportError: If Pillow is required and not installed.
        FileNotFoundError: If the path does not exist.
        TypeError: If the video does not consist of real numbers.
        ValueError: If the shape is invalid, the path is no file, or the bytes are no video.
    """
    if isinstance(video, str | os.PathLike):
        video = read_media_file(video, name)
    if isinstance(video, bytes | bytearray | memoryview):
        content = bytes(video)
        return EncodedVideo(content, _find_suffix(content, name))
    import_pillow("A video as an array or tensor")
    frames = _read_array(video, name)
    height, width = frames.shape[1:3]
    if max(height, width) > _MAX_UINT16:
        raise ValueError(
            f"{name}: expected at most {_MAX_UINT16:,} pixels in width and height, got {width:,} x {height:,}"
        )
    pixels, note = to_bytes(frames, normalize=False)
    return EncodedVideo(encode_gif(pixels, fps), ".gif", note)


def encode_gif(frames: Any, fps: float) -> bytes:
    """Encode frames as an animated GIF file that repeats.

    Args:
        frames: Bytes of shape ``(frames, height, width, channels)`` with 1, 3, or 4 channels.
        fps: Frames per second. At most 50 and at least one in 11 minutes are stored.
    """
    image_module = import_pillow("A video as an array or tensor")
    pictures = [
        image_module.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels[..., :3]) for pixels in frames
    ]
    buffer = io.BytesIO()
    duration = max(round(min(1000 / fps, 10 * _MAX_UINT16)), _MIN_DURATION)
    pictures[0].save(buffer, "GIF", save_all=True, append_images=pictures[1:], duration=duration, loop=0)
    return buffer.getvalue()


def check_fps(fps: object) -> float:
    """Return a number of frames per second, or raise if it is not positive and finite."""
    if isinstance(fps, bool) or not isinstance(fps, int | float):
        raise TypeError(f"fps: expected a number, got {describe_value(fps)}")
    if not fps > 0 or not math.isfinite(fps):
        raise ValueError(f"fps: expected a positive number of frames per second, got {fps!r}")
    return float(fps)


def _find_suffix(content: bytes, name: str) -> str:
    if content.startswith((b"GIF87a", b"GIF89a")):
        return ".gif"
    if content[4:8] == b"ftyp":
        return ".mp4"
    if content.startswith(b"\x1a\x45\xdf\xa3"):
        return ".webm"
    raise ValueError(
        f"{name}: expected a GIF, MP4, or WebM file, got {len(content)} bytes that begin with {content[:8]!r}. Log "
        "other files with log_artifact()."
    )


def _read_array(video: Any, name: str) -> Any:
    """Return an array of shape ``(frames, height, width, channels)``."""
    values = read_array(video, "biuf", name, "A video as an array")
    is_tensor = hasattr(video, "detach")
    channel_axis = -3 if is_tensor else -1
    if values.ndim == 3:
        frames = values[..., None]
    elif values.ndim == 4 and values.shape[channel_axis] in _CHANNELS:
        frames = values.transpose(0, 2, 3, 1) if is_tensor else values
    else:
        raise _shape_error(values.shape, is_tensor, name)
    if not frames.size:
        raise _shape_error(values.shape, is_tensor, name)
    return frames


def _shape_error(shape: tuple[int, ...], is_tensor: bool, name: str) -> ValueError:
    expected = "(frames, [channels, ]height, width)" if is_tensor else "(frames, height, width[, channels])"
    advice = ""
    if len(shape) == 4 and shape[-1 if is_tensor else -3] in _CHANNELS:
        axes = "0, 3, 1, 2" if is_tensor else "0, 2, 3, 1"
        advice = f" Move the channels: video.{'permute' if is_tensor else 'transpose'}({axes})."
    elif len(shape) == 5:
        advice = " Log each video of a batch with a key of its own."
    return ValueError(
        f"{name}: expected shape {expected} of {'a tensor' if is_tensor else 'an array'}, with 1, 3 or 4 channels and "
        f"at least one frame with one pixel, got {tuple(shape)}.{advice}"
    )
