"""Public names: listed, importable, and cheap to import."""

from __future__ import annotations

import importlib
import json
import pkgutil
import subprocess
import sys
import types

import pytest

import pte_tracking

PUBLIC = ["pte_tracking", "pte_tracking.extensions", "pte_tracking.sinks", "pte_tracking.triggers"]


#: Raised within the package only; callers get DirectoryInUseError instead.
INTERNAL_ERRORS = {"EpochLengthError", "LockedError"}


def modules_after(statements: str) -> set[str]:
    """Return the modules that a new interpreter has loaded after some statements."""
    program = f"{statements}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(params=PUBLIC)
def module(request: pytest.FixtureRequest) -> types.ModuleType:
    return importlib.import_module(request.param)


def test_all_names_are_unique(module: types.ModuleType) -> None:
    assert len(module.__all__) == len(set(module.__all__))


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


def test_star_import_loads_no_pytest() -> None:
    assert modules_after("from pte_tracking import *").isdisjoint({"pytest", "hypothesis"})


def test_testing_module_is_attribute_of_package() -> None:
    assert pte_tracking.testing.SinkContract.__name__ == "SinkContract"


def test_sink_is_exported_by_sinks_only() -> None:
    assert not hasattr(pte_tracking, "Sink")
    assert hasattr(pte_tracking.sinks, "Sink")


def test_checkpoint_is_event_class_of_sinks() -> None:
    assert pte_tracking.Checkpoint is pte_tracking.sinks.Checkpoint


def defined_exceptions() -> set[type[BaseException]]:
    """Return the exception classes that modules of the package define."""
    modules = [info.name for info in pkgutil.walk_packages(pte_tracking.__path__, "pte_tracking.")]
    return {
        member
        for module in modules
        if not module.endswith("__main__")
        for member in vars(importlib.import_module(module)).values()
        if isinstance(member, type) and issubclass(member, BaseException) and member.__module__.startswith("pte_")
    }


def test_exceptions_end_in_error_and_are_exported() -> None:
    exported = {*dir(pte_tracking), *pte_tracking.sinks.__all__} | INTERNAL_ERRORS
    exceptions = {exception.__name__ for exception in defined_exceptions() if not exception.__name__.startswith("_")}
    assert {name for name in exceptions if not name.endswith("Error")} == set()
    assert exceptions - exported == set()


@pytest.mark.parametrize("name", ["DirectoryInUseError", "RunNotFoundError", "SnapshotError"])
def test_exception_of_users_is_importable_from_top_level(name: str) -> None:
    exception = getattr(pte_tracking, name)
    assert issubclass(exception, Exception)
    assert exception.__name__ == name
