"""Rows of the benchmark as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Record = Mapping[str, Any]


def line(row: Record) -> str:
    """Return one row as text for the terminal."""
    ours = row["ours"]
    text = (
        f"{row['network']:<36}{row['size']:>9} {row['threads']}T"
        f"{ours['parameters'] / 1e6:8.2f} M{ours['gmacs']:8.2f} GMAC{ours['least_ms']:9.1f} ms"
    )
    if "folded" in row:
        text += f", folded{row['folded']['least_ms']:9.1f} ms"
    if "peer" in row:
        theirs = row["peer"]
        text += (
            f"   {row['peer_name']}{theirs['parameters'] / 1e6:8.2f} M{theirs['gmacs']:8.2f} GMAC"
            f"{theirs['least_ms']:9.1f} ms{ratio(row):6.2f}x"
            f" (medians {ratio(row, 'median_ms'):.2f})"
        )
    return text


def ratio(row: Record, which: str = "least_ms", side: str = "ours") -> float:
    """The peer's time over ours: above one, ours is faster."""
    return row["peer"][which] / row[side][which]


def table(results: Record) -> str:
    """Return a Markdown table: one line per network and size, with all numbers of threads."""
    threads = sorted({row["threads"] for row in results["rows"]})
    groups: dict[tuple[str, str], dict[int, Record]] = {}
    for row in results["rows"]:
        groups.setdefault((row["network"], row["size"]), {})[row["threads"]] = row
    return "\n".join([*_head(threads), *(_cells(group, threads) for group in groups.values())])


def _head(threads: list[int]) -> Iterator[str]:
    each = " / ".join(f"{n}T" for n in threads)
    titles = [
        *("network", "size", "parameters, M", "GMAC", f"ours, ms, {each}", f"folded, {each}"),
        *("peer", "its parameters, M", "its GMAC", f"its ms, {each}", f"peer / ours, {each}"),
        *(f"peer / folded, {each}", "how the peer differs"),
    ]
    yield f"| {' | '.join(titles)} |"
    left = {"network", "size", "peer", "how the peer differs"}
    yield f"|{'|'.join('---' if title in left else '---:' for title in titles)}|"


def _cells(group: Mapping[int, Record], threads: list[int]) -> str:
    rows = [group.get(n) for n in threads]
    row = next(row for row in rows if row is not None)
    cells = [row["network"], row["size"], *_amounts(row["ours"])]
    cells += [_times(rows, "ours"), _times(rows, "folded")]
    if "peer" in row:
        cells += [row["peer_name"], *_amounts(row["peer"]), _times(rows, "peer")]
        cells += [_ratios(rows, "ours"), _ratios(rows, "folded")]
        cells += [row["differs"] or "nothing: same weights, same logits"]
    else:
        cells += [""] * 7
    return f"| {' | '.join(cells)} |"


def _amounts(side: Record) -> tuple[str, str]:
    return f"{side['parameters'] / 1e6:.2f}", _short(side["gmacs"])


def _times(rows: list[Record | None], side: str) -> str:
    return _joined([_short(row[side]["least_ms"]) for row in rows if row and side in row], rows)


def _ratios(rows: list[Record | None], side: str) -> str:
    found = [f"{ratio(row, side=side):.2f}" for row in rows if row and side in row]
    return _joined(found, rows)


def _joined(cells: list[str], rows: list[Record | None]) -> str:
    """Join the values for all numbers of threads; large networks have only one."""
    return " / ".join(["-"] * (len(rows) - len(cells)) + cells) if cells else ""


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"
