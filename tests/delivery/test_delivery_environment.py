"""Environments of delivery processes, which decide which runs share a process."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

from pte_tracking._delivery.delivery_environment import DeliveryEnvironment
from pte_tracking._store.manifest import Manifest, SinkEntry


def save_run(directory: Path, *options: dict[str, object]) -> Path:
    directory.mkdir()
    sinks = [SinkEntry(f"sink {number}", "mlflow", option) for number, option in enumerate(options)]
    msgspec.structs.replace(Manifest.new(directory, "test"), sinks=sinks).save(directory)
    return directory


@pytest.mark.parametrize(
    ("first", "second", "is_shared"),
    [
        ({"tracking_uri": "http://a:5000"}, {"tracking_uri": "http://a:5000", "experiment": "x"}, True),
        ({"tracking_uri": "http://a:5000"}, {"tracking_uri": "http://b:5000"}, False),
        ({"tracking_uri": "http://a:5000"}, {"tracking_uri": "https://a:5000"}, False),
        ({"tracking_uri": "sqlite:///a.db"}, {"tracking_uri": "sqlite:///b.db"}, True),
        ({"tracking_uri": "http://["}, {"tracking_uri": "http://[x"}, False),
        ({}, {"tracking_uri": None, "number": 3, "nested": {"a": 1}}, True),
    ],
)
def test_runs_with_equal_servers_share_an_environment(
    tmp_path: Path, first: dict[str, object], second: dict[str, object], is_shared: bool
) -> None:
    one, other = save_run(tmp_path / "first", first), save_run(tmp_path / "second", second)
    assert (DeliveryEnvironment.current(one) == DeliveryEnvironment.current(other)) is is_shared


def test_environment_depends_on_sys_path_and_credentials_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = save_run(tmp_path / "run")
    before = DeliveryEnvironment.current(run)
    monkeypatch.setenv("TRIAL_NUMBER", "7")
    assert DeliveryEnvironment.current(run) == before
    with monkeypatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path, str(tmp_path)])
        assert DeliveryEnvironment.current(run) != before
    for name in ("SERVICE_TOKEN", "MLFLOW_TRACKING_URI", "AWS_DEFAULT_REGION", "HTTPS_PROXY", "https_proxy"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "a value of this test")
            assert DeliveryEnvironment.current(run) != before, name


def test_credentials_do_not_appear_in_the_description_of_an_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVICE_TOKEN", "a secret of this test")
    assert "a secret of this test" not in repr(DeliveryEnvironment.current(save_run(tmp_path / "run")))


@pytest.mark.parametrize(
    ("changes", "is_renewed"),
    [
        ({"MLFLOW_TRACKING_TOKEN": "new"}, True),
        ({"MLFLOW_TRACKING_TOKEN": "new", "MLFLOW_TRACKING_URI": "http://b"}, False),
        ({"AWS_SESSION_TOKEN": "new"}, True),
        ({"AWS_SESSION_TOKEN": "new", "MLFLOW_S3_ENDPOINT_URL": "http://b"}, False),
        ({"PTE_MLFLOW_URI_0": "http://b"}, False),
        ({"TRIAL_NUMBER": "7"}, False),
        ({}, False),
    ],
)
def test_credentials_are_renewed_only_for_the_same_servers(
    tmp_path: Path, changes: dict[str, str], is_renewed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://a")
    environment = DeliveryEnvironment.current(save_run(tmp_path / "run"))
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    assert environment.has_new_credentials() is is_renewed
