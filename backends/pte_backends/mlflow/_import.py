"""Import of MLflow without packages that a delivery does not use.

The import of MLflow takes most of the time of a short delivery. Packages are left out only for the thread that imports
MLflow: the threads of other sinks may import the same packages at that time.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib
import sys
import threading
import types
from collections.abc import Iterator, Mapping, Sequence

_lock = threading.RLock()
#: mlflow-skinny does not require the first ones, and the templates of Mako are not highlighted without Pygments.
_OPTIONAL = dict.fromkeys(("numpy", "pandas", "polars", "pyarrow", "pygments"))


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
            with _replaced_modules({**_OPTIONAL, "fastapi": fastapi}):
                importlib.import_module("mlflow")
        except (AttributeError, ImportError, NameError):  # a version that uses more of these packages
            for name in [name for name in sys.modules if name.partition(".")[0] == "mlflow"]:
                del sys.modules[name]
            importlib.import_module("mlflow")


@contextlib.contextmanager
def without_optional_packages() -> Iterator[None]:
    """Import modules as if packages were missing without which MLflow and its libraries work."""
    with _lock, _replaced_modules(_OPTIONAL):
        yield


@contextlib.contextmanager
def _replaced_modules(replacements: Mapping[str, types.ModuleType | None]) -> Iterator[None]:
    """Replace packages in the import statements that this thread executes. None raises an ``ImportError``.

    Packages that are imported already are not replaced. ``sys.modules`` contains no replacement, because all threads
    share it.
    """
    thread, original = threading.get_ident(), builtins.__import__

    def import_replaced(
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> types.ModuleType:
        package = name.partition(".")[0]
        if level == 0 and package in active and package not in sys.modules and threading.get_ident() == thread:
            replacement = active[package]
            if replacement is None:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            if name == package:
                return replacement
        return original(name, globals, locals, fromlist, level)

    active = dict(replacements)
    builtins.__import__ = import_replaced
    try:
        yield
    finally:
        active.clear()
        # Another library may have replaced the function meanwhile. It then calls this one, which has no effect now.
        if builtins.__import__ is import_replaced:
            builtins.__import__ = original
