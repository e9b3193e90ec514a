"""The forward pass of every network and of its equal in torchvision, smp, timm, MONAI or pytorchcv.

``python -m benchmarks latency`` runs ours and the peer in turns in one process, in evaluation
mode on one image of three channels, both channels last, and keeps the rows in
``benchmarks/latency/results.json``. ``--quick`` and ``--only`` race some networks and keep nothing
unless ``--results`` says where. On a busy machine, ``--clock process --threads 1`` takes processor
time. ``make peers`` installs MONAI and pytorchcv; missing peers are left out and named.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.files import write_json
from benchmarks.kernels.racing import size_name
from benchmarks.latency.page import line, table
from benchmarks.latency.pairs import PAIRS, Pair, Size
from benchmarks.latency.sides import Side, build_sides
from benchmarks.machine import describe_machine

__all__ = ["RESULTS", "main", "race", "table"]

RESULTS = Path(__file__).with_name("results.json")
PACKAGES = ("torch", "torchvision", "segmentation_models_pytorch", "timm", "monai", "pytorchcv")
CLOCKS = {"wall": time.perf_counter, "process": time.process_time}
#: Networks of more operations, in 10^9 multiplications with addition, run on all threads only, and
#: are not raced folded: they take seconds.
_HEAVY = 40.0

Record = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    chosen = [pair for pair in PAIRS if _is_chosen(pair, options)]
    rows = []
    for pair in chosen:
        for size in pair.sizes[:1] if options.quick else pair.sizes:
            for row in _rows(pair, size, options):
                print(line(row), flush=True)
                rows.append(row)
    results = {"machine": describe_machine(PACKAGES), "clock": options.clock, "rows": rows}
    path = options.results or (RESULTS if len(chosen) == len(PAIRS) else None)
    if path is not None:
        write_json(path, results)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks latency", description=__doc__)
    parser.add_argument("--only", nargs="+", help="networks whose title holds one of these texts")
    parser.add_argument("--quick", action="store_true", help="small networks, small images")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--seconds", type=float, default=0.5, help="time for each contender")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--results", type=Path, help="where the rows are kept")
    return parser


def _is_chosen(pair: Pair, options: argparse.Namespace) -> bool:
    if options.only:
        return any(text.lower() in pair.title.lower() for text in options.only)
    return pair.quick or not options.quick


def _rows(pair: Pair, size: Size, options: argparse.Namespace) -> Iterator[Record]:
    """One row for each number of threads."""
    torch.set_num_threads(max(options.threads))
    sides, difference = build_sides(pair, size, heavy=_HEAVY)
    about: Record = {"network": pair.title, "size": size_name(size)}
    if "peer" in sides:
        about |= {"peer_name": pair.peer_name, "differs": pair.differs, "difference": difference}
    is_heavy = sides["ours"].gmacs > _HEAVY
    for threads in options.threads[-1:] if is_heavy else options.threads:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            calls = {name: side.run for name, side in sides.items()}
            times = race(calls, options.seconds, CLOCKS[options.clock])
        taken = {name: _record(sides[name], times[name]) for name in sides}
        yield about | {"threads": threads} | taken


def _record(side: Side, times: Sequence[float]) -> Record:
    ordered = sorted(times)
    return {
        "parameters": side.parameters,
        "gmacs": round(side.gmacs, 3),
        "least_ms": round(ordered[0] * 1e3, 2),
        "median_ms": round(ordered[len(ordered) // 2] * 1e3, 2),
        "calls": len(ordered),
    }


def race(
    contenders: dict[str, Callable[[], Any]], seconds: float, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Return the seconds of each call; the order of the contenders is reversed in every round.

    The first round, which warms up, does not count. Then there are at least three, and as many
    as the slowest contender does in ``seconds``.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders)
    rounds = 0
    while rounds < 4 or max(sum(taken[1:]) for taken in times.values()) < seconds:
        for name in order:
            start = clock()
            contenders[name]()
            times[name].append(clock() - start)
        order.reverse()
        rounds += 1
    return {name: taken[1:] for name, taken in times.items()}
