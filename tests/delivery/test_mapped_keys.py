"""Names of keys in a backend with limits."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pte_tracking._delivery.event_filter import EventFilter
from pte_tracking._delivery.mapped_keys import MappedKeys
from pte_tracking._store.events import Checkpoint, Metrics, Params
from pte_tracking.sinks import Limits

LIMITS = Limits(key_characters=re.compile(r"[\w/-]"), key_length=20, key_is_path=True)
FILES = Limits(key_characters=re.compile(r"[\w/-]"), key_length=20, key_is_path=True, key_is_file=True)


def test_first_key_keeps_readable_name_and_later_one_gets_digest(caplog: pytest.LogCaptureFixture) -> None:
    names = MappedKeys("mine", LIMITS)
    assert names.find("Metrics", "D(x)") == "D_x_"
    assert re.fullmatch("D_x_-[0-9a-f]{8}", names.find("Metrics", "D[x]"))
    assert re.fullmatch("D_x_-[0-9a-f]{8}", names.find("Metrics", "D_x_"))  # An allowed key, but too late.
    assert names.find("Params", "D[x]") == "D_x_"
    assert names.find("Metrics", "D(x)") == "D_x_"
    assert len(caplog.messages) == 4


@given(st.lists(st.text("a_@/", min_size=1, max_size=30), unique=True), st.sampled_from([LIMITS, FILES]))
def test_restored_names_stay_the_same(keys: list[str], limits: Limits) -> None:
    first, second = MappedKeys("mine", limits), MappedKeys("mine", limits)
    expected = {key: first.find("Metrics", key) for key in keys}
    assert len(set(expected.values())) == len(keys)
    second.restore(first.state())
    assert {key: second.find("Metrics", key) for key in reversed(keys)} == expected


@given(st.lists(st.text("ab/", min_size=1, max_size=8), unique=True))
def test_names_of_files_are_no_directories_of_others(keys: list[str]) -> None:
    mapped = MappedKeys("mine", FILES)
    names = [mapped.find("Metrics", key) for key in keys]
    assert not any(other.startswith(f"{name}/") for name in names for other in names)


def test_key_below_file_of_its_name_loses_its_slash() -> None:
    names = MappedKeys("mine", FILES)
    assert [names.find("Metrics", key) for key in ("loss", "loss/train", "other/a")] == [
        "loss",
        "loss_train",
        "other/a",
    ]
    assert re.fullmatch("other-[0-9a-f]{8}", names.find("Metrics", "other"))


def test_history_read_again_and_checkpoints_have_names_of_first_delivery() -> None:
    event_filter = EventFilter("mine", "mine", LIMITS)
    later, first = Metrics(1, 0.0, 1, {"D[x]": 1}), Metrics(2, 0.0, 2, {"D(x)": 1})
    delivered = [event.values for event in event_filter.select([first, later])]  # type: ignore[union-attr]
    again = [event.values for event in event_filter.restarted().select([later, first])]  # type: ignore[union-attr]
    assert again == delivered[::-1]
    (checkpoint,) = event_filter.select([Checkpoint(3, 0.0, "snapshot", 2, "", 0, None, {"D[x]": 1.0})])
    assert list(checkpoint.values) == list(delivered[1])  # type: ignore[union-attr]


def test_sink_without_limits_keeps_keys_and_state_empty() -> None:
    event_filter = EventFilter("mine", "mine", Limits())
    (params,) = event_filter.select([Params(1, 0.0, {"D(x)": 1, "": 2})])
    assert params == Params(1, 0.0, {"D(x)": 1, "": 2})
    assert event_filter.state()["mapped"] == {}
