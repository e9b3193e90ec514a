"""Binary minimum cuts of pixel grids against PyMaxflow, thinhpf and bkgco.

All solve the same whole-number energies (costs and weights in thousandths) from NumPy arrays, by
the fastest way in that each peer's Python interface has: PyMaxflow one ``add_grid_edges`` for each
pair of directions, the others one call with all edges listed; making that list counts as building.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from benchmarks.kernels import racing
from benchmarks.kernels.racing import UNIT, Row, Setting, photo, race, size_name
from hybridseg.inference import graph_cut
from hybridseg.inference.cuts.dynamic_cut import DynamicCut
from hybridseg.inference.cuts.grid_cuts import GridNetwork, WholeWeights
from hybridseg.pairwise import energy, grid_weights
from hybridseg.pairwise.edges import edge_groups, edge_list

PHOTO = "coffee"
VOLUME = (64, 96, 96)
#: Directions are 4 and 8, or 6 and 26.
CONNECTIVITIES = {2: {4: 1, 8: 2}, 3: {6: 1, 26: 3}}

Weights = dict[tuple[int, ...], np.ndarray]


class Stages(NamedTuple):
    """The times of building and solving, and the lowest energy found."""

    build_s: float
    solve_s: float
    energy: int
    certified: bool = True


def rows(setting: Setting) -> Iterator[Row]:
    for size in setting.sizes:
        image = photo(PHOTO, size)
        for name, unary in costs_by_source(image).items():
            for strength, weight in (("weak", 2.0), ("strong", 20.0)):
                for n_neighbors, connectivity in CONNECTIVITIES[2].items():
                    case = f"{PHOTO}, {name}, {strength} weights"
                    weights = whole_weights(image, weight, connectivity)
                    yield from _on_threads(setting, n_neighbors, case, unary, weights)
        with racing.threads(1):
            yield from _warm(setting, image)
    volume = _volume()
    unary = _two_labels(UNIT * (volume - 0.5) / 0.2)
    for n_neighbors, connectivity in CONNECTIVITIES[3].items():
        weights = whole_weights((255 * volume).astype(np.uint8), 2.0, connectivity, 3)
        yield from _on_threads(setting, n_neighbors, "noisy balls, volume", unary, weights)


def _on_threads(
    setting: Setting, n_neighbors: int, case: str, unary: np.ndarray, weights: Weights
) -> Iterator[Row]:
    for n_threads in setting.threads:
        with racing.threads(n_threads):
            for row in _cold(setting, n_neighbors, case, unary, weights):
                yield replace(row, threads=n_threads)


def costs_by_source(image: np.ndarray) -> dict[str, np.ndarray]:
    """Return costs (H, W, 2) by their source."""
    height, width = image.shape[:2]
    ours = np.zeros((height, width), bool)
    ours[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = True
    bins = (image // 16).astype(np.int64) @ [256, 16, 1]
    found = [1.0 + np.bincount(bins[inside], minlength=4096) for inside in (~ours, ours)]
    logs = [np.log(counts / counts.sum())[bins] for counts in found]
    noise = np.random.default_rng(0).normal(size=(height, width))
    far = np.zeros((height, width))
    far[height // 8, width // 8], far[-(height // 8), -(width // 8)] = -1e5, 1e5
    scribbles = np.zeros((height, width))
    scribbles[height // 2 : height // 2 + height // 25, width // 3 : -(width // 3)] = 1e5
    scribbles[: height // 30], scribbles[-(height // 30) :] = -1e5, -1e5
    scribbles[:, : width // 50], scribbles[:, -(width // 50) :] = -1e5, -1e5
    return {
        "color histograms": _two_labels(UNIT * (logs[1] - logs[0])),
        "white noise": _two_labels(UNIT * 3 * noise),
        "two far seeds": _two_labels(UNIT * far),
        "scribbles": _two_labels(UNIT * scribbles),
    }


def _two_labels(gain: np.ndarray) -> np.ndarray:
    """Return integer costs >= 0 with the given difference between the labels."""
    whole = np.rint(gain).astype(np.int64)
    return np.stack([np.maximum(whole, 0), np.maximum(-whole, 0)], axis=-1)


def whole_weights(image: np.ndarray, weight: float, connectivity: int, rank: int = 2) -> Weights:
    weights = grid_weights(image, weight=weight, connectivity=connectivity, spatial_ndim=rank)
    return {offset: racing.whole(w) for offset, w in weights.items()}


def _volume() -> np.ndarray:
    """Balls in noise, between 0 and 1."""
    rng = np.random.default_rng(0)
    places = np.stack(np.meshgrid(*map(np.arange, VOLUME), indexing="ij"), axis=-1)
    inside = np.zeros(VOLUME, bool)
    for center, radius in zip(rng.random((12, 3)) * VOLUME, rng.uniform(8, 22, 12), strict=True):
        inside |= ((places - center) ** 2).sum(axis=-1) < radius**2
    return np.clip(0.35 + 0.3 * inside + rng.normal(0, 0.2, VOLUME), 0, 1)


def _cold(
    setting: Setting, n_neighbors: int, case: str, unary: np.ndarray, weights: Weights
) -> Iterator[Row]:
    contenders = {"ours": _ours} | _peers(setting)
    runs = _alternate({k: lambda f=f: f(unary, weights) for k, f in contenders.items()}, setting)
    whole = race({"ours": lambda: graph_cut(unary, weights)}, setting.seconds)["ours"]
    best = {
        name: {
            "build": min(run.build_s for run in taken),
            "solve": min(run.solve_s for run in taken),
            "all": min(run.build_s + run.solve_s for run in taken),
        }
        for name, taken in runs.items()
    }
    best["ours"]["all"] = whole.best_s  # with all checks of the input, and the energy
    for peer in contenders:
        for stage in ("all", "build", "solve"):
            if peer == "ours":
                continue
            yield Row(
                kernel=f"binary cut, {n_neighbors}-neighbor",
                case=case,
                size=size_name(unary.shape[:-1]),
                threads=1,
                peer=peer,
                ours_s=best["ours"][stage],
                peer_s=best[peer][stage],
                ours_first_s=whole.first_s,
                stage=stage,
                agreement={
                    "energy_difference": int(whole.result.energy) - runs[peer][0].energy,
                    "certified": runs["ours"][0].certified,
                },
            )


def _alternate(
    contenders: Mapping[str, Callable[[], Stages]], setting: Setting
) -> dict[str, list[Stages]]:
    """Run the contenders alternately until each had its time; short ones at least three times."""
    runs = {name: [call()] for name, call in contenders.items()}  # the first ones: compilation
    waiting = set(contenders)
    while waiting:
        for name in sorted(waiting):
            runs[name].append(contenders[name]())
            spent = sum(run.build_s + run.solve_s for run in runs[name][1:])
            if spent >= setting.seconds and (len(runs[name]) > 3 or spent > 2 * setting.seconds):
                waiting.discard(name)
    return runs


def _ours(unary: np.ndarray, weights: Weights) -> Stages:
    shape = unary.shape[:-1]
    start = time.perf_counter()
    groups = edge_groups(weights, shape)
    whole = WholeWeights.of(groups, shape)
    assert whole is not None
    excess = whole.excess(unary)
    network = GridNetwork.build(whole.groups, shape, np.int64)
    built = time.perf_counter()
    labels = network.solve(excess)
    solved = time.perf_counter()
    flow = np.maximum(excess, 0).sum(dtype=object) - np.maximum(network.forest.excess, 0).sum(
        dtype=object
    )
    cut = np.where(labels == 1, np.maximum(-excess, 0), np.maximum(excess, 0)).sum(dtype=object)
    for group in whole.groups:
        cut += group.weight[labels[group.p] != labels[group.q]].sum(dtype=object)
    found = int(energy(labels, unary, weights))
    return Stages(built - start, solved - built, found, bool(flow == cut))


def _peers(setting: Setting) -> dict[str, Callable[[np.ndarray, Weights], Stages]]:
    peers: dict[str, Callable[[np.ndarray, Weights], Stages]] = {}
    if racing.peer("maxflow") is not None:
        peers["PyMaxflow"] = _pymaxflow
    if not setting.quick and racing.peer("thinhpf") is not None:
        peers["thinhpf"] = _thinhpf
    if not setting.quick and racing.peer("bkgco") is not None:
        peers["bkgco"] = _bkgco
    return peers


def _pymaxflow_network(unary: np.ndarray, weights: Weights) -> tuple[Any, np.ndarray]:
    library = racing.peer("maxflow")
    assert library is not None
    shape = unary.shape[:-1]
    n_nodes = int(np.prod(shape))
    network = library.Graph[int](n_nodes, len(weights) * n_nodes)
    nodes = network.add_grid_nodes(shape)
    for offset, weight in weights.items():
        structure = np.zeros((3,) * len(shape), np.int64)
        structure[tuple(1 + step for step in offset)] = 1
        padded = np.zeros(shape, np.int64)
        ends = zip(offset, shape, strict=True)
        padded[tuple(slice(max(0, -s), n - max(0, s)) for s, n in ends)] = weight
        network.add_grid_edges(nodes, padded, structure, symmetric=True)
    network.add_grid_tedges(nodes, unary[..., 0], unary[..., 1])
    return network, nodes


def _pymaxflow(unary: np.ndarray, weights: Weights) -> Stages:
    start = time.perf_counter()
    network, nodes = _pymaxflow_network(unary, weights)
    built = time.perf_counter()
    flow = network.maxflow()
    network.get_grid_segments(nodes)
    return Stages(built - start, time.perf_counter() - built, int(flow))


def _thinhpf(unary: np.ndarray, weights: Weights) -> Stages:
    from thinhpf import hpf

    shape = unary.shape[:-1]
    start = time.perf_counter()
    i, j, w = edge_list(edge_groups(weights, shape), shape)
    n_nodes = int(np.prod(shape))
    source, sink, flat = n_nodes, n_nodes + 1, unary.reshape(-1, 2)
    given, taken = (np.flatnonzero(flat[:, label]) for label in (0, 1))
    tails = np.concatenate([i, j, np.full(len(given), source), taken]).astype(np.uint32)
    heads = np.concatenate([j, i, given, np.full(len(taken), sink)]).astype(np.uint32)
    caps = np.concatenate([w, w, flat[given, 0], flat[taken, 1]]).astype(np.int32)
    network = hpf(n_nodes + 2, len(tails), "int32", "hf", "lifo")
    network.add_node(n_nodes + 2)
    network.set_source(source)
    network.set_sink(sink)
    network.add_edges(tails, heads, caps)
    built = time.perf_counter()
    network.mincut()
    solved = time.perf_counter()  # its labels are read node by node, which is not timed
    return Stages(built - start, solved - built, int(network.compute_maxflow()))


def _bkgco(unary: np.ndarray, weights: Weights) -> Stages:
    import bkgco

    shape = unary.shape[:-1]
    start = time.perf_counter()
    i, j, w = edge_list(edge_groups(weights, shape), shape)
    network = bkgco.BKGraph(len(w), dtype=np.int64)
    network.add_tweights(unary.reshape(-1, 2))
    network.add_edges(np.stack([i, j], axis=1), np.stack([w, w], axis=1))
    built = time.perf_counter()
    flow = network.maxflow()
    network.get_segments()
    return Stages(built - start, time.perf_counter() - built, int(flow))


def _warm(setting: Setting, image: np.ndarray) -> Iterator[Row]:
    """Time one step from one problem to the next or back."""
    unary = costs_by_source(image)["color histograms"]
    weights = whole_weights(image, 20.0, 1)
    height, width = image.shape[:2]
    none = np.full((height, width), -1)
    scribble = none.copy()
    top, left = height // 3, width // 3
    labels = graph_cut(unary, weights).labels
    part = np.s_[top : top + 10, left : left + 10]
    scribble[part] = 1 - labels[part]
    rng = np.random.default_rng(1)
    frame = unary + np.rint(0.1 * UNIT * rng.normal(size=unary.shape)).astype(np.int64)
    frame -= frame.min(axis=-1, keepdims=True)
    cases: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "a scribble of 10 x 10": ({"unary": unary, "seeds": none}, {"seeds": scribble}),
        "next frame, noise 0.1": ({"unary": unary}, {"unary": frame}),
        "strength 1 to 1.1": ({"unary": unary, "strength": 1}, {"strength": 1.1}),
    }
    for name, (first, change) in cases.items():
        steps = [first, first | change]
        dynamic = DynamicCut(weights)
        contenders: dict[str, Callable[[], Any]] = {
            "ours": lambda s=steps, d=dynamic: [d.solve(**step) for step in s],
            "ours, cold": lambda s=steps: [_cold_cut(step, weights) for step in s],
        }
        if racing.peer("maxflow") is not None:
            plain = [_as_plain(step, weights) for step in steps]
            contenders["PyMaxflow"] = lambda p=plain: [_pymaxflow(*step).energy for step in p]
            if "strength" not in first:
                contenders["PyMaxflow, trees reused"] = _reusing(plain)
        timings = race(contenders, setting.seconds)
        warm, cold = timings["ours"].result, timings["ours, cold"].result
        same = all(np.array_equal(a.labels, b.labels) for a, b in zip(warm, cold, strict=True))
        gaps = [a.energy - b.energy for a, b in zip(warm, cold, strict=True)]  # ours only
        for peer in list(contenders)[1:]:
            yield Row(
                kernel="binary cut, warm start",
                case=f"{PHOTO}, {name}",
                size=size_name((height, width)),
                threads=1,
                peer=peer,
                ours_s=timings["ours"].best_s / 2,
                peer_s=timings[peer].best_s / 2,
                ours_first_s=timings["ours"].first_s / 2,
                agreement={"energy_difference": max(map(abs, gaps)), "labels_equal": same},
            )


def _cold_cut(step: dict[str, Any], weights: Weights) -> Any:
    step = dict(step)
    strength = step.pop("strength", 1)
    scaled = weights if strength == 1 else {o: w * strength for o, w in weights.items()}
    return graph_cut(step["unary"], scaled, seeds=step.get("seeds"))


def _as_plain(step: dict[str, Any], weights: Weights) -> tuple[np.ndarray, Weights]:
    """Return seeds as large costs, and integer weights, for peers that lack both."""
    unary, seeds = step["unary"].copy(), step.get("seeds")
    if seeds is not None:
        for label in (0, 1):
            unary[seeds == label] = 10**7 * (np.arange(2) != label)
    strength = step.get("strength", 1)
    return unary, {o: np.rint(w * strength).astype(np.int64) for o, w in weights.items()}


def _reusing(steps: list[tuple[np.ndarray, Weights]]) -> Callable[[], None]:
    """PyMaxflow on one network, alternating between two problems by changed terminal weights."""
    network, nodes = _pymaxflow_network(*steps[0])
    network.maxflow()
    gains = [unary[..., 0] - unary[..., 1] for unary, _ in steps]
    changes = [gains[1] - gains[0], gains[0] - gains[1]]
    changed = np.flatnonzero(changes[0].ravel())

    def back_and_forth() -> None:
        for change in changes:
            given = change.ravel()[changed]
            network.add_grid_tedges(
                nodes.ravel()[changed], np.maximum(given, 0), np.maximum(-given, 0)
            )
            network.mark_grid_nodes(nodes.ravel()[changed])
            network.maxflow(reuse_trees=True)
            network.get_grid_segments(nodes)

    return back_and_forth
