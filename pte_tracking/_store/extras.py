"""Packages that an optional feature requires."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def required_by(feature: str, package: str, requirement: str) -> Iterator[None]:
    """Explain a failed import of a package that is not always installed.

    Args:
        feature: Feature that requires the package, at the start of a sentence.
        package: Name of the package.
        requirement: Argument of ``pip install``, such as ``'pte-tracking[plot]'`` with its quotation marks.

    Raises:
        ImportError: If an import within the block fails because a module does not exist.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{feature} requires {package}, which is not installed. Run: pip install {requirement}"
        ) from error
