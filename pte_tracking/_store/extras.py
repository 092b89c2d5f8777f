"""Packages that an optional feature requires."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from pte_tracking._store.dependencies import check_dependency


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
