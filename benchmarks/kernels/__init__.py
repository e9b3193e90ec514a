"""Every kernel and every peer that pip can install, timed in one process.

``python -m benchmarks kernels`` runs all families, prints their rows as they come and keeps them
in ``benchmarks/kernels/results.json``, from which ``docs/performance.md`` and its plots are made
(``--page`` does only that). ``--only`` runs some families again and keeps the others' rows.
``make peers`` installs the peers; a missing one is left out and named.
"""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.files import write_json
from benchmarks.kernels import page
from benchmarks.kernels.families import FAMILIES
from benchmarks.kernels.racing import SIZES, Row, Setting, size_name
from benchmarks.machine import describe_machine

RESULTS = Path(__file__).with_name("results.json")


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    if not options.page:
        setting = Setting(
            sizes=tuple(options.sizes or SIZES),
            threads=tuple(options.threads),
            seconds=options.seconds,
            quick=options.quick,
        )
        for family in options.only or FAMILIES:
            _keep(options.results, family, _run(family, setting))
    if options.results == RESULTS:
        page.write(json.loads(options.results.read_text()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks kernels", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=FAMILIES, help="these families")
    parser.add_argument("--sizes", nargs="+", type=_size, help="width x height, such as 481x321")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each contender")
    parser.add_argument(
        "--quick", action="store_true", help="leave out cases that take peers minutes"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="where rows are kept")
    parser.add_argument("--page", action="store_true", help="only write the page anew")
    return parser


def _size(text: str) -> tuple[int, int]:
    width, height = text.split("x")
    return int(height), int(width)


def _run(family: str, setting: Setting) -> list[Row]:
    print(f"\n{FAMILIES[family]}; sizes {', '.join(map(size_name, setting.sizes))}", flush=True)
    rows = []
    for row in importlib.import_module(f"benchmarks.kernels.{family}").rows(setting):
        print(_line(row), flush=True)
        rows.append(row)
    return rows


def _line(row: Row) -> str:
    agreement = ", ".join(f"{name} {value:.6g}" for name, value in row.agreement.items())
    return (
        f"{row.kernel:<22}{row.case:<34}{row.size:>10} {row.threads}T {row.stage:<8}"
        f"{row.ours_s * 1e3:>10.2f} ms  {row.peer:<18}{row.peer_s * 1e3:>10.2f} ms"
        f"{row.ratio:>8.2f}x  {agreement}"
    )


def _keep(path: Path, family: str, rows: list[Row]) -> None:
    """Replace the rows of a family in the file."""
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"families": {}}
    kept["families"][family] = {
        "machine": describe_machine(),
        "rows": [row.as_record() for row in rows],
    }
    write_json(path, kept)
