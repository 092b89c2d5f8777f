"""Conversion of images, figures, and histograms, and their default steps."""

from __future__ import annotations

import io
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pte_tracking as pte
from pte_tracking import extensions
from pte_tracking._store import events
from pte_tracking._store.journal_reader import read_effective
from tests.pictures import PNG

Log = Callable[..., Any]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """Log one image. Return its pixels."""
    run = pte.Run(tmp_path / "run")

    def log_image(image: Any, key: str = "a", **arguments: Any) -> Any:
        run.log_image(key, image, 1, **arguments)
        (path,) = (tmp_path / "run" / "images").glob(f"{key}*/step_1.png")
        with Image.open(path) as stored:
            return np.asarray(stored)

    return log_image


@pytest.fixture
def messages(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    received: list[str] = []
    caplog.set_level(logging.WARNING, "pte_tracking")
    monkeypatch.setattr(caplog.handler, "emit", lambda record: received.append(record.getMessage()))
    return received


def encode(image: Image.Image, file_format: str) -> bytes:
    content = io.BytesIO()
    image.save(content, file_format)
    return content.getvalue()


RED = Image.new("RGB", (8, 8), (255, 0, 0))
RAMP = np.linspace(0, 255, 64).reshape(8, 8)


# -- PIL images and files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV"])
def test_log_image_pil_mode_that_png_lacks_becomes_rgb(mode: str, log: Log) -> None:
    pixels = log(RED.convert(mode))
    assert pixels.shape == (8, 8, 3)
    assert np.abs(pixels.astype(int) - [255, 0, 0]).max() <= 2


def test_log_image_pil_lab_image_becomes_rgb(log: Log) -> None:
    white = Image.frombytes("LAB", (2, 2), bytes([255, 0, 0] * 4))
    assert (log(white) >= 250).all()


@pytest.mark.parametrize(("mode", "shape"), [("1", (2, 2)), ("La", (2, 2, 2)), ("PA", (2, 2, 4)), ("RGBa", (2, 2, 4))])
def test_log_image_pil_mode_with_alpha_or_bits_keeps_its_channels(mode: str, shape: Any, log: Log) -> None:
    assert log(Image.new(mode, (2, 2))).shape == shape


def test_log_image_pil_image_of_floats_keeps_its_shades(log: Log, messages: list[str]) -> None:
    assert len(np.unique(log(Image.fromarray((RAMP / 255).astype(np.float32))))) == 64
    assert messages == []


@pytest.mark.parametrize("mode", ["I", "I;16", "I;16B"])
def test_log_image_pil_image_of_many_bits_is_scaled_with_warning(mode: str, log: Log, messages: list[str]) -> None:
    image = Image.new(mode, (2, 1))
    image.putpixel((1, 0), 65535)
    assert log(image).tolist() == [[0, 255]]
    assert len(messages) == 1


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "GIF", "BMP", "TIFF"])
def test_log_image_content_of_a_file_is_stored_as_png(file_format: str, log: Log, tmp_path: Path) -> None:
    log(bytearray(encode(RED, file_format)))
    (path,) = tmp_path.glob("run/images/*/step_1.png")
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert np.abs(np.asarray(image.convert("RGB")).astype(int) - [255, 0, 0]).max() <= 2


def test_log_image_content_of_a_png_file_is_unchanged(log: Log, tmp_path: Path) -> None:
    log(PNG)
    assert [path.read_bytes() for path in tmp_path.glob("run/images/*/step_1.png")] == [PNG]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"image 'a' at step 1: expected the bytes of an image file, such as PNG or JPEG, got 0 bytes"),
        (b"text", r"got 4 bytes that begin with b'text'"),
        (PNG[:-8], r"image 'a' at step 1: the bytes are a damaged PNG file"),
        (PNG[:40] + b"?" + PNG[41:], "damaged PNG file"),
        (PNG[:8], "damaged PNG file"),
        (encode(RED.resize((200, 200)), "JPEG")[:700], "expected the bytes of an image file"),
    ],
)
@pytest.mark.parametrize("method", ["log_image", "log_figure"])
def test_damaged_content_of_a_file_raises_value_error(
    method: str, content: bytes, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message.replace("image 'a'", f"{method[4:]} 'a'")):
        getattr(pte.Run(tmp_path), method)("a", content, 1)


def test_log_figure_content_of_a_jpeg_file_is_stored_as_png(tmp_path: Path) -> None:
    with pte.Run(tmp_path) as run:
        run.log_figure("a", encode(RED, "JPEG"), 1)
    (path,) = tmp_path.glob("figures/*/step_1.png")
    assert path.read_bytes().startswith(PNG[:8])


def test_log_image_without_pillow_raises_import_error_with_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    run = pte.Run(tmp_path)
    for image in (np.zeros((2, 2)), b"\xff\xd8\xff\xe0 a file of another format"):
        with pytest.raises(ImportError, match=r"requires Pillow.* Run: pip install 'pte-tracking\[plot\]'"):
            run.log_image("a", image, 1)
    run.log_image("a", PNG, 1)


# -- arrays and tensors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype", [bool, np.uint8, np.int8, np.int64, np.float16, np.float32, np.float64, np.longdouble]
)
def test_log_image_array_of_any_real_type_in_range_is_exact(dtype: Any, log: Log, messages: list[str]) -> None:
    top = 1 if dtype is bool or np.dtype(dtype).kind == "f" else 100
    assert log(np.array([[0, top]], dtype)).tolist() == [[0, 100 if top == 100 else 255]]
    assert messages == []


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int16, torch.float16, torch.bfloat16, torch.float64])
def test_log_image_tensor_of_any_real_type_in_range_is_exact(dtype: Any, log: Log, messages: list[str]) -> None:
    top = 1 if dtype is torch.bool or dtype.is_floating_point else 255
    assert log(torch.tensor([[0, top]], dtype=dtype)).tolist() == [[0, 255]]
    assert messages == []


def test_log_image_tensor_that_requires_grad_is_logged(log: Log) -> None:
    assert log(torch.ones(3, 2, 2, requires_grad=True)).shape == (2, 2, 3)


@pytest.mark.parametrize("image", [RAMP, torch.tensor(RAMP).float()[None], Image.fromarray(RAMP.astype(np.float32))])
def test_log_image_floats_up_to_255_are_divided_with_one_warning(image: Any, log: Log, messages: list[str]) -> None:
    for _ in range(2):
        assert np.abs(log(image).astype(float) - RAMP).max() < 1
    (message,) = (text for text in messages if "was logged before" not in text)
    assert "image 'a' at step 1: values from 0 to 255 were divided by 255" in message
    assert "normalize=True" in message


@pytest.mark.parametrize(
    ("image", "shades", "message"),
    [
        (np.array([[-1.0, 0.0, 1.0]]), [0, 128, 255], "values from -1 to 1 were scaled"),
        (np.array([[0.0, 1.5]]), [0, 255], "values from 0 to 1.5 were scaled"),
        (np.array([[-1000, 1000]]), [0, 255], "values from -1000 to 1000 were scaled"),
        (np.array([[-1e308, 1e308]]), [0, 255], "were scaled"),
        (np.array([[0, 65535]], np.uint16), [0, 255], "16-bit values from 0 to 65535 were divided by 257"),
        (np.array([[0, 65535]], ">u2"), [0, 255], "16-bit values"),
        (np.array([[np.nan, 1.0, 0.5]]), [0, 255, 128], r"not finite \(1 of 3\)"),
        (np.array([[np.inf, -np.inf, 0.5]]), [255, 0, 128], r"not finite \(2 of "),
        (np.full((1, 2), np.nan), [0, 0], r"not finite \(2 of "),
        (np.array([[np.nan, 255.0]]), [0, 255], "not finite .*, and values from 255 to 255 were divided by 255"),
    ],
)
def test_log_image_values_out_of_range_are_scaled_with_warning(
    image: Any, shades: list[int], message: str, log: Log, messages: list[str]
) -> None:
    assert log(image).tolist() == [shades]
    assert len(messages) == 1
    assert re.search(message, messages[0])


def test_log_image_rounding_beyond_range_is_clipped_without_warning(log: Log, messages: list[str]) -> None:
    assert log(np.array([[-1e-6, 1.0 + 1e-6]])).tolist() == [[0, 255]]
    assert messages == []


def test_log_image_masked_elements_are_black(log: Log) -> None:
    assert log(np.ma.array([[1.0, 1.0]], mask=[[True, False]])).tolist() == [[0, 255]]


@pytest.mark.parametrize("image", [np.zeros((2, 2), complex), np.array([["a"]]), None, [[object()]]])
def test_log_image_without_real_numbers_raises_type_error(image: Any, log: Log) -> None:
    with pytest.raises(TypeError, match=r"image 'a' at step 1: expected real numbers, got \w+ of "):
        log(image)


@pytest.mark.parametrize("image", [torch.zeros(2, 2, device="meta"), torch.zeros(2, 2).to_sparse()])
def test_log_image_tensor_that_cannot_be_read_raises_type_error(image: Any, log: Log) -> None:
    with pytest.raises(TypeError, match=r"image 'a' at step 1: .* got Tensor that could not be read: "):
        log(image)


def test_log_image_path_raises_type_error_that_asks_for_content(log: Log) -> None:
    with pytest.raises(TypeError, match=r"got 'picture.png' of type str. To log a file, pass its content"):
        log("picture.png")
    with pytest.raises(TypeError, match=r"'picture.png'\) of type PosixPath. To log a file, pass its content"):
        log(Path("picture.png"))


@pytest.mark.parametrize(
    ("image", "advice"),
    [
        (np.zeros((3, 8, 8)), r"image.transpose\(1, 2, 0\)"),
        (np.zeros((2, 3, 8, 8)), r"image.transpose\(0, 2, 3, 1\)"),
        (torch.zeros(8, 8, 3), r"image.permute\(2, 0, 1\)"),
        (torch.zeros(2, 8, 8, 3), r"image.permute\(0, 3, 1, 2\)"),
        (np.zeros((8, 8, 2)), r"1, 3 or 4 channels"),
        (np.zeros((0, 8, 3)), "at least one pixel"),
        (torch.zeros(0, 3, 8, 8), "at least one pixel"),
        (np.zeros(8), "got ndarray of shape"),
        (np.zeros((2, 2, 8, 8, 3)), "got ndarray of shape"),
    ],
)
def test_log_image_invalid_shape_raises_value_error_with_advice(image: Any, advice: str, log: Log) -> None:
    with pytest.raises(ValueError, match=rf"image 'a' at step 1: expected shape .*{advice}"):
        log(image)


# -- batches -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_log_image_batch_becomes_grid_of_eight_columns(channels: int, log: Log) -> None:
    batch = np.arange(1, 11).reshape(10, 1, 1, 1) * np.ones((10, channels, 4, 6), int)
    grid = log(torch.tensor(batch))
    assert grid.shape[:2] == (2 * (4 + 2) + 2, 8 * (6 + 2) + 2)
    first = grid.reshape(*grid.shape[:2], -1)[:, :, 0]
    assert first[2, 2:-2:8].tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert first[8, 2:20:8].tolist() == [9, 10, 0]
    assert first[:2].max() == first[:, :2].max() == first[:, 8:10].max() == 0
    assert (log(batch.transpose(0, 2, 3, 1), "b") == grid).all()


def test_log_image_batch_of_few_images_has_no_empty_columns(log: Log) -> None:
    assert log(torch.zeros(3, 1, 4, 4)).shape == (8, 20)
    assert log(torch.zeros(1, 3, 4, 4), "b").shape == (4, 4, 3)


def test_log_image_list_of_images_becomes_grid(log: Log) -> None:
    assert log([torch.zeros(3, 4, 4)] * 2).shape == (8, 14, 3)
    assert log((np.zeros((4, 4)),) * 2, "b").shape == (8, 14)
    with pytest.raises(ValueError, match=r"expected a list of images of one shape, got \(3, 4, 4\), \(3, 8, 8\)"):
        log([torch.zeros(3, 4, 4), torch.zeros(3, 8, 8)])


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_log_image_normalize_scales_batch_from_lowest_to_highest(scale: float, log: Log, messages: list[str]) -> None:
    batch = torch.tensor([5.0, 6.0, 7.0]).reshape(3, 1, 1, 1) * scale
    assert log(batch, normalize=True)[2, 2:11:3].tolist() == [0, 128, 255]
    assert messages == []


@pytest.mark.parametrize("image", [torch.full((2, 2), 3.0), np.zeros((2, 2), np.uint8), Image.new("L", (2, 2), 9), PNG])
def test_log_image_normalize_constant_image_is_black(image: Any, log: Log) -> None:
    assert log(image, normalize=True).max() == 0


def test_log_image_normalize_applies_to_pil_images_and_files(log: Log) -> None:
    image = Image.fromarray(np.array([[50, 100]], np.uint8))
    assert log(image, normalize=True).tolist() == [[0, 255]]
    assert log(encode(image, "PNG"), "b", normalize=True).tolist() == [[0, 255]]


def test_log_image_normalize_opaque_palette_image_scales_its_colors(log: Log) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([50, 60, 70, 100, 90, 80])
    image.putpixel((1, 0), 1)
    assert log(image, normalize=True).tolist() == [[[0, 51, 102], [255, 204, 153]]]


# -- histograms --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values", [np.array([1j]), np.array(["a"]), None, [[1, 2], [3]], torch.empty(2, device="meta")]
)
def test_log_histogram_without_real_numbers_raises_type_error(values: Any, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"histogram 'a' at step 1: expected (real numbers|an array or tensor), got "):
        pte.Run(tmp_path).log_histogram("a", values, 1)


def test_log_histogram_ignores_masked_elements(tmp_path: Path) -> None:
    with pte.Run(tmp_path) as run:
        run.log_histogram("a", np.ma.array([1.0, 99.0], mask=[False, True]), 1)
    (event,) = (e for e, _ in read_effective(tmp_path / "journal.jsonl") if isinstance(e, events.Histogram))
    assert (event.min, event.max) == (1.0, 1.0)


# -- default steps -----------------------------------------------------------------------------------------------------


def log_all(run: pte.Run) -> None:
    run.log_image("a", PNG)
    run.log_figure("a", PNG)
    run.log_confusion_matrix("b", [[1]])
    run.log_histogram("a", [1.0])
    run.log_text("a", "text")


def steps(directory: Path) -> list[int]:
    kinds = events.Image | events.Figure | events.Histogram | events.Text
    return [event.step for event, _ in read_effective(directory / "journal.jsonl") if isinstance(event, kinds)]


def test_media_step_defaults_to_iteration_of_manager(tmp_path: Path) -> None:
    manager = pte.ExtensionsManager({}, 1, [extensions.LogReport()], iters_per_epoch=3, out_dir=tmp_path)
    manager.extend(lambda manager: log_all(manager.run), name="pictures", trigger=(2, "iteration"))
    for _ in manager.batches(range(3)):
        with manager.run_iteration():
            pass
    log_all(manager.run)
    manager.close()
    assert steps(tmp_path) == [2] * 5 + [3] * 5


def test_media_step_defaults_to_last_row_without_manager(tmp_path: Path) -> None:
    with pte.Run(tmp_path) as run:
        log_all(run)
        run.log_metrics({"loss": 1.0}, 7)
        log_all(run)
    assert steps(tmp_path) == [0] * 5 + [7] * 5
    with pte.Run(tmp_path, resume=True) as run:
        log_all(run)
    assert steps(tmp_path)[10:] == [7] * 5


MEDIA: dict[str, Log] = {
    "figure": lambda run, key, step: run.log_figure(key, PNG, step),
    "image": lambda run, key, step: run.log_image(key, PNG, step),
    "histogram": lambda run, key, step: run.log_histogram(key, np.arange(3), step),
    "text": lambda run, key, step: run.log_text(key, "text", step),
    "table": lambda run, key, step: run.log_table(key, {"a": [1]}, step),
    "html": lambda run, key, step: run.log_html(key, "<b>a</b>", step),
    "audio": lambda run, key, step: run.log_audio(key, np.zeros(8), step, sample_rate=8),
    "video": lambda run, key, step: run.log_video(key, b"GIF89a" + bytes(20), step),
}


@pytest.mark.parametrize("kind", MEDIA)
def test_medium_logged_twice_at_one_step_warns_once_per_key(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pte.Run(tmp_path, sinks=["json"]) as run:
        for step in (1, 2):
            for key in ("a", "b"):
                MEDIA[kind](run, key, step)
        assert caplog.messages == []
        for _ in range(3):
            MEDIA[kind](run, "a", 3)
        MEDIA[kind](run, "a", 4)
        MEDIA[kind](run, "a", 4)
    (message,) = caplog.messages
    assert message.startswith(f"{kind} 'a' was logged before at step 3.")


def test_media_of_other_rank_logged_twice_does_not_warn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pte.Run(tmp_path, sinks=["json"], rank=1, world_size=2) as run:
        for log in MEDIA.values():
            log(run, "a", 1)
            log(run, "a", 1)
    assert caplog.messages == []


def test_medium_of_wrong_type_logged_again_does_not_warn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pte.Run(tmp_path, sinks=["json"]) as run:
        with pytest.raises(ValueError, match="image 'a' at step 1"):
            run.log_image("a", np.zeros((1, 2, 3, 4, 5, 6)), 1)
        run.log_image("a", PNG, 1)
    assert caplog.messages == []
