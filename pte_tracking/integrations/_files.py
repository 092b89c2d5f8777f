"""Files for values that have no event of their own: sounds, meshes, and embeddings."""

from __future__ import annotations

import io
import math
import wave
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pte_tracking._runs.png import encode_png
from pte_tracking.integrations._pixels import draw_grid, to_array, to_bytes, to_numbers, to_picture

_MAX_SAMPLE = 2**15 - 1


def encode_wav(sound: Any, sample_rate: int, name: str) -> bytes:
    """Encode a sound of one channel as a WAV file of 16 bits. Values outside -1 to 1 are clipped.

    Raises:
        TypeError: If the values are not real numbers.
        ValueError: If the sound has several channels.
    """
    import numpy as np

    samples = to_numbers(sound, name).squeeze()
    if samples.ndim > 1:
        raise ValueError(f"{name}: expected a sound of shape (1, samples), got {samples.shape}. Pass one channel.")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes((np.atleast_1d(samples).clip(-1, 1) * _MAX_SAMPLE).astype("<i2").tobytes())
    return buffer.getvalue()


def encode_npy(tensor: Any) -> bytes:
    """Encode an array or tensor as a file of NumPy."""
    array = to_array(tensor)
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def encode_ply(vertices: Any, colors: Any, faces: Any) -> bytes:
    """Encode a mesh or a cloud of points as a PLY file in text form.

    Args:
        vertices: Coordinates of shape ``(vertices, 3)``.
        colors: Color of each vertex from 0 to 255, or from 0 to 1 as floats. None for no colors.
        faces: Three indices of vertices for each triangle. None for a cloud of points.
    """
    header = ["ply", "format ascii 1.0", f"element vertex {len(vertices)}"]
    header += [f"property float {axis}" for axis in "xyz"]
    lines = [" ".join(f"{number:.9g}" for number in vertex) for vertex in vertices.tolist()]
    if colors is not None:
        header += [f"property uchar {color}" for color in ("red", "green", "blue")]
        shades = to_bytes(colors) if colors.dtype.kind == "f" else colors
        lines = [f"{line} {' '.join(map(str, shade))}" for line, shade in zip(lines, shades.tolist(), strict=True)]
    if faces is not None:
        header += [f"element face {len(faces)}", "property list uchar int vertex_indices"]
        lines += [f"3 {' '.join(map(str, face))}" for face in faces.tolist()]
    return "\n".join([*header, "end_header", *lines, ""]).encode()


def encode_table(rows: Sequence[Sequence[Any]]) -> bytes:
    """Encode rows as tab-separated values. Tabs and line breaks within a value are replaced by spaces."""
    lines = ["\t".join(" ".join(str(value).split()) for value in row) for row in rows]
    return "".join(f"{line}\n" for line in lines).encode(errors="backslashreplace")


def encode_sprite(images: Any, name: str) -> bytes:
    """Draw the images ``(points, channels, height, width)`` of an embedding as a square grid, as a PNG file."""
    batch = to_bytes(to_numbers(images, name)).transpose(0, 2, 3, 1)
    return encode_png(to_picture(draw_grid(batch, math.ceil(math.sqrt(len(batch))))), name)


def describe_embedding(paths: Mapping[str, Path], image_size: tuple[int, int] | None) -> str:
    """Return the entry of an embedding in ``projector_config.pbtxt``, which TensorBoard reads in the run directory.

    Args:
        paths: Paths of ``tensors.tsv``, ``metadata.tsv``, and ``sprite.png`` relative to the run directory.
        image_size: Width and height of an image. None if there are no images.
    """
    folder = paths["tensors.tsv"].parent
    lines = [f'tensor_name: "{folder.parent.name}:{folder.name}"', f'tensor_path: "{paths["tensors.tsv"].as_posix()}"']
    if "metadata.tsv" in paths:
        lines.append(f'metadata_path: "{paths["metadata.tsv"].as_posix()}"')
    if image_size is not None:
        sizes = " ".join(f"single_image_dim: {length}" for length in image_size)
        lines.append(f'sprite {{ image_path: "{paths["sprite.png"].as_posix()}" {sizes} }}')
    return "".join(f"{line}\n" for line in ["embeddings {", *(f"  {line}" for line in lines), "}"])
