"""Sphinx: ``sphinx-build -W -n docs docs/_build``, where pykeyupdate is installed."""

import sys
from pathlib import Path

import pykeyupdate

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "pykeyupdate"
author = "The pykeyupdate developers"
project_copyright = "2026, The pykeyupdate developers"
version = release = pykeyupdate.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "public_names"]
exclude_patterns = ["_build", "monitoring/README.md"]
# Of other projects (ssl.SSLSocket, typing.Optional) only the names are shown: a build
# needs no network.
nitpick_ignore_regex = [("py:.*", r"(?!pykeyupdate\b).*")]

myst_enable_extensions = ["attrs_block", "attrs_inline", "colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"pykeyupdate {version}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_show_sphinx = False
