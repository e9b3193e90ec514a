"""docs/performance.md and its plots, drawn from the rows that the benchmark kept."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.kernels import FAMILIES

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "performance.md"
NOTES = Path(__file__).with_name("notes")

Record = dict[str, Any]

HEAD = """# Speed of the kernels

Every table below comes from one command, which runs ours and its peers in turns in one process:

    make peers                       # once: installs what we compare with
    python -m benchmarks kernels     # all families; --only dense_crf for one

The ratio is the peer's time over ours: above 1, ours is faster. Times are the least of many calls;
a first call, in which a kernel is compiled or loaded from numba's cache, is reported apart
(`python -m benchmarks first_call` tells what a user waits for). 1T and 2T are the threads that ours
had; of the peers only OpenCV and fast-slic can use a second one.

![Time of each peer over ours](performance.svg)
"""


def write(results: Record) -> None:
    """Write the page and its plots."""
    families = {name: results["families"][name] for name in FAMILIES if name in results["families"]}
    parts = [HEAD, *(_section(name, family) for name, family in families.items())]
    PAGE.write_text("\n".join(parts))
    _draw_ratios(families)
    if any(_scaling(family["rows"]) for family in families.values()):
        _draw_scaling(families)
    print(f"wrote {PAGE.relative_to(ROOT)}")


def _section(name: str, family: Record) -> str:
    notes = NOTES / f"{name}.md"
    lines = [f"## {FAMILIES[name][0].upper()}{FAMILIES[name][1:]}", ""]
    if notes.exists():
        lines += [notes.read_text().strip(), ""]
    raced = [row for row in family["rows"] if row["stage"] != "scaling"]
    if raced:
        lines += list(_table(raced))
    scaling = _scaling(family["rows"])
    if scaling:
        lines += ["", *_scaling_table(scaling)]
    machine = family["machine"]
    peers = ", ".join(
        f"{package} {version}"
        for package, version in machine.items()
        if package not in {"processor", "cores", "python"} and version != "not installed"
    )
    lines += ["", f"*{machine['processor']}, {machine['cores']} cores; {peers}.*", ""]
    return "\n".join(lines)


def _table(rows: list[Record]) -> Iterator[str]:
    yield "| kernel | case | size | stage | threads | ours, ms | peer | peer, ms | ratio | agree |"
    yield "|---|---|---|---|---|---:|---|---:|---:|---|"
    for row in rows:
        agreement = ", ".join(f"{k} {_number(v)}" for k, v in row["agreement"].items())
        agreement = agreement.replace("|", r"\|")  # a bar would end the cell
        yield (
            f"| {row['kernel']} | {row['case']} | {row['size']} | {row['stage']} "
            f"| {row['threads']} | {_ms(row['ours_s'])} | {row['peer']} | {_ms(row['peer_s'])} "
            f"| {_ratio(row['ratio'])} | {agreement} |"
        )


def _scaling(rows: list[Record]) -> list[Record]:
    return [row for row in rows if row["stage"] == "scaling"]


def _scaling_table(rows: list[Record]) -> Iterator[str]:
    yield "| kernel | case | megapixels | labels | threads | ours, ms | bytes per pixel | ratio |"
    yield "|---|---|---:|---:|---|---:|---:|---:|"
    for row in rows:
        found = row["agreement"]
        cells = [_number(found[key]) if key in found else "" for key in ("megapixels", "labels")]
        memory = _number(found["bytes_per_pixel"]) if "bytes_per_pixel" in found else ""
        yield (
            f"| {row['kernel']} | {row['case']} | {cells[0]} | {cells[1]} | {row['threads']} "
            f"| {_ms(row['ours_s'])} | {memory} | {_ratio(row['ratio'])} |"
        )


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _ms(seconds: float) -> str:
    return "" if math.isnan(seconds) else f"{seconds * 1e3:.3g}"


def _ratio(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3g}"


def _draw_ratios(families: dict[str, Record]) -> None:
    """One dot a row, one line for each kernel and peer, on a logarithmic axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    groups: dict[str, dict[int, list[float]]] = {}
    for family in families.values():
        for row in family["rows"]:
            if row["stage"] == "all" and not math.isnan(row["ratio"]):
                name = f"{row['kernel']} / {row['peer']}"
                groups.setdefault(name, {}).setdefault(row["threads"], []).append(row["ratio"])
    figure, axes = plt.subplots(figsize=(8, 1 + 0.22 * len(groups)), layout="constrained")
    for place, by_threads in enumerate(groups.values()):
        for threads, ratios in by_threads.items():
            color = "C0" if threads == 1 else "C1"
            axes.plot(ratios, [place] * len(ratios), "o", color=color, markersize=4, alpha=0.7)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set(xscale="log", xlabel="peer's time / ours (1 thread blue, 2 threads orange)")
    axes.set_yticks(range(len(groups)), list(groups), fontsize=7)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(PAGE.with_suffix(".svg"), metadata={"Date": None})
    plt.close(figure)


def _draw_scaling(families: dict[str, Record]) -> None:
    """Time per megapixel against megapixels, and per label against labels."""
    from matplotlib import pyplot as plt

    figure, both = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for axes, unit in zip(both, ("megapixels", "labels"), strict=True):
        lines: dict[str, list[tuple[float, float]]] = {}
        for family in families.values():
            for row in _scaling(family["rows"]):
                if unit in row["agreement"] and not (
                    unit == "megapixels" and "labels" in row["agreement"]
                ):
                    amount = row["agreement"][unit]
                    name = f"{row['kernel']}, {row['threads']}T"
                    lines.setdefault(name, []).append((amount, row["ours_s"] * 1e3 / amount))
        for name, points in lines.items():
            axes.plot(*zip(*sorted(points), strict=True), "o-", markersize=3, label=name)
        axes.set(xscale="log", yscale="log", xlabel=unit, ylabel=f"ms per {unit.rstrip('s')}")
        if lines:
            axes.legend(fontsize=6)
        axes.grid(alpha=0.3)
    figure.savefig(PAGE.with_name("scaling.svg"), metadata={"Date": None})
    plt.close(figure)
