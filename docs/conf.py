"""Sphinx configuration: `make docs` builds these pages without a network."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import phonon_eels

project = "phonon-eels"
author = "The phonon-eels developers"
copyright = "2026, the phonon-eels developers"
version = release = phonon_eels.__version__

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.doctest",
    "sphinx.ext.viewcode",
    "sphinx_design",
    "reference_pages",
]
exclude_patterns = ["_build", "adr/0000-template.md", "examples"]
root_doc = "index"
nitpicky = False

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
# Notebooks are run when they are built, from the top, so that a page never shows a result that the code no longer gives.
nb_execution_mode = "cache"
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_execution_in_temp = False
nb_merge_streams = True

autosummary_generate = True
autodoc_typehints = "none"  # numpydoc's own parameter sections say the types with shapes and units
numpydoc_show_class_members = False

html_theme = "pydata_sphinx_theme"
html_title = "phonon-eels"
html_static_path: list[str] = []
html_show_sourcelink = False
html_theme_options = {"show_prev_next": False, "navigation_with_keys": False, "secondary_sidebar_items": ["page-toc"]}
