"""Doctests of all public objects, and the public objects that need an Example."""

from __future__ import annotations

import doctest
import importlib
import inspect
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest

from pte_tracking.sinks import ENTRY_POINT_GROUP

MODULES = [
    "pte_tracking",
    "pte_tracking.reporter",
    "pte_tracking.updaters",
    "pte_tracking.triggers",
    "pte_tracking.extensions",
    "pte_tracking.sinks",
    "pte_tracking.testing",
    "pte_tracking.integrations.accelerate",
    "pte_tracking.integrations.lightning",
    "pte_tracking.integrations.optuna",
    "pte_tracking.integrations.tensorboard",
    "pte_tracking.integrations.transformers",
    *(
        f"pte_backends.{name}"
        for name in sorted(distribution("pte-tracking").entry_points.select(group=ENTRY_POINT_GROUP).names)
    ),
]

#: Modules whose public classes and functions need an Example.
MODULES_WITH_EXAMPLES = [
    "pte_tracking",
    "pte_tracking.triggers",
    "pte_tracking.extensions",
    "pte_tracking.integrations.tensorboard",
    "pte_tracking.integrations.transformers",
]

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def public_objects(module_name: str) -> Iterator[tuple[str, Any]]:
    """Yield the public classes and functions of a module with their full names."""
    module = importlib.import_module(module_name)
    names = getattr(module, "__all__", [name for name in vars(module) if not name.startswith("_")])
    for name in names:
        member = getattr(module, name)
        is_ours = getattr(member, "__module__", "").startswith(("pte_tracking", "pte_backends"))
        if is_ours and (inspect.isclass(member) or inspect.isfunction(member)):
            yield f"{module_name}.{name}", member


def collect_doctests() -> list[doctest.DocTest]:
    """Return the doctests of the public modules, classes, methods, and functions, each once."""
    finder = doctest.DocTestFinder()
    tests: list[doctest.DocTest] = []
    collected: set[int] = set()
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        # Without the names of the module: an example has to import what it uses.
        tests += [test for test in finder.find(module, module_name, globs={}) if test.name == module_name]
        for name, member in public_objects(module_name):
            if id(member) not in collected:
                collected.add(id(member))
                tests += finder.find(member, name, globs={})
    return [test for test in tests if test.examples]


def is_protocol(member: Any) -> bool:
    return bool(getattr(member, "_is_protocol", False))


def needs_example(member: Any) -> bool:
    is_exception = inspect.isclass(member) and issubclass(member, BaseException)
    return not is_exception and not is_protocol(member)


def has_example(member: Any) -> bool:
    documentation = inspect.getdoc(member) if "__doc__" in vars(member) or inspect.isfunction(member) else None
    _, section, example = (documentation or "").partition("Example:\n")
    return bool(section and doctest.DocTestParser().get_examples(example))


@pytest.mark.parametrize("test", [pytest.param(test, id=test.name) for test in collect_doctests()])
def test_docstring_example_runs(test: doctest.DocTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    output: list[str] = []
    result = doctest.DocTestRunner(verbose=False, optionflags=OPTIONS).run(test, out=output.append)
    assert result.failed == 0, "".join(output)


@pytest.mark.parametrize("module_name", MODULES_WITH_EXAMPLES)
def test_public_objects_have_example(module_name: str) -> None:
    missing = {
        name for name, member in public_objects(module_name) if needs_example(member) and not has_example(member)
    }
    assert not missing, f"Add an Example section to the docstring of {', '.join(sorted(missing))}."
