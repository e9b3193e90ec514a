"""Draws the rooms and what they import: ``python -m tests.draw_rooms`` writes a drawing for docs.

A room stands above all that it imports. An arrow is left out where a longer way says the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from tests.test_source import MODULES, ROOMS, ROOT, modules_imported, name_of, room_of

DRAWING = ROOT / "docs" / "architecture.svg"

#: What each room is, in a few words.
WORDS = {
    "version": "",
    "kernels": "compiled loops",
    "arguments": "numbers checked",
    "validation": "arrays checked",
    "space": "lengths, units",
    "files": "images, volumes on disk",
    "metrics": "truth, prediction → scores",
    "scene": "what travels",
    "base": "estimators' shared part",
    "datasets": "images with known labels",
    "features": "descriptors, superpixels",
    "losses": "what networks minimize",
    "networks": "images → logits",
    "unary": "image → costs",
    "pairwise": "terms, and their Energy",
    "learning": "objectives, held-out gate",
    "inference": "Energy → labels, marginals",
    "deep.prediction": "images → logits of any size",
    "deep.training": "label maps → a network",
    "deep": "image → costs, by a network",
    "deep.adaptation": "a network in a new domain",
    "search": "candidates → a pipeline",
    "persistence": "models as files",
    "report": "what a person reads",
    "demo": "the main job, shown",
    "cli": "the command line",
}
_WIDTH, _BOX, _HIGH, _ROW, _GAP = 1180, 184, 46, 96, 18


def main() -> None:
    """Write the drawing."""
    DRAWING.write_text("\n".join(lines()) + "\n")
    print(f"wrote {DRAWING.relative_to(ROOT)}")


def imports() -> dict[str, set[str]]:
    """For each room of the drawing, the rooms that its files import."""
    found: dict[str, set[str]] = {room: set() for room in WORDS}
    for path in MODULES:
        room = room_of(name_of(path))
        if room in WORDS:
            others = {room_of(name) for name in modules_imported(path)} & set(WORDS)
            found[room] |= {o for o in others if ROOMS.index(o) < ROOMS.index(room)}
    return found


def floors(edges: dict[str, set[str]]) -> dict[str, int]:
    """The floor of each room: one above the highest that it imports."""
    found: dict[str, int] = {}
    for room in sorted(edges, key=ROOMS.index):
        found[room] = 1 + max((found[other] for other in edges[room]), default=-1)
    return found


def needed(edges: dict[str, set[str]]) -> Iterator[tuple[str, str]]:
    """Pairs of rooms whose arrow no longer way implies."""
    below: dict[str, set[str]] = {}
    for room in sorted(edges, key=ROOMS.index):
        below[room] = edges[room].union(*(below[other] for other in edges[room]))
    for room, others in edges.items():
        for other in others:
            if not any(other in below[middle] for middle in others - {other}):
                yield room, other


def lines() -> Iterator[str]:
    """The drawing, line by line."""
    edges = imports()
    floor = floors(edges)
    rows: dict[int, list[str]] = defaultdict(list)
    for room in WORDS:
        if room != "version":
            rows[floor[room]].append(room)
    height = _ROW * len(rows) + 2 * _GAP
    place: dict[str, tuple[float, float]] = {}
    for level, rooms in sorted(rows.items()):
        step = _WIDTH / len(rooms)
        for i, room in enumerate(sorted(rooms, key=lambda room: _middle(edges[room], place))):
            place[room] = (step * (i + 0.5), height - _GAP - _ROW * (level + 0.5))
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'font-family="system-ui, sans-serif" text-anchor="middle" role="img">'
    )
    yield "<title>The rooms of hybridseg, each above what it imports</title>"
    yield (
        '<marker id="head" viewBox="0 0 10 10" refX="10" refY="5" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0L10 5L0 10z" fill="#52606d"/></marker>'
    )
    yield f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>'
    for room, other in sorted(needed(edges)):
        if room in place and other in place:
            (x, y), (u, v) = place[room], place[other]
            y, v = y + _HIGH / 2, v - _HIGH / 2
            middle = (y + v) / 2
            yield (
                f'<path d="M{x:.0f} {y:.0f}C{x:.0f} {middle:.0f} {u:.0f} {middle:.0f} '
                f'{u:.0f} {v:.0f}" fill="none" stroke="#9aa5b1" stroke-width="1.4" '
                'marker-end="url(#head)"/>'
            )
    for room, (x, y) in place.items():
        yield (
            f'<rect x="{x - _BOX / 2:.0f}" y="{y - _HIGH / 2:.0f}" width="{_BOX}" '
            f'height="{_HIGH}" rx="7" fill="#eef3f8" stroke="#3d5a80"/>'
        )
        yield f'<text x="{x:.0f}" y="{y - 3:.0f}" font-size="15" font-weight="600">{room}</text>'
        yield (
            f'<text x="{x:.0f}" y="{y + 15:.0f}" font-size="12" fill="#52606d">{WORDS[room]}</text>'
        )
    yield "</svg>"


def _middle(others: set[str], place: dict[str, tuple[float, float]]) -> float:
    """Where the rooms that one imports stand, in the mean, so that arrows cross little."""
    known = sorted(place[other][0] for other in others if other in place)
    return round(sum(known) / len(known), 3) if known else 0.0


if __name__ == "__main__":
    main()
