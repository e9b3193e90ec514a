"""The names of :mod:`hybridseg.losses` under their earlier module name."""

from hybridseg.losses import *  # noqa: F403
from hybridseg.losses import __all__ as __all__
