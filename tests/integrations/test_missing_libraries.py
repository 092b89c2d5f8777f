"""Adapters without their library, or with an unsupported version."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys

import pytest

from pte_tracking._store import dependencies

LIBRARIES = {
    "lightning": "lightning.pytorch",
    "accelerate": "accelerate.tracking",
    "transformers": "transformers.trainer_utils",
    "optuna": "optuna.trial",
}


@pytest.mark.parametrize(("library", "module"), LIBRARIES.items())
def test_adapter_missing_library_names_pip_command(library: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (library, module):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, f"pte_tracking.integrations.{library}", raising=False)
    with pytest.raises(ImportError, match=rf"pip install 'pte-tracking\[{library}\]'"):
        importlib.import_module(f"pte_tracking.integrations.{library}")


@pytest.mark.parametrize("library", LIBRARIES)
def test_adapter_unsupported_version_names_bound(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.9" if name == library else version(name))
    monkeypatch.setattr(dependencies, "_requirements", lambda: [f"{library}>=1; extra == '{library}'"])
    monkeypatch.delitem(sys.modules, f"pte_tracking.integrations.{library}", raising=False)
    dependencies.check_dependency.cache_clear()
    with pytest.raises(ImportError, match=rf"requires {library}>=1, and {library} 0.9 is installed"):
        importlib.import_module(f"pte_tracking.integrations.{library}")
    dependencies.check_dependency.cache_clear()
