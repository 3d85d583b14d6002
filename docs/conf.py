"""Sphinx builds these pages into HTML: `make docs`. A warning is an error there."""

project = "roadside"
author = "roadside's authors"
extensions = ["myst_parser"]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown"}

html_theme = "furo"
html_title = "roadside"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_show_copyright = False
html_show_sourcelink = False
html_copy_source = False

# Pages link to headings of each other by the anchors that a reader of the bare Markdown would guess.
myst_heading_anchors = 3
# Indented blocks are commands, TOML, code or output; what a lexer cannot tell apart it must not colour.
highlight_language = "text"
