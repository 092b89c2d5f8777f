"""Tests of figures: throttled drawing, files, and logged figures."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from pte_tracking import ExtensionsManager
from pte_tracking._store.events import Figure as FigureEvent
from pte_tracking._store.journal_reader import read
from pte_tracking._store.printable import escape_label
from pte_tracking.extensions._picture import Picture


def paint(figure: Figure) -> None:
    figure.add_subplot().plot([1, 2, 3])


@pytest.fixture
def manager(tmp_path: Path) -> ExtensionsManager:
    return ExtensionsManager({}, 1, iters_per_epoch=1, out_dir=tmp_path / "run", sinks=[])


def test_picture_million_offers_draw_about_thousand_figures(manager: ExtensionsManager) -> None:
    drawn: list[int] = []

    class InstantPicture(Picture):
        def _draw(self, manager: object, paint: object) -> None:
            self._drawn = self._offered
            drawn.append(self._offered)

    picture = InstantPicture("Test", "a.png")
    for _ in range(1_000_000):
        picture.offer(manager, paint)
    assert drawn[:100] == list(range(1, 101))
    assert len(drawn) < 1100
    assert 990_000 < drawn[-1] < 1_000_000
    picture.finish(manager, paint)
    assert drawn[-1] == 1_000_000


def test_picture_offers_after_first_hundred_are_throttled(manager: ExtensionsManager) -> None:
    picture = Picture("Test", "a.png")
    picture.load_state_dict({"offered": 100, "drawn": 50})
    for _ in range(50):
        picture.offer(manager, paint)
    assert picture.state_dict() == {"offered": 150, "drawn": 101}
    picture.finish(manager, paint)
    assert picture.state_dict() == {"offered": 150, "drawn": 150}
    manager.close()


def test_picture_finish_draws_last_version_once(manager: ExtensionsManager) -> None:
    painted: list[Figure] = []
    picture = Picture("Test", "a.png")
    picture.finish(manager, painted.append)
    picture.offer(manager, painted.append)
    picture.finish(manager, painted.append)
    assert len(painted) == 1
    manager.close()


def test_picture_file_and_run_figure_are_identical(manager: ExtensionsManager) -> None:
    Picture("Test", "some/where.png").offer(manager, paint)
    manager.close()
    out = Path(manager.out)
    (event,) = [event for event, _ in read(out / "journal.jsonl") if isinstance(event, FigureEvent)]
    assert event.key == "some/where"
    assert (out / event.path).read_bytes() == (out / "some/where.png").read_bytes()
    assert (out / event.path).read_bytes().startswith(b"\x89PNG")


def test_picture_pdf_file_is_logged_as_png(manager: ExtensionsManager) -> None:
    manager.start()
    Picture("Test", "a.pdf").offer(manager, paint)
    manager.close()
    assert (Path(manager.out) / "a.pdf").read_bytes().startswith(b"%PDF")
    (figure,) = Path(manager.out).glob("figures/*/*.png")
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_picture_unwritable_file_is_logged_and_not_raised(
    manager: ExtensionsManager, caplog: pytest.LogCaptureFixture
) -> None:
    Path(manager.out).mkdir()
    (Path(manager.out) / "taken").write_text("a file, not a directory")
    Picture("Test", "taken/a.png").offer(manager, paint)
    assert "taken/a.png" in caplog.text
    manager.close()


def test_picture_file_is_archived_with_run(manager: ExtensionsManager) -> None:
    Picture("Test", "a.png").offer(manager, paint)
    manager.close()
    out = Path(manager.out)
    with (
        ExtensionsManager({}, 1, iters_per_epoch=1, out_dir=out, sinks=[]) as next_manager,
        next_manager.run_iteration(),
    ):
        pass
    assert not (out / "a.png").exists()
    assert len(list(out.glob("previous/*/a.png"))) == 1


def test_picture_concurrent_threads_draw_identical_files(tmp_path: Path) -> None:
    def draw(name: str) -> None:
        manager = ExtensionsManager({}, 1, iters_per_epoch=1, out_dir=tmp_path / name, sinks=[])
        manager.start()
        for _ in range(3):
            Picture("Test", "a.png").offer(manager, paint)
        manager.close()

    threads = [threading.Thread(target=draw, args=(f"thread_{i}",)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    draw("main")
    assert {path.read_bytes() for path in tmp_path.glob("*/a.png")} == {(tmp_path / "main/a.png").read_bytes()}
    assert len(list(tmp_path.glob("*/a.png"))) == 4


def test_picture_unknown_format_raises_value_error() -> None:
    with pytest.raises(ValueError, match=r"filename: expected one of the suffixes .*\.pdf.*\.png.*, got 'a\.docx'"):
        Picture("Test", "a.docx")


def test_picture_missing_matplotlib_raises_import_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(ImportError, match=r"Test requires matplotlib.*pip install 'pte-tracking\[plot\]'"):
        Picture("Test", "a.png")


def test_escape_label_special_characters_are_escaped() -> None:
    assert escape_label("a$b$") == r"a\$b\$"
    assert escape_label("_hidden") == " _hidden"
