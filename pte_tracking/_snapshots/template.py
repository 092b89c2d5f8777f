"""The names of snapshot files."""

from __future__ import annotations

import re
import string
from pathlib import Path, PurePath

from pte_tracking._snapshots.file import is_snapshot

_NUMBER = r"-?[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?"


class Template:
    """A file name with places for numbers of the training, such as ``"snapshot_iter_{.iteration}"``.

    Args:
        text: A format string; its fields are attributes of the manager.

    Raises:
        TypeError: It is no string.
        ValueError: It is no format string, or leads out of the run's directory.
    """

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise TypeError(
                f"filename: expected a format string such as 'snapshot_iter_{{.iteration}}', got {text!r} of type "
                f"{type(text).__name__}"
            )
        if not text or PurePath(text).is_absolute() or ".." in PurePath(text).parts:
            raise ValueError(f"filename: expected a path inside the run's directory, got {text!r}")
        try:
            fields = list(string.Formatter().parse(text))
        except ValueError as error:
            raise ValueError(f"filename: {text!r} is no format string: {error}") from None
        self._text = text
        self._pattern = re.compile(
            "".join(re.escape(literal) + (f"({_NUMBER})" if field is not None else "") for literal, field, *_ in fields)
        )
        #: Whether every snapshot has the same name, and replaces the one before.
        self.is_fixed = all(field is None for _, field, *_ in fields)
        #: Matches all its names, and perhaps more.
        self.glob: str = "".join(literal + ("*" if field is not None else "") for literal, field, *_ in fields)

    def format(self, manager: object) -> str:
        """The name of a snapshot taken now.

        Raises:
            ValueError: The manager has not what the template asks for, or it is no number.
        """
        try:
            name = self._text.format(manager)
        except (AttributeError, LookupError, ValueError) as error:
            raise ValueError(f"filename: {self._text!r} cannot be filled in: {error}") from error
        if not self.matches(name):
            raise ValueError(
                f"filename: {self._text!r} became {name!r}; only numbers can be filled in, such as {{.iteration}}"
            )
        return name

    def matches(self, name: str) -> bool:
        """Whether a path, relative to the run's directory, is such a name."""
        return self._pattern.fullmatch(name) is not None

    def order(self, name: str) -> tuple[float, ...]:
        """The numbers in a name: later snapshots have higher ones."""
        match = self._pattern.fullmatch(name)
        return tuple(map(float, match.groups())) if match else ()

    def list_files(self, directory: Path) -> list[str]:
        """The names of such files in a run's directory, in their order."""
        names = (path.relative_to(directory).as_posix() for path in directory.glob(self.glob) if is_snapshot(path))
        return sorted(filter(self.matches, names), key=self.order)
