"""What users may import: listed, sorted, there, and cheap."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import types

import pytest

import pte_tracking

PUBLIC = ["pte_tracking", "pte_tracking.extensions", "pte_tracking.sinks", "pte_tracking.triggers"]


def modules_after(statements: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after some statements."""
    program = f"{statements}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(params=PUBLIC)
def module(request: pytest.FixtureRequest) -> types.ModuleType:
    return importlib.import_module(request.param)


def test_all_names_are_unique(module: types.ModuleType) -> None:
    assert len(module.__all__) == len(set(module.__all__))  # ruff checks the order


def test_all_names_are_importable(module: types.ModuleType) -> None:
    missing = [name for name in module.__all__ if not hasattr(module, name)]
    assert missing == []


def test_all_contains_no_private_names(module: types.ModuleType) -> None:
    assert [name for name in module.__all__ if name.startswith("_") and name != "__version__"] == []


def test_dir_includes_lazily_loaded_names(module: types.ModuleType) -> None:
    assert set(module.__all__) <= set(dir(module))


def test_unknown_name_raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"pte_tracking.*no_such_name"):
        pte_tracking.no_such_name  # type: ignore[attr-defined]


def test_import_package_loads_no_torch_and_no_backend() -> None:
    loaded = modules_after("import pte_tracking")
    assert loaded.isdisjoint({"torch", "numpy", "mlflow", "tensorboard", "matplotlib", "ignite", "pandas"})
    assert loaded.isdisjoint({"pte_backends"})


def test_import_delivery_process_loads_no_torch() -> None:
    assert modules_after("import pte_tracking._delivery.process").isdisjoint({"torch", "numpy", "mlflow"})


@pytest.mark.parametrize("backend", ["pte_backends.json", "pte_backends.mlflow", "pte_backends.tensorboard"])
def test_import_backend_loads_no_torch_and_no_client_library(backend: str) -> None:
    loaded = modules_after(f"import {backend}")
    assert loaded.isdisjoint({"torch", "mlflow", "tensorboard", "numpy", "matplotlib"})


def test_import_public_names_loads_no_client_library() -> None:
    loaded = modules_after("\n".join(f"from {module} import *" for module in PUBLIC))
    assert loaded.isdisjoint({"mlflow", "tensorboard", "matplotlib", "ignite", "pandas"})
