"""The names of :mod:`hybridseg.losses`, where earlier versions had them."""

from hybridseg.losses import *  # noqa: F403
from hybridseg.losses import __all__ as __all__
