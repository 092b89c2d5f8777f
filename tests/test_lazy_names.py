"""Agreement between the names loaded on first use and the names that type checkers see."""

from __future__ import annotations

import ast
import pkgutil
import types
from pathlib import Path
from typing import Any

import pytest

import pte_tracking
from pte_tracking import extensions, triggers


def type_checking_imports(module: types.ModuleType) -> list[tuple[str, str]]:
    """Return the module and name of each import in the TYPE_CHECKING block."""
    tree = ast.parse(Path(str(module.__file__)).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return [(str(node.module), alias.name) for node in imports for alias in node.names]


def public_names(module: types.ModuleType) -> list[str]:
    return list(vars(module)["__all__"])


def test_public_names_match_type_checking_imports() -> None:
    names = {name for _, name in type_checking_imports(pte_tracking)}
    assert names | {"__version__"} == set(public_names(pte_tracking))


def test_extension_names_match_type_checking_imports() -> None:
    differing = {name for _, name in type_checking_imports(extensions)} ^ set(public_names(extensions))
    assert not differing, (
        f"pte_tracking/extensions/__init__.py names {', '.join(sorted(differing))} once. Name it in the imports for "
        "type checkers and in _MODULES."
    )


@pytest.mark.parametrize("module", [pte_tracking, extensions], ids=["pte_tracking", "extensions"])
def test_type_checking_imports_are_sorted_by_module(module: types.ModuleType) -> None:
    modules = [name for name, _ in type_checking_imports(module)]
    assert modules == sorted(modules)


@pytest.mark.parametrize("module", [pte_tracking, extensions], ids=["pte_tracking", "extensions"])
def test_lazy_names_load_from_type_checking_modules(module: types.ModuleType) -> None:
    for source, name in type_checking_imports(module):
        imported = __import__(source, fromlist=[name])
        assert getattr(module, name) is getattr(imported, name)


@pytest.mark.parametrize("package", [extensions, triggers])
def test_public_names_are_not_names_of_modules(package: Any) -> None:
    # The import of a module replaces a function of the same name in its package.
    assert {module.name for module in pkgutil.iter_modules(package.__path__)} & set(package.__all__) == set()
