"""A table of counts, as every part of the reliability benchmark returns it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Table:
    """The counts of one part.

    ``text`` describes the cases and the columns in Markdown.
    """

    title: str
    text: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    def as_text(self) -> str:
        """The table for a terminal."""
        lines = [" | ".join(map(str, row)) for row in (self.columns, *self.rows)]
        return "\n".join([self.title, *lines])
