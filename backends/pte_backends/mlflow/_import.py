"""Import of MLflow without packages that a delivery does not use.

The import of MLflow takes most of the time of a short delivery.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import threading
import types
from collections.abc import Iterator, Mapping

_lock = threading.RLock()


class _HTTPException(Exception):  # noqa: N818
    """Placeholder of ``fastapi.HTTPException``."""


def import_mlflow() -> None:
    """Import MLflow. The import takes 60 MB and a third of the time less than the default one."""
    with _lock:
        if "mlflow" in sys.modules:
            return
        # MLflow uses one class of fastapi, an exception of its gateway server, whose import builds hundreds of models.
        fastapi = types.ModuleType("fastapi")
        fastapi.HTTPException = _HTTPException  # type: ignore[attr-defined]
        try:
            with without_optional_packages(), _replaced_modules({"fastapi": fastapi}):
                importlib.import_module("mlflow")
        except (AttributeError, ImportError):  # a version that uses more of these packages
            for name in [name for name in sys.modules if name.partition(".")[0] == "mlflow"]:
                del sys.modules[name]
            importlib.import_module("mlflow")


@contextlib.contextmanager
def without_optional_packages() -> Iterator[None]:
    """Import modules as if packages were missing without which MLflow and its libraries work.

    mlflow-skinny does not require pandas, and the templates of Mako are not highlighted without Pygments.
    """
    with _lock, _replaced_modules(dict.fromkeys(("pandas", "pygments"))):
        yield


@contextlib.contextmanager
def _replaced_modules(replacements: Mapping[str, types.ModuleType | None]) -> Iterator[None]:
    """Replace modules that are not imported yet while other modules are imported. None raises an ``ImportError``."""
    replaced = {name: module for name, module in replacements.items() if name not in sys.modules}
    sys.modules.update(replaced)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name, module in replaced.items():
            if sys.modules.get(name, module) is module:
                sys.modules.pop(name, None)
