"""Names of snapshot files."""

from __future__ import annotations

import re
import string
from pathlib import Path, PurePath

from pte_tracking._snapshots.file import is_snapshot
from pte_tracking._store.printable import describe_value

_NUMBER = r"-?[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?"


class Template:
    """Format string for file names, such as ``"snapshot_iter_{.iteration}"``.

    Args:
        text: The format string. Its fields are numeric attributes of the manager.

    Attributes:
        glob: Pattern for ``Path.glob`` that matches all names, and possibly other names.

    Raises:
        TypeError: If ``text`` is not a string.
        ValueError: If ``text`` is not a format string or is a path outside the run directory.
    """

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise TypeError(
                f"filename: expected a format string such as 'snapshot_iter_{{.iteration}}', got {describe_value(text)}"
            )
        if not text or PurePath(text).is_absolute() or ".." in PurePath(text).parts:
            raise ValueError(f"filename: expected a path inside the run directory, got {text!r}")
        try:
            fields = list(string.Formatter().parse(text))
        except ValueError as error:
            raise ValueError(f"filename: {text!r} is not a format string: {error}") from None
        wrong = [field for _, field, *_ in fields if field and not field.startswith((".", "0."))]
        if wrong:
            raise ValueError(
                f"filename: the field {{{wrong[0]}}} in {text!r} is not an attribute of the manager. Write "
                f"{{.{wrong[0]}}}, such as {{.iteration}} or {{.epoch}}."
            )
        self._text = text
        self._pattern = re.compile(
            "".join(re.escape(literal) + (f"({_NUMBER})" if field is not None else "") for literal, field, *_ in fields)
        )
        self.glob: str = "".join(literal + ("*" if field is not None else "") for literal, field, *_ in fields)

    def format(self, manager: object) -> str:
        """Return the name for the current iteration.

        Args:
            manager: The manager.

        Raises:
            ValueError: If the manager lacks an attribute or an attribute is not a number.
        """
        try:
            name = self._text.format(manager)
        except (AttributeError, LookupError, ValueError) as error:
            raise ValueError(f"filename: formatting {self._text!r} failed: {error}") from error
        if not self.matches(name):
            raise ValueError(
                f"filename: {self._text!r} was formatted as {name!r}. Only numbers are allowed, such as {{.iteration}}."
            )
        return name

    def matches(self, name: str) -> bool:
        """Return whether a path, relative to the run directory, has this format."""
        return self._pattern.fullmatch(name) is not None

    def overlaps(self, other: Template) -> bool:
        """Return whether a name may have both formats, whatever the attributes of the manager are."""
        return self._pattern == other._pattern or self.matches(other.glob) or other.matches(self.glob)

    def order(self, name: str) -> tuple[float, ...]:
        """Return the numbers in a name, by which names are sorted."""
        match = self._pattern.fullmatch(name)
        return tuple(map(float, match.groups())) if match else ()

    def list_files(self, directory: Path) -> list[str]:
        """List the matching snapshots in a run directory, sorted by the numbers in their names."""
        names = (path.relative_to(directory).as_posix() for path in directory.glob(self.glob) if is_snapshot(path))
        return sorted(filter(self.matches, names), key=self.order)
