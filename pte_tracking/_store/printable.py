"""Text that is safe to print in a terminal or to display in a figure."""

from __future__ import annotations

import re

#: Control characters except tab and newline, characters that change the direction of the text, and lone surrogates.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff]")

_MAX_LENGTH = 80


def escape_controls(text: str) -> str:
    """Replace the characters of a text that control a terminal by JSON escapes, so that JSON stays valid.

    Args:
        text: Text that may come from a file or a server.
    """
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def escape_line(text: str) -> str:
    """Replace all control characters of a text by JSON escapes, tabs and newlines too, so that it is one line.

    Args:
        text: Text that may come from a file or a server, such as the name of a run.
    """
    return escape_controls(text).replace("\n", "\\n").replace("\t", "\\t")


def escape_label(key: str) -> str:
    """Escape a key that is displayed as a label in a figure.

    Matplotlib parses dollar signs as formulas and hides labels with a leading underscore.

    Args:
        key: Key of a metric, or another name.
    """
    return (" " if key.startswith("_") else "") + key.replace("$", r"\$")


def describe_value(value: object) -> str:
    """Describe a value in an error message, in one line.

    Args:
        value: The value, such as an optimizer, whose representation has many lines.
    """
    text = " ".join(repr(value).split())
    return f"{text if len(text) <= _MAX_LENGTH else f'{text[:_MAX_LENGTH]}...'} of type {type(value).__name__}"
