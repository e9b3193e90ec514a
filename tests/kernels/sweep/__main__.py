"""``python -m tests.kernels.sweep``: all families, or those named."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from tests.kernels.sweep import FAMILIES, count_cases, shapes_in


def main(names: list[str]) -> None:
    """Write a line of JSON for each family: its name and what came of it."""
    for name in names or FAMILIES:
        print(json.dumps([name, asdict(count_cases(name, shapes_in(name)))]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
