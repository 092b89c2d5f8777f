"""Files of kinds that a backend does not show are delivered as artifacts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from pte_tracking._delivery.event_filter import EventFilter
from pte_tracking._store import events
from pte_tracking.sinks import FILE_KINDS, Artifact, Display, EventKind, Limits, ModelSignature

PATH = "media/audio/a_b-1/step_3.wav"
FIELDS: dict[EventKind, events.AnyEvent] = {
    "figure": events.Figure(1, 2.0, "a/b", 3, PATH),
    "image": events.Image(1, 2.0, "a/b", 3, PATH),
    "table": events.Table(1, 2.0, "a/b", 3, PATH),
    "html": events.Html(1, 2.0, "a/b", 3, PATH),
    "audio": events.Audio(1, 2.0, "a/b", 3, PATH, "", 8000),
    "video": events.Video(1, 2.0, "a/b", 3, PATH, "", 4.0),
    "model": events.Model(1, 2.0, "main", 3, PATH, "0" * 64, 5, "2.6.0", ModelSignature([], [])),
}


def select(event: Any, shows: Mapping[EventKind, Display] | None) -> Any:
    (selected,) = EventFilter("mine", "mine", Limits(), shows).select([event])
    return selected


@pytest.mark.parametrize("kind", sorted(FILE_KINDS))
def test_file_of_hidden_kind_becomes_artifact_in_its_directory(kind: EventKind) -> None:
    artifact = Artifact(1, 2.0, PATH, "media/audio/a_b-1")
    assert select(FIELDS[kind], {"metrics": "native", "artifact": "native"}) == artifact


@pytest.mark.parametrize("kind", sorted(FILE_KINDS))
@pytest.mark.parametrize("shows", [{"metrics": "native"}, {}])
def test_file_without_artifacts_in_backend_stays(kind: EventKind, shows: Mapping[EventKind, Display]) -> None:
    assert select(FIELDS[kind], shows) is FIELDS[kind]


@pytest.mark.parametrize("kind", sorted(FILE_KINDS))
def test_file_of_declared_kind_stays(kind: EventKind) -> None:
    assert select(FIELDS[kind], {"artifact": "native", kind: "artifact"}) is FIELDS[kind]


def test_sink_without_declaration_receives_later_kinds_as_artifacts() -> None:
    converted = {kind for kind, event in FIELDS.items() if isinstance(select(event, None), Artifact)}
    assert converted == FILE_KINDS - {"figure", "image"}
