"""Conversion of sounds to files."""

from __future__ import annotations

import io
import os
import struct
import wave
from typing import Any, NamedTuple

from pte_tracking._runs.attachments import read_media_file
from pte_tracking._runs.media import read_array
from pte_tracking._store.printable import describe_value

_MAX_CHANNELS = 16
_MAX_SAMPLE = 2**15 - 1
_MAX_RATE = 2**31 // (2 * _MAX_CHANNELS)  # The header of a WAV file has 32 bits for the bytes per second.


class EncodedSound(NamedTuple):
    """Sound as a file.

    Attributes:
        content: Content of the file.
        suffix: Suffix of the file name.
        sample_rate: Samples per second. None if it is not known.
        note: Description of an inexact conversion. None if the conversion is exact.
    """

    content: bytes
    suffix: str
    sample_rate: int | None
    note: str | None = None


def encode_sound(sound: Any, sample_rate: int | None, name: str) -> EncodedSound:
    """Encode a sound as a WAV file of 16 bits. The content of a file is not changed.

    Args:
        sound: Array ``(samples[, channels])`` or tensor ``([channels, ]samples)`` of floats from -1 to 1 or of
            integers with 8, 16, or 32 bits, the bytes of a file, or its path.
        sample_rate: Samples per second, which arrays and tensors require.
        name: Name of the sound in messages.

    Raises:
        ImportError: If NumPy is required and not installed.
        FileNotFoundError: If the path does not exist.
        TypeError: If the sound does not consist of real numbers.
        ValueError: If the shape or the rate is invalid, the path is no file, or the bytes are no sound.
    """
    if isinstance(sound, str | os.PathLike):
        sound = read_media_file(sound, name)
    if isinstance(sound, bytes | bytearray | memoryview):
        content = bytes(sound)
        return EncodedSound(content, _find_suffix(content, name), sample_rate or _read_rate(content))
    if sample_rate is None:
        raise ValueError(f"{name}: an array or tensor requires sample_rate=, the samples per second, such as 16000.")
    samples, note = _to_samples(_read_array(sound, name), name)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return EncodedSound(buffer.getvalue(), ".wav", sample_rate, note)


def check_sample_rate(sample_rate: object) -> int | None:
    """Return a rate, or raise if it is neither None nor a positive integer."""
    if sample_rate is None:
        return None
    if isinstance(sample_rate, bool) or not hasattr(sample_rate, "__index__"):
        raise TypeError(f"sample_rate: expected an integer, got {describe_value(sample_rate)}")
    rate = int(sample_rate.__index__())
    if not 0 < rate <= _MAX_RATE:
        raise ValueError(f"sample_rate: expected a number of samples per second from 1 to {_MAX_RATE}, got {rate}")
    return rate


def _find_suffix(content: bytes, name: str) -> str:
    if content.startswith(b"RIFF") and content[8:12] == b"WAVE":
        return ".wav"
    if content.startswith(b"fLaC"):
        return ".flac"
    if content.startswith(b"OggS"):
        return ".ogg"
    # An MP3 file begins with a tag or with a frame, whose first 11 bits are set.
    if content.startswith(b"ID3") or (len(content) > 1 and content[0] == 0xFF and content[1] & 0xE0 == 0xE0):
        return ".mp3"
    raise ValueError(
        f"{name}: expected a WAV, MP3, FLAC, or Ogg file, got {len(content)} bytes that begin with {content[:8]!r}. "
        "Log other files with log_artifact()."
    )


def _read_rate(content: bytes) -> int | None:
    # See http://soundfile.sapp.org/doc/WaveFormat/.
    start = content.find(b"fmt ", 12, 4096) if content.startswith(b"RIFF") else -1
    return struct.unpack_from("<I", content, start + 12)[0] or None if 0 < start <= len(content) - 16 else None


def _read_array(sound: Any, name: str) -> Any:
    """Return an array of shape ``(samples, channels)``."""
    values = read_array(sound, "iuf", name, "A sound as an array")
    is_tensor = hasattr(sound, "detach")
    if values.ndim == 1:
        return values[:, None]
    samples = values.T if is_tensor else values
    if values.ndim == 2 and 0 < samples.shape[1] <= _MAX_CHANNELS:
        return samples
    expected = "([channels, ]samples) of a tensor" if is_tensor else "(samples[, channels]) of an array"
    is_transposed = values.ndim == 2 and 0 < samples.shape[0] <= _MAX_CHANNELS
    advice = " Move the channels: pass sound.T." if is_transposed else ""
    raise ValueError(
        f"{name}: expected shape {expected} with 1 to {_MAX_CHANNELS} channels, got {tuple(values.shape)}.{advice}"
    )


def _to_samples(values: Any, name: str) -> tuple[Any, str | None]:
    """Convert values to integers of 16 bits. Return a description of an inexact conversion too."""
    import numpy as np

    if values.dtype.kind == "f":
        is_finite = np.isfinite(values)
        is_clipped = is_finite & (np.abs(values) > 1)
        notes = []
        if is_clipped.any():
            highest = float(np.abs(values[is_finite]).max())
            count = int(is_clipped.sum())
            notes.append(f"values up to {highest:.6g} ({count} of {values.size}) were clipped to -1 and 1")
        if not is_finite.all():
            count = is_finite.size - int(is_finite.sum())
            notes.append(f"values that are not finite ({count} of {values.size}) were replaced by 0")
            values = np.where(is_finite, values, 0)
        return np.rint(values.astype(np.float64).clip(-1, 1) * _MAX_SAMPLE), ", and ".join(notes) or None
    if values.dtype == np.uint8:  # 8 bits without a sign, as in a WAV file
        return (values.astype(np.int16) - 128) * 256, None
    if values.dtype == np.int16:
        return values, None
    if values.dtype == np.int32:
        return values >> 16, None
    raise TypeError(f"{name}: expected floats from -1 to 1, or uint8, int16, or int32, got {values.dtype}")
