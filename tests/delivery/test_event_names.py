"""Names of several kinds of events that share one set of names."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pte_tracking._delivery.event_filter import EventFilter
from pte_tracking._store.events import AnyEvent, Dataset, Figure, Histogram, Image, Metrics, Text
from pte_tracking.sinks import Limits

LIMITS = Limits(
    shared_names=("metric", "figure", "image", "histogram", "text", "dataset"), reserved_names=frozenset({"own"})
)


def metric(*keys: str) -> Metrics:
    return Metrics(1, 0.0, 1, dict.fromkeys(keys, 1.0))


def text(key: str) -> Text:
    return Text(1, 0.0, key, 1, "text")


def figure(key: str) -> Figure:
    return Figure(1, 0.0, key, 1, "picture.png")


def image(key: str) -> Image:
    return Image(1, 0.0, key, 1, "picture.png")


def histogram(key: str) -> Histogram:
    return Histogram(1, 0.0, key, 1, [0.0, 1.0], [1.0], 0.0, 1.0, 1.0, 1.0)


def make_filter(limits: Limits = LIMITS) -> EventFilter:
    return EventFilter("mine", "mine", limits)


def names(event_filter: EventFilter, *selected: AnyEvent) -> list[str]:
    return [
        name
        for event in event_filter.select(selected)
        for name in (event.values if isinstance(event, Metrics) else [getattr(event, "key", "")])
    ]


@pytest.mark.parametrize(
    ("logged", "expected"),
    [
        (
            [metric("a"), figure("a"), image("a"), histogram("a"), text("a")],
            ["", "figure", "image", "histogram", "text"],
        ),
        ([text("a"), metric("a")], ["", "metric"]),
        ([image("a"), figure("a"), image("a")], ["", "figure", ""]),
        ([figure("a"), figure("a")], ["", ""]),
    ],
)
def test_name_of_several_kinds_first_kind_keeps_it(logged: list[AnyEvent], expected: list[str]) -> None:
    assert names(make_filter(), *logged) == [f"a/{kind}" if kind else "a" for kind in expected]


def test_name_of_another_event_that_equals_renamed_one_stays_distinct() -> None:
    logged = [metric("a"), figure("a"), metric("a/figure"), text("a/image"), image("a"), figure("a")]
    assert names(make_filter(), *logged) == ["a", "a/figure", "a/figure/metric", "a/image", "a/image-2", "a/figure"]


def test_reserved_name_is_never_used() -> None:
    assert names(make_filter(), metric("own"), text("own")) == ["own/metric", "own/text"]


def test_epoch_of_rows_is_name_of_metric_from_the_start() -> None:
    assert names(make_filter(), text("epoch"), metric("epoch")) == ["epoch/text", "epoch"]


def test_dataset_with_name_of_metric_is_renamed() -> None:
    event_filter = make_filter()
    selected = list(event_filter.select([metric("dataset/train/digits"), Dataset(2, 0.0, "digits", "0", "train")]))
    assert isinstance(selected[1], Dataset)
    assert selected[1].name == "digits/dataset"


def test_kinds_that_do_not_share_names_are_unchanged() -> None:
    limits = Limits(shared_names=("figure", "image"))
    assert names(make_filter(limits), metric("a"), text("a"), figure("a"), image("a")) == ["a", "a", "a", "a/image"]
    assert names(make_filter(Limits()), image("a"), metric("a"), figure("a")) == ["a", "a", "a"]


def test_row_for_another_sink_takes_no_name() -> None:
    foreign_row = Metrics(1, 0.0, 1, {"a": 1.0}, sinks=["other"])
    assert names(make_filter(), foreign_row, figure("a")) == ["a"]


def test_renamed_event_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    event_filter = make_filter()
    names(event_filter, metric("a"), figure("a"), figure("a"), text("own"))
    restarted = make_filter()
    restarted.restore(json.loads(json.dumps(event_filter.state())))
    names(restarted, figure("a"))
    assert caplog.messages == [
        "mine: figure 'a' is delivered as 'a/figure', because this name belongs to another kind (metric)",
        "mine: text 'own' is delivered as 'own/text', because this name is reserved",
    ]


def test_replayed_history_has_same_names() -> None:
    event_filter = make_filter()
    assert names(event_filter, figure("a"), metric("a")) == ["a", "a/metric"]
    event_filter.rewind([])
    assert names(event_filter, metric("a"), figure("a")) == ["a/metric", "a"], "a rewind does not swap the kinds"
    replay = event_filter.restarted()
    assert names(replay, metric("a", "b"), figure("a"), figure("b")) == ["a/metric", "b", "a", "b/figure"]
    assert names(event_filter, figure("b")) == ["b"], "a replay does not change the original"


MAKERS = {"metric": metric, "figure": figure, "image": image, "histogram": histogram, "text": text}
KEYS = st.sampled_from(["a", "b", "own", "epoch", "a/figure", "a/figure-2", "a/metric", "a/figure/metric"])
LOGGED = st.lists(st.tuples(st.sampled_from(list(MAKERS)), KEYS), max_size=30)


@given(LOGGED, st.integers(0, 30))
def test_names_have_one_kind_each_across_restarts(logged: list[tuple[str, str]], split_index: int) -> None:
    selected: list[str] = []
    event_filter = make_filter()
    for part in (logged[:split_index], logged[split_index:]):
        restarted = make_filter()
        restarted.restore(json.loads(json.dumps(event_filter.state())))
        event_filter = restarted
        for step, (kind, key) in enumerate(part, len(selected)):
            event = MAKERS[kind](key)
            selected += names(
                event_filter, Metrics(1, 0.0, step, event.values) if isinstance(event, Metrics) else event
            )
    by_name: dict[str, set[tuple[str, str]]] = {}
    by_event: dict[tuple[str, str], set[str]] = {}
    for event_name, name in zip(logged, selected, strict=True):
        by_name.setdefault(name, set()).add(event_name)
        by_event.setdefault(event_name, set()).add(name)
    assert all(len(events) == 1 for events in by_name.values())
    assert all(len(found) == 1 for found in by_event.values())
    assert "own" not in by_name
