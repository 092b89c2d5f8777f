"""Check of PNG files, and conversion of other image files and PIL images to PNG."""

from __future__ import annotations

import io
import zlib
from typing import Any

from pte_tracking._store.dependencies import required_by

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: Modes of PIL that PNG represents.
_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA"})
_MODES_WITH_ALPHA = {"La": "LA", "PA": "RGBA", "RGBa": "RGBA"}


def import_pillow(feature: str = "An image that is not the bytes of a PNG file") -> Any:
    """Return the module ``PIL.Image``.

    Args:
        feature: Feature that requires it, at the start of a sentence.

    Raises:
        ImportError: If Pillow is not installed. The message contains the command that installs it.
    """
    with required_by(feature, "Pillow", "'pte-tracking[plot]'"):
        from PIL import Image
    return Image


def is_png(content: bytes, name: str) -> bool:
    """Return whether the content of a file is PNG.

    Args:
        content: Bytes of the file.
        name: Name of the image in error messages.

    Raises:
        ValueError: If the file is PNG and damaged.
    """
    if not content.startswith(_SIGNATURE):
        return False
    if not _is_intact(content):
        raise ValueError(f"{name}: the bytes are a damaged PNG file ({len(content)} bytes). Write the file again.")
    return True


def open_image(content: bytes, name: str) -> Any:
    """Return the PIL image of a file.

    Args:
        content: Bytes of a file in any format that Pillow reads. The first frame of an animation is returned.
        name: Name of the image in error messages.

    Raises:
        ImportError: If Pillow is not installed.
        ValueError: If the bytes are not an intact image file.
    """
    image_module = import_pillow()
    from PIL import ImageOps

    try:
        image = image_module.open(io.BytesIO(content))
        image.load()
        return ImageOps.exif_transpose(image)  # Cameras store rotated pictures.
    except Exception as error:  # The decoders of Pillow raise many types.
        reason = "" if "cannot identify" in str(error) else f" ({error})"
        raise ValueError(
            f"{name}: expected the bytes of an image file, such as PNG or JPEG, got {len(content)} bytes that begin "
            f"with {content[:8]!r}{reason}"
        ) from error


def encode_png(image: Any, name: str) -> bytes:
    """Encode a PIL image as PNG.

    Args:
        image: Image of any mode with integers. Modes that PNG lacks are converted to RGB.
        name: Name of the image in error messages.

    Raises:
        ValueError: If the image cannot be converted.
    """
    buffer = io.BytesIO()
    try:
        as_png_mode(image).save(buffer, format="PNG")
    except Exception as error:  # Pillow raises OSError, which would look like a failure of the disk.
        raise ValueError(
            f"{name}: a PIL image of mode {image.mode!r} and size {image.size} could not be converted to PNG: {error}. "
            "Convert it with image.convert('RGB')."
        ) from error
    return buffer.getvalue()


def as_png_mode(image: Any) -> Any:
    """Convert a PIL image to a mode that PNG represents."""
    if image.mode in _PNG_MODES:
        return image
    if image.mode == "LAB":  # Pillow converts this mode with color profiles only.
        from PIL import ImageCms

        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.applyTransform(image, ImageCms.buildTransform(*profiles, "LAB", "RGB"))
    return image.convert(_MODES_WITH_ALPHA.get(image.mode, "RGB"))


def _is_intact(content: bytes) -> bool:
    """Whether all chunks of a PNG file are complete and have the right checksums."""
    position = len(_SIGNATURE)
    if content[position + 4 : position + 8] != b"IHDR":
        return False
    while position + 12 <= len(content):
        length = int.from_bytes(content[position : position + 4], "big")
        end = position + 8 + length
        if zlib.crc32(content[position + 4 : end]) != int.from_bytes(content[end : end + 4], "big"):
            return False
        if content[position + 4 : position + 8] == b"IEND":
            return True
        position = end + 4
    return False
