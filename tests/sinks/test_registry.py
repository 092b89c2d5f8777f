"""A sink that cannot be loaded does not affect the others.

The package of the probe registers ``gone``, whose module is missing, and ``odd``, which is not a sink.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import pte_tracking as pte
from pte_tracking.sinks import get_sink, installed_sinks, load_sinks
from tests.cli.invocation import invoke


def read_warnings(caplog: pytest.LogCaptureFixture) -> dict[str, str]:
    """Return the warnings about the sinks of the probe by name. The environment may contain other broken sinks."""
    messages = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    return {name: text for name in ("gone", "odd") for text in messages if f" '{name}' " in text}


def test_load_sinks_omits_sinks_that_cannot_be_loaded_with_warning(caplog: pytest.LogCaptureFixture) -> None:
    sinks = load_sinks()
    assert [sink for sink in map(get_sink, ("csv", "json", "mlflow", "probe")) if sink not in sinks] == []
    assert {sink.name for sink in sinks} <= {*installed_sinks()} - {"gone", "odd"}
    warnings = read_warnings(caplog)
    assert warnings["gone"].startswith("Sink 'gone' cannot be loaded from 'pte_gone:GoneSink': No module named")
    assert "Expected a subclass" in warnings["odd"]


@pytest.mark.parametrize(
    ("configured", "warned"), [("json", {"gone", "odd"}), ("mlflow", set())], ids=["other sink", "configured sink"]
)
def test_resume_uri_with_unrelated_broken_sink_reaches_its_backend(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, configured: str, warned: set[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    manager = pte.ExtensionsManager({}, 1, out_dir=tmp_path / "run", sinks=[configured])
    with pytest.raises(LookupError, match="0123"):
        manager.resume("runs:/0123")
    assert read_warnings(caplog).keys() == warned  # a sink of the manager is used without loading others


@pytest.mark.parametrize("arguments", [["log.csv"], ["log.csv", "--from", "csv"]], ids=["found", "given"])
def test_import_with_unrelated_broken_sink_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("log.csv").write_text("step,loss\n1,0.5\n")
    result = invoke("import", arguments[0], "run", *arguments[1:])
    assert result.exit_code == 0, result.output
    assert [row.values for row in pte.Run("run").rows()] == [{"loss": 0.5}]


def test_import_from_sink_without_reader_names_readers_that_can_be_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke("import", "log.csv", "run", "--from", "aim")
    assert result.exit_code == 2
    assert "Backends that can: csv, json" in " ".join(result.stderr.split())
