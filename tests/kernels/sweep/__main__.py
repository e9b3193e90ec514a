"""``python -m tests.kernels.sweep [NAME ...]`` runs all families, or those with these names."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from tests.kernels.sweep import FAMILIES, count_cases, shapes_in


def main(names: list[str]) -> None:
    """Write a line of JSON for each family: its name and its result."""
    for name in names or FAMILIES:
        print(json.dumps([name, asdict(count_cases(name, shapes_in(name)))]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
