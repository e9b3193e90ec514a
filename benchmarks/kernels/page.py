"""docs/performance.md and its plots, written from the stored results."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.kernels.families import FAMILIES

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "performance.md"
NOTES = Path(__file__).with_name("notes")

Record = dict[str, Any]

HEAD = """# Speed of the kernels

Every table below comes from one command, which runs our kernels and their peers alternately in one
process:

    make peers                       # once: installs the peers
    python -m benchmarks kernels     # all families; --only dense_crf for one

The ratio is the peer's time divided by ours: above 1, ours is faster. A time is the minimum over
many calls. The first call, which compiles a kernel or loads it from numba's cache, is not part of
it; `python -m benchmarks first_call` measures it. 1T and 2T are one and two threads of our kernel.
Of the peers, only OpenCV and fast-slic can use a second thread.

![Time of each peer over ours](performance.svg)

Time per megapixel for growing images, and time per label for more labels:

![Milliseconds for each megapixel, and for each label](scaling.svg)
"""


#: The ratio to reach at least, by the beginning of the kernel's name and the peer.
AIMS = {
    ("dense CRF", "pydensecrf2"): 3.0,
    ("binary cut, 4", "PyMaxflow"): 3.0,
    ("binary cut, 8", "PyMaxflow"): 3.0,
    ("expansion", "gco-wrapper"): 4.0,
    ("SLIC", "scikit-image"): 15.0,
    ("Felzenszwalb", "scikit-image"): 5.0,
    ("random walker", "scikit-image bf"): 5.0,
    ("morphological", "scikit-image"): 20.0,
    ("Chan-Vese", "scikit-image"): 10.0,
}


def write(results: Record) -> None:
    """Write the page and its plots."""
    families = {name: results["families"][name] for name in FAMILIES if name in results["families"]}
    parts = [
        HEAD,
        *_at_a_glance(families),
        *(_section(name, family) for name, family in families.items()),
    ]
    PAGE.write_text("\n".join(parts))
    _draw_ratios(families)
    if any(_scaling(family["rows"]) for family in families.values()):
        _draw_scaling(families)
    print(f"wrote {PAGE.relative_to(ROOT)}")


def _at_a_glance(families: dict[str, Record]) -> Iterator[str]:
    """Yield the smallest, median and largest ratio of each kernel and peer over all cases."""
    groups: dict[tuple[str, str], dict[int, list[float]]] = {}
    for row in (row for family in families.values() for row in _raced(family["rows"])):
        if row["stage"] == "all" and not math.isnan(row["ratio"]):
            ratios = groups.setdefault((row["kernel"], row["peer"]), {})
            ratios.setdefault(row["threads"], []).append(row["ratio"])
    yield "## At a glance\n"
    yield "Smallest, **median** and largest ratio over all cases and sizes of the tables below.\n"
    yield "| kernel | peer | cases | 1 thread | 2 threads | aim: at least |"
    yield "|---|---|---:|---|---|---:|"
    for (kernel, peer), by_threads in groups.items():
        cells = [_spread(by_threads.get(threads, [])) for threads in (1, 2)]
        aim = next((v for (k, p), v in AIMS.items() if kernel.startswith(k) and p == peer), None)
        n_cases = max(map(len, by_threads.values()))
        yield (
            f"| {kernel} | {peer} | {n_cases} | {cells[0]} | {cells[1]} "
            f"| {'' if aim is None else f'{aim:g}'} |"
        )
    yield ""


def _spread(ratios: list[float]) -> str:
    if not ratios:
        return ""
    low, middle, high = (f"{v:.3g}" for v in (min(ratios), median(ratios), max(ratios)))
    return f"**{middle}**" if len(ratios) == 1 else f"{low} … **{middle}** … {high}"


def _section(name: str, family: Record) -> str:
    notes = NOTES / f"{name}.md"
    lines = [f"## {FAMILIES[name][0].upper()}{FAMILIES[name][1:]}", ""]
    if notes.exists():
        lines += [notes.read_text().strip(), ""]
    raced = _raced(family["rows"])
    if raced:
        lines += [*_ratio_table(raced), "", *_folded("Times, stages, agreement", _table(raced))]
    scaling = _scaling(family["rows"])
    if scaling:
        lines += ["", *_folded("Growth with the number of pixels, labels", _scaling_table(scaling))]
    machine = family["machine"]
    peers = ", ".join(
        f"{package} {version}"
        for package, version in machine.items()
        if package not in {"processor", "cores", "python"} and version != "not installed"
    )
    lines += ["", f"*{machine['processor']}, {machine['cores']} cores; {peers}.*", ""]
    return "\n".join(lines)


def _raced(rows: list[Record]) -> list[Record]:
    return [row for row in rows if row["stage"] != "scaling"]


def _ratio_table(rows: list[Record]) -> Iterator[str]:
    """Yield one line per problem with the ratio of the whole computation to each peer."""
    whole = [row for row in rows if row["stage"] == "all"] or rows
    peers = list(dict.fromkeys(row["peer"] for row in whole))
    problems: dict[tuple[Any, ...], dict[str, Record]] = {}
    for row in whole:
        problem = tuple(row[key] for key in ("kernel", "case", "size", "threads"))
        problems.setdefault(problem, {})[row["peer"]] = row
    yield f"| kernel | case | size | threads | ours, ms | {' | '.join(peers)} |"
    yield f"|---|---|---|---:|---:|{'---:|' * len(peers)}"
    for (kernel, case, size, threads), by_peer in problems.items():
        ours = _ms(min(row["ours_s"] for row in by_peer.values()))
        ratios = [_ratio(by_peer[peer]["ratio"]) if peer in by_peer else "" for peer in peers]
        yield f"| {kernel} | {case} | {size} | {threads} | {ours} | {' | '.join(ratios)} |"


def _folded(title: str, lines: Iterable[str]) -> list[str]:
    return [f"<details><summary>{title}</summary>", "", *lines, "", "</details>"]


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
    if math.isnan(seconds):
        return ""
    return f"{seconds * 1e3:.3g}" if seconds < 1 else f"{seconds * 1e3:.0f}"


def _ratio(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3g}"


def _draw_ratios(families: dict[str, Record]) -> None:
    """Draw one dot per row and one line per kernel and peer, on a logarithmic axis."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text
    matplotlib.rcParams["svg.hashsalt"] = "hybridseg"  # the same rows make the same file
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

    figure, both = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
    for axes, unit in zip(both, ("megapixels", "labels"), strict=True):
        lines: dict[str, list[tuple[float, float]]] = {}
        for family in families.values():
            for row in _scaling(family["rows"]):
                if unit in row["agreement"] and not (
                    unit == "megapixels" and "labels" in row["agreement"]
                ):
                    amount = row["agreement"][unit]
                    kind = ", volume" if "volume" in row["case"] else ""
                    name = f"{row['kernel']}{kind}, {row['threads']}T"
                    lines.setdefault(name, []).append((amount, row["ours_s"] * 1e3 / amount))
        for name, points in lines.items():
            axes.plot(*zip(*sorted(points), strict=True), "o-", markersize=3, label=name)
        axes.set(xscale="log", yscale="log", xlabel=unit, ylabel=f"ms per {unit.rstrip('s')}")
        if lines:
            axes.legend(fontsize=6, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
        axes.grid(alpha=0.3)
    figure.savefig(PAGE.with_name("scaling.svg"), metadata={"Date": None})
    plt.close(figure)
