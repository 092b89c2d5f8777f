"""Keys, numbers, and events for the contract tests."""

from __future__ import annotations

import hashlib
import io
import math
import struct
import wave
import zlib
from pathlib import Path
from typing import Any

from pte_tracking._store import events
from pte_tracking._store.events import AnyEvent, Number
from pte_tracking._store.model_event import ModelSignature, TensorSpec

#: Data points of a backend by key: pairs of step and value, ordered by step.
Points = dict[str, list[tuple[int, float]]]

#: Video of one frame with one black pixel; see https://www.w3.org/Graphics/GIF/spec-gif89a.txt.
_GIF = bytes.fromhex("47494638396101000100800000000000ffffff2c00000000010001000002024401003b")
UNUSUAL_KEYS = [
    "a b",
    "acc@5",
    "ä/ß",
    "日本",
    "loss[0]",
    "x" * 300,
    "../up",
    "/slash",
    "a//b",
    "50%",
    "tab\there",
    "'\"`",
    ".",
]
UNUSUAL_NUMBERS: list[Number] = [0, -1, 1, 2**53, 0.1, -0.0, 1e-300, 1e300, math.pi, 2.0**-1074]


def make_sample_events(directory: Path) -> list[tuple[type[AnyEvent], tuple[Any, ...]]]:
    """Return one event of each kind, as class and fields, and create the files that they refer to."""
    (directory / "picture.png").write_bytes(_encode_png())
    (directory / "file.txt").write_text("a file")
    (directory / "table.json").write_text('{"columns":["word","count"],"data":[["a",1],["b",null]]}')
    (directory / "page.html").write_text("<p>a page</p>")
    (directory / "sound.wav").write_bytes(_encode_wav())
    (directory / "clip.gif").write_bytes(_GIF)
    (directory / "snapshot").write_bytes(b"a snapshot")
    digest = hashlib.sha256(b"a snapshot").hexdigest()
    (directory / "exports" / "model").mkdir(parents=True, exist_ok=True)
    (directory / "exports" / "model" / "model.pt2").write_bytes(b"a program")
    (directory / "exports" / "model" / "state_dict.pt").write_bytes(b"a snapshot")
    tensor = TensorSpec("x", "float32", [-1, 4])
    return [
        (events.Provenance, ({"git_commit": "0" * 40, "git_dirty": "true", "starts": "1"}, {"diff.txt": "file.txt"})),
        (events.Params, ({"lr": 0.1, "name": "x", "none": None, "deep/er": True, "long": "y" * 10_000},)),
        (events.Tags, ({"team": "vision", "odd@tag": "z" * 10_000},)),
        (events.Figure, ("figures/loss", 1, "picture.png")),
        (events.Image, ("image", 1, "picture.png")),
        (events.Histogram, ("weights", 1, [0.0, 1.0, 2.0], [3.0, 1.0], 0.0, 2.0, 3.5, 5.0)),
        (events.Text, ("note", 1, "some *text*")),
        (events.Table, ("words", 1, "table.json", "the words")),
        (events.Html, ("page", 1, "page.html")),
        (events.Audio, ("sound", 1, "sound.wav", "", 8000)),
        (events.Video, ("clip", 1, "clip.gif", "", 4.0)),
        (events.Dataset, ("digits", digest, "train", "https://example.org/digits")),
        (events.Artifact, ("file.txt", "folder")),
        (events.Checkpoint, ("snapshot", 1, digest, 10, 1, {"a": math.nan})),
        (events.CheckpointRemoved, ("snapshot", 1)),
        (
            events.Model,
            ("main", 1, "exports/model", digest, 19, "2.6.0", ModelSignature([tensor], [tensor]), "contract"),
        ),
    ]


def _encode_wav() -> bytes:
    """Return a sound of two samples with 16 bits."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(struct.pack("<hh", 1000, -1000))
    return buffer.getvalue()


def _encode_png() -> bytes:
    """Return an image of one black pixel; see https://www.w3.org/TR/png/."""

    def encode(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + encode(b"IHDR", header) + encode(b"IDAT", zlib.compress(b"\0\0")) + encode(b"IEND", b"")
    )
