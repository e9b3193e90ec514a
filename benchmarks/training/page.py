"""docs/networks.md and its plot, written from the stored results of the networks' benchmarks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import adaptation, latency
from benchmarks.training.places import SETS

PAGE = Path(__file__).parents[2] / "docs" / "networks.md"

Record = dict[str, Any]

HEAD = """# Trained networks

Scores of networks that were trained on real data, and the time that the training took. Every figure
comes from one of these commands. The first two need `HYBRIDSEG_DATA`, the folder of the data sets:

    python -m benchmarks training camvid isbi nuclei hippocampus
    python -m benchmarks adaptation
    python -m benchmarks latency             # needs no data; make peers installs the peers
    python -m benchmarks training --page     # writes this page from the stored results

The networks were trained on a processor, on one thread. Core-minutes are the processor time of the
training alone. The settings are in `benchmarks/training/`. The settings of networks and refiners
were chosen on training and validation images only.

![Training loss of each network](networks.svg)
"""


def write(results: Record) -> None:
    """Write the page and its plot."""
    parts = [HEAD]
    for name, title in SETS.items():
        rows = [row for key, row in results.items() if key.startswith(f"{name}/")]
        if rows:
            parts += [f"## {title}\n", *SECTIONS[name](rows), ""]
    if adaptation.RESULTS.exists():
        parts += _adaptation(json.loads(adaptation.RESULTS.read_text()))
    if latency.RESULTS.exists():
        parts += _latency(json.loads(latency.RESULTS.read_text()))
    PAGE.write_text("\n".join(parts))
    _draw_losses(results)
    print(f"wrote {PAGE}")


def _camvid(rows: list[Record]) -> Iterator[str]:
    yield "Mean IoU of the 11 classes, in percent; void pixels are ignored.\n"
    yield from _table(
        (
            *("network", "parameters", "core-minutes", "val", "**test**", "test, mirrored too"),
            *("test, DenseCRF", "seconds per image"),
        ),
        (
            (
                *(row["title"], _millions(row["parameters"]), row["cpu_minutes"]),
                *(row["val"]["mean_iou"], f"**{row['test']['mean_iou']}**"),
                row["test, mirrored too"]["mean_iou"],
                row["test, DenseCRF"]["mean_iou"],
                row["test"]["seconds_per_image"],
            )
            for row in rows
        ),
    )
    published = ", ".join(f"{name} {value}" for name, value in rows[0]["published"].items())
    yield f"\nPublished, on the same test list unless noted: {published}.\n"
    yield "Each class on the test list, IoU in percent, alone and after DenseCRF:\n"
    columns = [row[part]["iou"] for row in rows for part in ("test", "test, DenseCRF")]
    names = [name for row in rows for name in (_short(row["title"]), "with DenseCRF")]
    yield from _table(
        ("class", *names),
        ((name, *values) for name, *values in zip(rows[0]["classes"], *columns, strict=True)),
    )
    yield from _refined(rows)


def _isbi(rows: list[Record]) -> Iterator[str]:
    yield (
        "The Rand error is computed inside the true cells, at the best threshold, as in the "
        "challenge. Splits and merges are the two parts of the variation of information, in bits.\n"
    )
    yield from _table(
        (
            *("network", "parameters", "core-minutes", "pixel accuracy", "IoU membrane, cell"),
            *("boundary IoU", "with GraphCut", "Rand error", "splits, merges"),
        ),
        (
            (
                *(row["title"], _millions(row["parameters"]), row["cpu_minutes"]),
                *(row["test"]["pixel_accuracy"], _join(row["test"]["iou"])),
                *(row["test"]["boundary_iou"], row["test, GraphCut"]["boundary_iou"]),
                *(row["adapted_rand_error"], _join(row["variation_of_information"])),
            )
            for row in rows
        ),
    )
    yield from _refined(rows)
    yield from _published(rows)


def _nuclei(rows: list[Record]) -> Iterator[str]:
    yield (
        "A nucleus is a connected component of the class inside, grown over its rim. Precision is "
        "TP / (TP + FP + FN), where a nucleus counts as found if its IoU reaches a threshold: 0.5, "
        "or the mean over ten thresholds from 0.5 to 0.95.\n"
    )
    parts = ("test", "test, DenseCRF")
    yield from _table(
        (
            *("network", "parameters", "core-minutes", "Dice", "precision at 0.5", "0.5 to 0.95"),
            "nuclei: true, found",
        ),
        (
            (
                row["title"] if part == "test" else "  with DenseCRF",
                *(_millions(row["parameters"]), row["cpu_minutes"]),
                *(row[part]["dice"], row[part]["precision_at_0.5"]),
                *(row[part]["precision_0.5_to_0.95"], _join(row[part]["nuclei"])),
            )
            for row in rows
            for part in parts
        ),
    )
    yield from _refined(rows)


def _hippocampus(rows: list[Record]) -> Iterator[str]:
    yield "Dice in percent: mean over the volumes (standard deviation).\n"
    yield from _table(
        ("network", "parameters", "core-minutes", "anterior", "posterior"),
        (
            (
                row["title"] if part == "test" else "  with DenseCRF",
                *(_millions(row["parameters"]), row["cpu_minutes"]),
                *(
                    f"{row[part]['dice'][label]} ({row[part]['dice_deviation'][label]})"
                    for label in (1, 2)
                ),
            )
            for row in rows
            for part in ("test", "test, DenseCRF")
        ),
    )
    yield from _refined(rows)


SECTIONS = {"camvid": _camvid, "isbi": _isbi, "nuclei": _nuclei, "hippocampus": _hippocampus}


def _adaptation(results: Record) -> Iterator[str]:
    yield "## Night, fog and noise, without labels\n"
    yield (
        f"CamVid's test images were darkened, fogged or made noisy. `DomainAdapter` adapts to "
        f"{results['adapted']} of them without labels; the mean IoU is of {results['scored']} "
        "others. An asterisk marks runs in which the adapter undid a step that looked harmful. "
        "Self-training follows batch statistics.\n"
    )
    shifts = list(dict.fromkeys(row["shift"] for row in results["rows"]))
    lines: dict[tuple[str, str], dict[str, str]] = {}
    seconds: dict[tuple[str, str], list[int]] = {}
    for row in results["rows"]:
        method, _, undone = row["method"].partition(" (")
        line = row["network"], method
        lines.setdefault(line, {})[row["shift"]] = f"{row['mean_iou']}{'*' if undone else ''}"
        seconds.setdefault(line, []).append(row["cpu_seconds"])
    yield from _table(
        ("network", "method", *shifts, "core-seconds"),
        (
            (*line, *(cells[shift] for shift in shifts), max(seconds[line]))
            for line, cells in lines.items()
        ),
    )
    yield ""


def _latency(results: Record) -> Iterator[str]:
    machine = results["machine"]
    yield "## One forward pass\n"
    yield (
        "Minimum time of many calls, which alternate with calls of the peer, for one image of "
        "three channels. Above 1, ours is faster. `folded` is the network after "
        "`networks.fold_batch_norm`. Networks above 40 GMAC ran only on the largest number of "
        f"threads. {machine['processor']}.\n"
    )
    yield latency.table(results)
    yield ""


def _refined(rows: list[Record]) -> Iterator[str]:
    for refiner in dict.fromkeys(row["refiner"] for row in rows):
        yield f"\nRefined by `{refiner}`."


def _published(rows: list[Record]) -> Iterator[str]:
    for name, value in rows[0].get("published", {}).items():
        yield f"\nPublished: {name} {value}."


def _table(titles: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    yield f"| {' | '.join(titles)} |"
    yield "|---|" + "---:|" * (len(titles) - 1)
    for row in rows:
        yield f"| {' | '.join(map(str, row))} |"


def _join(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values))


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f} M"


def _short(title: str) -> str:
    return title.partition(",")[0]


def _draw_losses(results: Record) -> None:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text
    matplotlib.rcParams["svg.hashsalt"] = "hybridseg"  # the same rows make the same file
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
    for key, row in results.items():
        epochs = range(1, len(row["losses"]) + 1)
        axes.plot(epochs, row["losses"], label=f"{key.partition('/')[0]}: {row['title']}")
    axes.set(yscale="log", xlabel="epoch", ylabel="training loss")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, frameon=False)
    figure.savefig(PAGE.with_suffix(".svg"), metadata={"Date": None})
    plt.close(figure)
