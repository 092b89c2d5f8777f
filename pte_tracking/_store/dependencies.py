"""Checks of installed dependencies and of packages that an optional feature requires.

The lowest supported version of a dependency is read from the metadata of the package that requires it, so it is
declared in ``pyproject.toml`` only.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterable, Iterator

_PACKAGE = "pte-tracking"


@functools.cache
def check_required() -> None:
    """Check the versions of the dependencies that are always installed.

    Raises:
        ImportError: If one is older than the lowest supported version.
    """
    for requirement in _requirements():
        if "extra ==" not in requirement:
            check_dependency(re.split(r"[^\w.-]", requirement, maxsplit=1)[0])


@functools.cache  # Reading the metadata takes a millisecond.
def check_dependency(name: str) -> None:
    """Check the version of a dependency.

    Args:
        name: Name of the distribution, such as ``pytorch-ignite``. It does not need to be installed.

    Raises:
        ImportError: If its version is older than the lowest supported version.
    """
    problem = find_outdated(name, _requirements())
    if problem:
        raise ImportError(f"{_PACKAGE} {problem}")


@contextlib.contextmanager
def required_by(feature: str, package: str, requirement: str) -> Iterator[None]:
    """Check a package that is not always installed, and explain a failed import of it.

    Args:
        feature: Feature that requires the package, at the start of a sentence.
        package: Name of the distribution.
        requirement: Argument of ``pip install``, such as ``'pte-tracking[plot]'`` with its quotation marks.

    Raises:
        ImportError: If the installed version is not supported, or if an import within the block fails because a module
            does not exist.
    """
    check_dependency(package)
    try:
        yield
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{feature} requires {package}, which is not installed. Run: pip install {requirement}"
        ) from error


def find_outdated(name: str, requirements: Iterable[str]) -> str | None:
    """Compare the installed version of a distribution with the lowest version that a package requires.

    Args:
        name: Name of the distribution.
        requirements: Requirements of the package, as in its metadata.

    Returns:
        Description of the problem, without its subject. None if the version is supported or unknown.
    """
    import importlib.metadata  # not with the package, because this takes 10 milliseconds

    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:  # not installed, or installed without metadata
        return None
    for requirement in requirements:
        bound = re.match(rf"{re.escape(name)}(?![\w.-])[^;]*>=\s*([\d.]+)", requirement)
        # Missing parts of a version are zeros.
        if bound and (*_release(version), 0, 0, 0) < _release(bound[1]):
            needed = f"{name}>={bound[1]}"
            return f"requires {needed}, and {name} {version} is installed. Run: pip install '{needed}'"
    return None


def _requirements() -> list[str]:
    import importlib.metadata

    try:
        return importlib.metadata.requires(_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:  # imported from the source files
        return []


def _release(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version.partition("+")[0])))
