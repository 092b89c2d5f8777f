"""The names that are loaded on first use are the ones that type checkers are told."""

from __future__ import annotations

import ast
from pathlib import Path

import pte_tracking


def test_public_names_match_type_checking_imports() -> None:
    tree = ast.parse(Path(pte_tracking.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    imported = {(str(node.module), alias.name) for node in imports for alias in node.names}
    assert {name for _, name in imported} | {"__version__"} == set(pte_tracking.__all__)
