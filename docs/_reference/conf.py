"""How the reference in docs/reference is generated from docstrings: ``python -m nox -s reference``."""

from docutils import nodes
from sphinx.application import Sphinx

project = "pte_tracking"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_markdown_builder"]
autodoc_member_order = "bysource"
autodoc_mock_imports = [
    "accelerate",
    "lightning",
    "optuna",
    "transformers",
]  # not part of the requirements of the pages
autodoc_typehints = "none"  # the descriptions contain them
napoleon_use_ivar = True
markdown_anchor_signatures = True
myst_all_links_external = True  # The other pages are not part of this build.


def setup(app: Sphinx) -> None:
    app.connect("doctree-resolved", show_separators)


def show_separators(app: Sphinx, doctree: nodes.document, name: str) -> None:
    """Replace the abbreviations ``*`` and ``/`` in signatures by text, because the builder omits them."""
    for node in list(doctree.findall(nodes.abbreviation)):
        node.replace_self(nodes.Text(node.astext()))
