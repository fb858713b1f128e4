"""Where the app's data files are: a checkout, an editable or a plain install."""

from pathlib import Path

_PACKAGE = Path(__file__).parent
CHECKOUT = not (_PACKAGE / "_data").is_dir()
ROOT = _PACKAGE.parent if CHECKOUT else _PACKAGE / "_data"

TEMPLATES = ROOT / "templates"
STATIC = ROOT / "static"
LUA = ROOT / "lua"
