"""docs/reliability.md, written from the stored counts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.reliability.parts import PARTS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"

HEAD = """# Reliability

This page counts attempts to break the library. One command runs them all:

    python -m benchmarks reliability                # all parts; --only sweep for one

Each part names the machine on which it ran.
"""


def write(results: dict[str, Any]) -> None:
    """Write the page."""
    known = [name for name in PARTS if name in results["parts"]]
    PAGE.write_text("\n".join([HEAD, *(_section(name, results["parts"][name]) for name in known)]))
    print(f"wrote {PAGE.relative_to(ROOT)}")


def _section(name: str, part: dict[str, Any]) -> str:
    return "\n".join(
        [
            f"## {PARTS[name][0].upper()}{PARTS[name][1:]}\n",
            f"`python -m benchmarks reliability --only {name}` on {_machine(part['machine'])}.\n",
            *(line for table in part["tables"] for line in _lines(table)),
        ]
    )


def _machine(machine: dict[str, str]) -> str:
    named = ", ".join(f"{name} {machine[name]}" for name in ("python", "numba", "numpy"))
    return f"{machine['cores']} cores of {machine['processor']}, {named}"


def _lines(table: dict[str, Any]) -> Iterator[str]:
    yield f"### {table['title']}\n"
    yield f"{table['text'].strip()}\n"
    yield f"| {' | '.join(table['columns'])} |"
    yield f"|{'---|' * len(table['columns'])}"
    yield from (f"| {' | '.join(map(str, row))} |" for row in table["rows"])
    yield ""
