"""Contract tests of the mirror, read from the journal and the snapshots in a directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pte_backends.mirror import MirrorSink
from pte_backends.mirror._journal import download_journal
from pte_backends.mirror._snapshots import read_indexes
from pte_backends.mirror._store import Store
from pte_tracking._store import events
from pte_tracking._store.journal_reader import read_effective
from pte_tracking._store.manifest import Manifest
from pte_tracking.sinks import Display, EventKind, Sink
from pte_tracking.testing import Points, SinkContract

#: Event of each kind that only the journal at the mirror contains.
_IN_JOURNAL: dict[EventKind, type[events.AnyEvent]] = {
    "metrics": events.Metrics,
    "params": events.Params,
    "tags": events.Tags,
    "histogram": events.Histogram,
    "text": events.Text,
    "dataset": events.Dataset,
    "status": events.RunEnded,
}
#: Name of the file of each kind whose files are copied.
_FILES: dict[EventKind, str] = {
    "figure": "picture.png",
    "image": "picture.png",
    "table": "table.json",
    "html": "page.html",
    "audio": "sound.wav",
    "video": "clip.gif",
    "artifact": "file.txt",
    "model": "exports/model/model.pt2",
}


def read_mirror(sink: MirrorSink, run_directory: Path) -> list[events.AnyEvent]:
    """Return the effective history at a mirror."""
    journal = run_directory / "downloaded.jsonl"
    download_journal(Store(sink.url), Manifest.load(run_directory).id, journal)
    return [event for event, _ in read_effective(journal)]


class TestMirror(SinkContract):
    large_run_rows = 2000
    generated_runs = 5

    def make_sink(self, folder: Path) -> Sink:
        return MirrorSink(str(folder / "mirror"))

    def read_points(self, sink: Sink, run_directory: Path) -> Points:
        assert isinstance(sink, MirrorSink)
        points: Points = {}
        for event in read_mirror(sink, run_directory):
            if isinstance(event, events.Metrics):
                for key, value in event.values.items():
                    points.setdefault(key, []).append((event.step, float(value)))  # type: ignore[arg-type]
        return points

    def read_shown(self, sink: Sink, run_directory: Path) -> Mapping[EventKind, Display | None]:
        assert isinstance(sink, MirrorSink)
        kinds = {type(event) for event in read_mirror(sink, run_directory)}
        (index,) = read_indexes(Store(sink.url), Manifest.load(run_directory).id).values()
        shown: dict[EventKind, Display | None] = {
            kind: "artifact" if event_class in kinds else None for kind, event_class in _IN_JOURNAL.items()
        }
        (copy,) = Path(sink.url).glob("*/snapshots/*/snapshot")
        shown["checkpoint"] = "native" if (index.path, copy.read_bytes()) == ("snapshot", b"a snapshot") else None
        (files,) = Path(sink.url).glob("*/files")
        for kind, name in _FILES.items():
            shown[kind] = "artifact" if (files / name).read_bytes() == (run_directory / name).read_bytes() else None
        return shown
