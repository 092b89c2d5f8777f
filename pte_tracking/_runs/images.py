"""Conversion of images to PNG."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from pte_tracking._runs.pixels import to_pixels
from pte_tracking._runs.png import as_png_mode, encode_png, import_pillow, is_png, open_image
from pte_tracking._store.dependencies import required_by
from pte_tracking._store.printable import describe_value


class EncodedImage(NamedTuple):
    """Image as PNG.

    Attributes:
        png: Content of the file.
        note: Description of an inexact conversion. None if the conversion is exact.
    """

    png: bytes
    note: str | None = None


def encode_image(image: Any, normalize: bool, name: str) -> EncodedImage:
    """Encode an image as PNG.

    Args:
        image: Bytes of an image file, PIL image of any mode, array, tensor, or list of arrays or tensors; see
            :func:`pte_tracking._runs.pixels.to_pixels`.
        normalize: Whether to scale the values from the lowest to the highest of the image or batch.
        name: Name of the image in messages.

    Raises:
        ImportError: If Pillow is required and not installed.
        TypeError: If the image does not consist of real numbers.
        ValueError: If the shape is invalid, or the bytes are not an intact image file.
    """
    if isinstance(image, str | os.PathLike):
        raise TypeError(
            f"{name}: expected an array, tensor, PIL image, or bytes of an image file, got {describe_value(image)}. "
            "To log a file, pass its content: open(path, 'rb').read()."
        )
    if isinstance(image, bytes | bytearray | memoryview):
        content = bytes(image)
        if is_png(content, name) and not normalize:
            return EncodedImage(content)
        image = open_image(content, name)
    image_module = import_pillow()
    if isinstance(image, image_module.Image):
        # Modes F, I, and I;16 contain numbers of more than 8 bits.
        if not normalize and image.mode[0] not in "FI":
            return EncodedImage(encode_png(image, name))
        image = _read_numbers(image)
    pixels, note = to_pixels(image, normalize, name)
    return EncodedImage(encode_png(image_module.fromarray(pixels), name), note)


def _read_numbers(image: Any) -> Any:
    with required_by("An image of numbers", "numpy", "'pte-tracking[plot]'"):
        import numpy as np

    if image.mode[0] in "FI":
        return np.asarray(image)
    image = as_png_mode(image)
    if image.mode in ("LA", "P"):  # An opaque alpha channel would be the highest value.
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    return np.asarray(image)
