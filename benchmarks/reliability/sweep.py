"""The sweep of the tests with every access checked: numbers of cases and outcomes."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from benchmarks.reliability.tables import Table

COLUMNS = ("family of kernels", "cases", "outside of an array", "vectors differ", "other errors")

TEXT = """
Each case calls a function of the package in the *checked build* (`HYBRIDSEG_CHECK=1`). There, a
kernel that reads or writes outside of an array raises an error with file, line and index. Each case
runs twice, with explicit vectors and with plain loops, and both results must agree: exactly for
integers, up to rounding for floats. This comparison also finds a vector that overwrites the next
row of the same array, which the bounds checks cannot see. The cases cover {n_widths} widths (1 to
140, and widths around multiples of 8, 16, 32 and 64 up to 700), heights of 1 to 5 and 33, images
and volumes, 1 to 9, 15 to 17 and 31 to 33 labels, 1 to 8 channels, with and without a mask, on 1
and 2 threads. Each value occurs about equally often; not every combination occurs.
"""


def measure(seconds: float, seed: int) -> list[Table]:
    """Run all families."""
    del seconds, seed  # the cases are fixed
    from tests.kernels.sweep import FAMILIES, WIDTHS

    rows = []
    for name in FAMILIES:
        done = subprocess.run(
            [sys.executable, "-m", "tests.kernels.sweep", name],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            env=os.environ | {"HYBRIDSEG_CHECK": "1"},
        )
        rows.append(_row(name, done))
        print(*rows[-1], sep=" | ", flush=True)
    totals = [sum(row[k] for row in rows if isinstance(row[k], int)) for k in range(1, 5)]
    rows.append(("all", *totals))
    text = TEXT.format(n_widths=len(WIDTHS))
    return [Table("Cases of the checked build", text, COLUMNS, tuple(rows))]


def _row(name: str, done: subprocess.CompletedProcess[str]) -> tuple[object, ...]:
    title = name.replace("_", " ")
    if done.returncode != 0:
        return (title, 0, 0, 0, f"ended with {done.returncode}")
    _, count = json.loads(done.stdout.splitlines()[-1])
    for named in count["named"]:
        print(f"  {named}")
    return (title, count["cases"], count["outside"], count["differing"], count["errors"])
