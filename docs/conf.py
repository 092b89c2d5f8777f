"""How the papers are built: ``python -m nox -s docs``."""

project = "pte_tracking"
author = "the pte_tracking developers"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = "pte_tracking"
exclude_patterns = ["_build"]
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
autodoc_member_order = "bysource"
autodoc_mock_imports = ["accelerate", "lightning", "transformers"]  # not part of the requirements of the pages
autodoc_typehints = "none"  # the signature shows them already
napoleon_use_ivar = True
