"""Mapping of keys: valid, deterministic, and without collisions."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pte_tracking.sinks import Limits, map_key

MLFLOW = Limits(key_characters=re.compile(r"[\w\-./: ]"), key_length=250, key_is_path=True)
LIMITS = [
    MLFLOW,
    Limits(key_characters=re.compile("[a-z_0-9-]"), key_length=20),
    Limits(key_is_path=True),
    Limits(key_length=12),
]

# Keys from few characters collide more often.
keys = st.text(min_size=1) | st.text("ab./-_0@ ", min_size=1, max_size=30) | st.text("aé@", min_size=240, max_size=260)


def is_allowed(key: str, limits: Limits) -> bool:
    parts = key.split("/")
    return (
        (limits.key_length is None or len(key) <= limits.key_length)
        and (limits.key_characters is None or all(limits.key_characters.fullmatch(char) for char in key))
        and not (limits.key_is_path and any(part in ("", ".", "..") for part in parts))
        and not (limits.key_is_path and key.startswith(".."))
        and key != ""
    )


@pytest.mark.parametrize("limits", LIMITS)
@given(key=keys)
def test_map_key_result_satisfies_limits(limits: Limits, key: str) -> None:
    assert is_allowed(map_key(key, limits), limits)


@pytest.mark.parametrize("limits", LIMITS)
@given(distinct_keys=st.lists(keys, unique=True, min_size=2))
def test_map_key_distinct_keys_never_collide(limits: Limits, distinct_keys: list[str]) -> None:
    names: list[str] = []
    for key in distinct_keys:
        name = map_key(key, limits, names)
        assert name not in names
        assert is_allowed(name, limits)
        names.append(name)


@given(key=keys)
def test_map_key_without_limits_keeps_key(key: str) -> None:
    assert map_key(key, Limits()) == key
    assert map_key(key, Limits(separate_logs=True, batch_values=7)) == key


@pytest.mark.parametrize("key", ["loss", "train/loss", "val/top-5 acc.", "a-b-c", "x" * 250, "lr-0123abcd"])
def test_map_key_allowed_key_is_unchanged(key: str) -> None:
    assert map_key(key, MLFLOW) == key


@pytest.mark.parametrize(
    ("key", "mapped"),
    [
        ("D(x)", "D_x_"),
        ("acc@5", "acc_5"),
        ("a//b", "a/_/b"),
        ("/a", "_/a"),
        ("../a", "_/a"),
        (".", "_"),
        ("..loss", "_loss"),
        ("x" * 251, "x" * 250),
        ("x" * 249 + "/y", "x" * 249 + "_"),
    ],
)
def test_map_key_disallowed_key_stays_readable(key: str, mapped: str) -> None:
    assert map_key(key, MLFLOW) == mapped
    later = map_key(key, MLFLOW, {mapped})
    assert re.fullmatch(re.escape(mapped[:241]) + "-[0-9a-f]{8}", later)
