"""Conditions on named values, such as ``lr < 0.01 and status == 'FAILED'``.

A condition is parsed as a Python expression and interpreted here, so it cannot call or change anything.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_MAX_CHARACTERS = 1000  # The parts are nested, and so are the calls of the functions below.
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda item, container: item in container,
    ast.NotIn: lambda item, container: item not in container,
}
_QUOTED = re.compile(r"`([^`]+)`|'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")


class _MissingValueError(Exception):
    """A name has no value."""


class Condition:
    """Condition on named values, such as the metrics of a run.

    Names may contain ``/`` and ``.`` between words, as in ``val/loss``. A name with other characters is enclosed in
    backquotes. A comparison with a name that has no value is false.

    Args:
        text: Comparisons of names, numbers, and quoted strings, combined with ``and``, ``or``, ``not``, and
            parentheses.

    Attributes:
        names: Names that occur in the condition.

    Raises:
        ValueError: If the text is not such an expression.

    Example:
        >>> from pte_tracking.sinks import Condition
        >>> condition = Condition("val/loss > 10 and step >= 100")
        >>> condition.holds({"val/loss": 12.5, "step": 200})
        True
        >>> condition.holds({"step": 200})
        False
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._quoted: dict[str, str] = {}
        if len(text) > _MAX_CHARACTERS:
            raise ValueError(f"expected at most {_MAX_CHARACTERS} characters, got {len(text)}")
        try:
            self._tree = ast.parse(_QUOTED.sub(self._replace_quoted, text.strip()), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise self._error() from None
        self.names = set(self._find_names(self._tree))

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Return whether the condition holds.

        Args:
            values: Values by name.

        Returns:
            Whether it holds. Names without a value make a comparison false.

        Raises:
            ValueError: If values of different types are compared, such as a number and a string.
        """
        return self._holds(self._tree, values)

    def _replace_quoted(self, match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0]
        name = f"quoted_name_{len(self._quoted)}"
        self._quoted[name] = match[1]
        return name

    def _find_names(self, node: ast.expr) -> Iterator[str]:
        """Check a part of the condition, and iterate over the names in it."""
        if isinstance(node, ast.BoolOp):
            for value in node.values:
                yield from self._find_names(value)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            yield from self._find_names(node.operand)
        elif isinstance(node, ast.Compare) and all(type(comparison) in _COMPARISONS for comparison in node.ops):
            for operand in (node.left, *node.comparators):
                yield from self._find_operand_names(operand)
        else:
            raise self._error()

    def _find_operand_names(self, node: ast.expr) -> Iterator[str]:
        if isinstance(node, ast.List | ast.Tuple):
            for item in node.elts:
                yield from self._find_operand_names(item)
        elif _to_constant(node) is None:
            yield self._to_name(node)

    def _holds(self, node: ast.expr, values: Mapping[str, Any]) -> bool:
        if isinstance(node, ast.BoolOp):
            results = (self._holds(value, values) for value in node.values)
            return all(results) if isinstance(node.op, ast.And) else any(results)
        if isinstance(node, ast.UnaryOp):
            return not self._holds(node.operand, values)
        assert isinstance(node, ast.Compare)
        try:
            operands = [self._evaluate(operand, values) for operand in (node.left, *node.comparators)]
        except _MissingValueError:
            return False
        pairs = zip(operands, operands[1:], node.ops, strict=False)
        try:
            return all(_COMPARISONS[type(comparison)](left, right) for left, right, comparison in pairs)
        except TypeError as error:
            raise ValueError(f"{self._text!r} compares values of different types: {error}") from None

    def _evaluate(self, node: ast.expr, values: Mapping[str, Any]) -> Any:
        if isinstance(node, ast.List | ast.Tuple):
            return [self._evaluate(item, values) for item in node.elts]
        constant = _to_constant(node)
        if constant is not None:
            return constant[0]
        name = self._to_name(node)
        if values.get(name) is None:
            raise _MissingValueError
        return values[name]

    def _to_name(self, node: ast.expr) -> str:
        if isinstance(node, ast.Name):
            return self._quoted.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            return f"{self._to_name(node.value)}.{self._quoted.get(node.attr, node.attr)}"
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            return f"{self._to_name(node.left)}/{self._to_name(node.right)}"
        raise self._error()

    def _error(self) -> ValueError:
        return ValueError(
            f"{self._text!r} is not a condition. Expected comparisons such as \"lr < 0.01 and status == 'FAILED'\". "
            "Enclose a name with unusual characters in backquotes, and text in quotes."
        )


def _to_constant(node: ast.expr) -> tuple[Any] | None:
    """Return a constant as a tuple of one value, or None if the part is not a constant."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _to_constant(node.operand)
        return (-value[0],) if value and isinstance(value[0], int | float) else None
    if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float):
        return (node.value,)
    return None
