"""Selection of events for a sink."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pte_tracking._delivery.batch import split_events
from pte_tracking._delivery.event_filter import EventFilter
from pte_tracking._store import events
from pte_tracking._store.events import AnyEvent, Metrics
from pte_tracking.sinks import Limits

rows = st.builds(
    Metrics,
    seq=st.just(1),
    time=st.just(0.0),
    step=st.integers(0, 3),
    values=st.dictionaries(st.sampled_from("abcdefg@"), st.integers(0, 9), max_size=8),
    log=st.sampled_from(["log", "other"]),
    sinks=st.none() | st.lists(st.sampled_from(["mine", "mine-2", "other"]), max_size=2),
)


def points(selected: list[AnyEvent]) -> list[tuple[str, int, object]]:
    return [
        (key, event.step, value)
        for event in selected
        if isinstance(event, Metrics)
        for key, value in event.values.items()
    ]


@given(st.lists(rows), st.integers(1, 5))
def test_event_filter_selects_each_key_of_step_once_for_its_sink(history: list[Metrics], max_values: int) -> None:
    history.sort(key=lambda event: event.step)
    event_filter = EventFilter("mine-2", "mine", Limits(batch_values=max_values))
    selected = list(event_filter.select(history))
    expected: dict[tuple[str, int], object] = {}
    for event in history:
        if event.sinks is None or {"mine", "mine-2"} & set(event.sinks):
            for key, value in event.values.items():
                expected.setdefault((key, event.step), value)
    assert points(selected) == [(key, step, value) for (key, step), value in expected.items()]
    for batch in split_events(selected, max_values):
        assert len(points(batch)) <= max_values


def test_event_filter_selects_no_first_batch() -> None:
    history: list[AnyEvent] = [events.FirstBatch(1, 0.0, 3, "main", {"": ("int", 5)}), events.Text(2, 0.0, "a", 3, "b")]
    assert list(EventFilter("mine", "mine", Limits()).select(history)) == history[1:]


@given(st.lists(rows), st.integers(1, 3))
def test_event_filter_separate_logs_are_kept_whole(history: list[Metrics], max_values: int) -> None:
    event_filter = EventFilter("mine", "mine", Limits(separate_logs=True, batch_values=max_values))
    own_rows = [event for event in history if event.sinks is None or "mine" in event.sinks]
    assert points(list(event_filter.select(history))) == points(list(own_rows))


@given(st.lists(rows), st.integers(0, 20))
def test_event_filter_restored_state_continues_selection(history: list[Metrics], split_index: int) -> None:
    history.sort(key=lambda event: event.step)
    limits = Limits()
    first = EventFilter("mine", "mine", limits)
    selected = list(first.select(history[:split_index]))
    second = EventFilter("mine", "mine", limits)
    second.restore(first.state())
    selected += second.select(history[split_index:])
    assert points(selected) == points(list(EventFilter("mine", "mine", limits).select(history)))


def test_event_filter_key_in_two_logs_selects_the_first_value() -> None:
    rows = [Metrics(1, 0.0, 1, {"a": 1}), Metrics(2, 0.0, 1, {"a": 2}, log="other")]
    assert points(list(EventFilter("mine", "mine", Limits()).select(rows))) == [("a", 1, 1)]


def test_event_filter_explicit_values_are_all_selected() -> None:
    rows = [
        Metrics(1, 0.0, 1, {"a": 1}, explicit=True),
        Metrics(2, 0.0, 1, {"a": 2}),
        Metrics(3, 0.0, 1, {"a": 3}, explicit=True),
        Metrics(4, 0.0, 1, {"a": 4}, log="other"),
    ]
    event_filter = EventFilter("mine", "mine", Limits())
    assert points(list(event_filter.select(rows))) == [("a", 1, 1), ("a", 1, 2), ("a", 1, 3)]
    event_filter.rewind(reversed(rows[:1]))
    assert points(list(event_filter.select(rows[1:]))) == [("a", 1, 2), ("a", 1, 3)]


@pytest.mark.parametrize(
    ("separate_logs", "expected"), [(False, [("v", 1, 5), ("a", 2, 1)]), (True, [("v", 2, 6), ("a", 2, 1)])]
)
def test_event_filter_measured_values_are_selected_once(
    separate_logs: bool, expected: list[tuple[str, int, float]]
) -> None:
    events = [Metrics(1, 0.0, 1, {"v": 5}, log=None), Metrics(2, 0.0, 2, {"v": 6, "a": 1}, measured=["v"])]
    assert points(list(EventFilter("mine", "mine", Limits(separate_logs=separate_logs)).select(events))) == expected


def test_event_filter_suppressed_rows_suppress_no_measured_mean() -> None:
    event_filter = EventFilter("mine", "mine", Limits())
    event_filter.suppress([Metrics(1, 0.0, 2, {"v": 6, "a": 1}, measured=["v"])])
    assert points(list(event_filter.select([Metrics(2, 0.0, 2, {"v": 7, "a": 1})]))) == [("v", 2, 7)]


def test_event_filter_maps_keys_of_every_event(caplog: pytest.LogCaptureFixture) -> None:
    limits = Limits(key_characters=re.compile(r"[\w-]"))
    mapped_events: list[AnyEvent] = [
        Metrics(1, 0.0, 1, {"a@": 1}),
        events.Params(2, 0.0, {"a@": 1}),
        events.Tags(3, 0.0, {"a@": "1"}),
        events.Text(4, 0.0, "a@", 1, "text"),
        events.Figure(5, 0.0, "a@", 1, "path@"),
    ]
    selected = list(EventFilter("mine", "mine", limits).select(mapped_events))
    mapped = {key for event in selected for key in getattr(event, "values", {getattr(event, "key", ""): None})}
    assert mapped == {"a_"}
    assert caplog.messages == ["mine: key 'a@' is delivered as 'a_'"] * 4


def test_event_filter_suppressed_points_are_not_sent_again(caplog: pytest.LogCaptureFixture) -> None:
    event_filter = EventFilter("mine", "mine", Limits())
    nan = float("nan")
    event_filter.suppress([Metrics(1, 0.0, 1, {"a": 1, "n": nan}), Metrics(2, 0.0, 2, {"a": 2})])
    repeated_rows: list[AnyEvent] = [
        Metrics(4, 0.0, 1, {"a": 1, "b": 1, "n": nan}),
        Metrics(-9, 0.0, 9, {"system/cpu": 1}, explicit=True),
        Metrics(5, 0.0, 2, {"a": 9}),
        Metrics(6, 0.0, 3, {"a": 3}),
    ]
    assert points(list(event_filter.select(repeated_rows))) == [("b", 1, 1), ("system/cpu", 9, 1), ("a", 3, 3)]
    (message,) = caplog.messages
    assert "1 new value differs (first: 'a' at step 2: 9, previously 2)" in message
    assert not event_filter._superseded, "memory of passed steps must be released"


def test_event_filter_counts_differing_values_without_wall_clock(caplog: pytest.LogCaptureFixture) -> None:
    event_filter = EventFilter("mine", "mine", Limits())
    clocks = ["elapsed_time", "train/images_per_second", "it/s", "monitor/gpu_memory_peak_megabytes", "throughput"]
    event_filter.suppress([Metrics(1, 0.0, step, dict.fromkeys([*clocks, "loss", "timeout"], 1)) for step in (1, 2)])
    row = dict.fromkeys([*clocks, "loss", "timeout"], 2)
    assert points(list(event_filter.select([Metrics(4, 0.0, 1, row), Metrics(5, 0.0, 2, row)]))) == []
    assert caplog.messages == []
    for _ in range(2):
        event_filter.report_differences()
    (message,) = caplog.messages
    assert "4 new values differ (first: 'loss' at step 1: 2, previously 1)" in message
