"""Sphinx: MyST pages, and the API reference from docstrings. `make docs` builds it, offline."""

from importlib import metadata

project = "bit_jax"
author = "The bit_jax authors"
release = version = metadata.version("bit_jax")

extensions = [
  "myst_parser",
  "sphinx.ext.autodoc",
  "sphinx.ext.autosummary",
  "sphinx.ext.napoleon",
  "sphinx.ext.viewcode",
]
templates_path = ["templates"]
exclude_patterns = ["templates"]
html_theme = "furo"
html_title = f"bit_jax {release}"
myst_heading_anchors = 3

autosummary_generate = True
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signatures show them
napoleon_use_ivar = True  # attributes are described once, in the docstring of their class
default_role = "literal"  # `name` in docstrings
suppress_warnings = ["ref.python"]  # attributes that share a name are not ambiguous to readers
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# Docstrings name types in words; there is no network to look other projects' names up.
nitpicky = False
