"""Attempts to break the library, and their outcomes.

``python -m benchmarks reliability`` runs all parts, keeps their counts in
``benchmarks/reliability/results.json`` and writes ``docs/reliability.md`` from them (``--page``
does only that). ``--only`` runs some parts again and keeps the others' counts.
"""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.files import write_json
from benchmarks.machine import describe_machine
from benchmarks.reliability import page
from benchmarks.reliability.parts import PARTS
from benchmarks.reliability.tables import Table

RESULTS = Path(__file__).with_name("results.json")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the requested parts, then write the page."""
    options = _parser().parse_args(arguments)
    if not options.page:
        for part in options.only or PARTS:
            print(f"\n{part}: {PARTS[part]}", flush=True)
            measure = importlib.import_module(f"benchmarks.reliability.{part}").measure
            _keep(options.results, part, measure(options.seconds, options.seed))
    if options.results == RESULTS:
        page.write(json.loads(RESULTS.read_text()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks reliability", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, help="these parts")
    parser.add_argument("--seconds", type=float, default=300.0, help="time for each random part")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random cases")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where counts are kept")
    parser.add_argument("--page", action="store_true", help="only write the page anew")
    return parser


def _keep(path: Path, part: str, tables: list[Table]) -> None:
    """Replace the tables of a part in the file."""
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"parts": {}}
    for table in tables:
        print(table.as_text(), flush=True)
    kept["parts"][part] = {
        "machine": describe_machine(),
        "tables": [asdict(table) for table in tables],
    }
    write_json(path, kept)
