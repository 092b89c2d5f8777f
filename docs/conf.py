"""How the pages are built: ``python -m nox -s docs``."""

project = "pte_tracking"
author = "the pte_tracking developers"
extensions = ["myst_parser"]
html_theme = "furo"
html_title = "pte_tracking"
# Readable without a build, the reference has anchors in HTML, which this parser does not list. Tests check all links.
suppress_warnings = ["myst.xref_missing"]
exclude_patterns = ["_build", "_reference"]
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
