"""File names that every system accepts."""

from __future__ import annotations

import pytest

from pte_tracking.sinks import safe_file_name


@pytest.mark.parametrize("key", ["loss", "val_loss", "Loss", "con1", "auxiliary", "a.b"])
def test_safe_file_name_of_plain_key_is_the_key(key: str) -> None:
    assert safe_file_name(key) == key


@pytest.mark.parametrize("key", ["aux", "CON", "nul.txt", "com1", "lpt9.log"])
def test_safe_file_name_of_device_of_windows_has_prefix_and_digest(key: str) -> None:
    name = safe_file_name(key)
    assert name.startswith(f"_{key}-")


def test_safe_file_names_of_keys_with_periods_at_the_ends_differ() -> None:
    names = {safe_file_name(key) for key in ("val", "val.", ".val", "val..")}
    assert len(names) == 4
    assert [name for name in names if name.startswith(".") or name.endswith(".")] == []
