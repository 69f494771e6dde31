"""A package whose modules import each other, as most packages do."""

VERSION = 1

from . import base, core  # noqa: E402
from .core import version  # noqa: E402

NAME = core.name_of(base)
