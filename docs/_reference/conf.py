"""How the reference in docs/reference is generated from docstrings: ``python -m nox -s reference``."""

import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent))
from signatures import write_signature

project = "pte_tracking"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_markdown_builder"]
autodoc_member_order = "bysource"
autodoc_mock_imports = [
    "accelerate",
    "lightning",
    "optuna",
    "transformers",
]  # not part of the requirements of the pages
add_module_names = False
autodoc_typehints = "none"  # the signatures contain them
napoleon_use_ivar = True
smartquotes = False
markdown_anchor_signatures = True
myst_all_links_external = True  # The other pages are not part of this build.


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-signature", omit_signature)
    app.connect("autodoc-process-docstring", show_signature, priority=900)  # after napoleon


def omit_signature(
    app: Sphinx, kind: str, name: str, obj: object, options: object, signature: str | None, returned: str | None
) -> tuple[str, None] | None:
    return None if signature is None else ("", None)


def show_signature(app: Sphinx, kind: str, name: str, obj: Any, options: object, lines: list[str]) -> None:
    """Write the signature as a block of code. In a heading it would be unreadable."""
    if kind in ("class", "exception", "function", "method", "property"):
        code = write_signature(kind, name, obj)
        lines[:0] = [".. code-block:: python", "", *(f"   {line}" for line in code), ""]
