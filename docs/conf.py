"""How Sphinx makes the documentation site. `make docs` runs it; docs/decisions/site.md says why."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

project = "mars-remote"
release = runpy.run_path(str(ROOT / "src" / "mars" / "_version.py"))["__version__"]

extensions = ["myst_parser"]

# Headings have the names that GitHub gives them, so that one link works in both places.
myst_heading_anchors = 4
# A drawing or a program of the shell has no colours.
highlight_language = "text"

html_theme = "furo"
html_title = f"mars-remote {release}"
# Readers find the Markdown of a page in the repository; the site need not carry it a second time.
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_show_copyright = False
