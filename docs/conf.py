"""How Sphinx builds these pages: `.venv-test/bin/sphinx-build -W -n docs build/docs`."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

project = "dispy"
author = "the dispy developers"
release = version = re.search(
    r'__version__ = "([^"]+)"', (ROOT / "dispy/__init__.py").read_text(encoding="utf-8")
)[1]

extensions: list[str] = []
exclude_patterns: list[str] = []
default_role = "code"
add_module_names = False
primary_domain = "py"
highlight_language = "text"  # of `::` blocks, most of which are commands

html_theme = "furo"
html_title = f"dispy {release}"
html_show_copyright = False
