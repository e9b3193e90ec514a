"""Every kernel that uses vectors, over shapes at which rows end in every way, with vectors and
without.

A case calls a function of the package twice. In the checked build (``HYBRIDSEG_CHECK=1``) an access
outside of an array is an IndexError; a vector that spills over to the next row of the same array is
seen by the difference alone. So both count as failures.

    HYBRIDSEG_CHECK=1 python -m tests.kernels.sweep            # all families, or those named
"""

from tests.kernels.sweep import dense, fields, graphs, superpixels  # noqa: F401 (they add families)
from tests.kernels.sweep.cases import CHANNELS, FAMILIES, HEIGHTS, LABELS, WIDTHS
from tests.kernels.sweep.running import count_cases, shapes_in

__all__ = ["CHANNELS", "FAMILIES", "HEIGHTS", "LABELS", "WIDTHS", "count_cases", "shapes_in"]
