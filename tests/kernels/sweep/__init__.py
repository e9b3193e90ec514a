"""Every kernel that uses vectors, over shapes whose rows end at every position in a vector.

A case calls a function of the package twice, with vectors and without. In the checked build
(``HYBRIDSEG_CHECK=1``) an access outside an array raises IndexError; a vector that reaches into
the next row of the same array only changes the result. So an error and a difference are failures.

    HYBRIDSEG_CHECK=1 python -m tests.kernels.sweep            # all families, or those named
"""

from tests.kernels.sweep import dense, fields, graphs, superpixels  # noqa: F401 (they add families)
from tests.kernels.sweep.cases import CHANNELS, FAMILIES, HEIGHTS, LABELS, WIDTHS
from tests.kernels.sweep.running import count_cases, shapes_in

__all__ = ["CHANNELS", "FAMILIES", "HEIGHTS", "LABELS", "WIDTHS", "count_cases", "shapes_in"]
