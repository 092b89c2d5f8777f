"""Tests of the command backends."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import get_args

import pytest
from rich.console import Console

from pte_tracking._cli.backends import InstalledBackend, print_backends
from pte_tracking.sinks import EventKind, installed_sinks
from tests.cli.invocation import invoke
from tests.probe.fixtures import _installed, packages

__all__ = ["_installed", "packages"]


def read_backends() -> dict[str, dict[str, object]]:
    result = invoke("backends", "--json")
    assert result.exit_code == 0
    return {backend["name"]: backend for backend in json.loads(result.output)}


def test_backends_lists_every_installed_sink_with_version() -> None:
    backends = read_backends()
    assert [*backends] == installed_sinks()
    assert backends["mlflow"]["client"] == f"mlflow {version('mlflow')}"
    assert backends["json"]["client"] is None
    assert (backends["json"]["inline"], backends["mlflow"]["inline"]) == (True, False)
    assert (backends["json"]["rewinds"], backends["mlflow"]["rewinds"]) == (True, False)
    assert (backends["json"]["problem"], backends["mlflow"]["problem"]) == (None, None)


def test_backends_describes_third_party_sink_without_declaration() -> None:
    probe = read_backends()["probe"]
    assert (probe["package"], probe["shows"], probe["problem"]) == ("pte-probe 1.0", None, None)
    (line,) = (line for line in invoke("backends").output.splitlines() if line.split()[0] == "probe")
    assert line.split() == ["probe", "pte-probe", "1.0", "delivery", "yes", "-"]


def test_backends_names_command_for_missing_client_and_broken_package() -> None:
    backends = read_backends()
    assert backends["needy"]["problem"] == "Sink 'needy' is not installed. Run: pip install missing-client-library"
    assert "Reinstall its package. If the package is your own, correct its module, or the entry point" in str(
        backends["gone"]["problem"]
    )
    assert "Expected a subclass" in str(backends["odd"]["problem"])
    lines = invoke("backends").output.splitlines()
    assert str(backends["needy"]["problem"]) in lines
    assert ["needy", "not", "usable"] in [line.split()[:3] for line in lines]


def test_backends_table_fits_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    shows = dict.fromkeys(get_args(EventKind), "artifact")
    backends = [InstalledBackend(name, "p", "tensorboard 22.21.10", shows=shows) for name in ("tensorboard", "json")]
    print_backends(Console(width=80), backends)
    output = capsys.readouterr().out
    assert max(map(len, output.splitlines())) <= 80
    assert output.count("checkpoint*") == 2
    assert "* shown as an artifact" in output
