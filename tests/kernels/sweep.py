"""Every kernel that uses vectors, over shapes at which rows end in every way, with vectors and
without.

A case calls a function of the package twice. In the checked build (``HYBRIDSEG_CHECK=1``) an access
outside of an array is an IndexError; a vector that spills over to the next row of the same array is
seen by the difference alone. So both count as failures.

    HYBRIDSEG_CHECK=1 python -m tests.kernels.sweep            # all families, or those named
"""

from __future__ import annotations

import json
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numba import get_num_threads, set_num_threads

from hybridseg.features import (
    etps,
    felzenszwalb,
    region_graph,
    region_labels,
    region_means,
    region_sums,
    slic,
)
from hybridseg.features.pixels import perceptual_planes
from hybridseg.inference import (
    DenseModel,
    DynamicCut,
    chan_vese,
    graph_cut,
    grid_mean_field,
    mean_field,
    morphological_chan_vese,
    morphological_geodesic_active_contour,
    random_walker,
)
from hybridseg.kernels.dense import dense_filter
from hybridseg.kernels.superpixels.color import color_spread, write_quads
from hybridseg.kernels.superpixels.runs import find_runs, join_runs
from hybridseg.kernels.vectors import simd as simd
from hybridseg.kernels.vectors.way import way
from hybridseg.pairwise import FeatureKernel, dense_region_weights, grid_weights, region_weights

#: Every width that is short, and those around multiples of what vectors hold.
WIDTHS = sorted(
    {*range(1, 141)}
    | {8 * k + d for k in range(17, 88) for d in (-1, 0, 1) if k % 4 == 0 or d == k % 3 - 1}
    | {64 * k + d for k in range(2, 11) for d in range(-6, 3)}
)
HEIGHTS = (1, 2, 3, 4, 5, 33)
LABELS = (*range(1, 10), *range(15, 18), *range(31, 34))
CHANNELS = range(1, 9)
#: Pixels of a case at most; a case of more is made lower.
_MOST = 24_000
#: Of a failing family, so many cases are named.
_NAMED = 5


@dataclass(frozen=True)
class Shape:
    """What one case is made of."""

    width: int
    height: int
    depth: int  # 0 for a picture
    n_labels: int
    n_channels: int
    masked: bool
    n_threads: int
    seed: int

    @property
    def shape(self) -> tuple[int, ...]:
        most = max(1, _MOST // (self.width * max(1, self.depth)))
        plane = (min(self.height, most), self.width)
        return (self.depth, *plane) if self.depth else plane

    def random(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)

    def image(self, *, n_channels: int | None = None) -> Any:
        channels = self.n_channels if n_channels is None else n_channels
        smooth = np.cumsum(self.random().normal(0, 9, (*self.shape, channels)), axis=-2)
        return np.abs(smooth % 510 - 255).astype(np.uint8)

    def valid(self) -> Any:
        """A mask, of which one pixel at least is inside; or none."""
        if not self.masked:
            return None
        inside = self.random().random(self.shape) < 0.8
        inside.flat[inside.size // 2] = True
        return inside

    def costs(self, n_labels: int | None = None) -> Any:
        n = self.n_labels if n_labels is None else n_labels
        return self.random().integers(0, 400, (*self.shape, n)) / 100

    def seeds(self, n_labels: int) -> Any:
        """Some pixels of each label; -1 elsewhere."""
        found = np.full(self.shape, -1)
        places = self.random().permutation(found.size)[: max(1, found.size // 6)]
        found.flat[places] = np.arange(len(places)) % n_labels
        return found


Run = Callable[[Shape], Any]


@dataclass(frozen=True)
class Family:
    """One way to reach kernels. ``atol`` is None where vectors and plain loops agree exactly.

    ``share``: of how many widths one is taken; kernels without vectors are checked alone.
    """

    run: Run
    atol: float | None = None
    rtol: float = 1e-4
    volumes: bool = True
    share: int = 1
    shapes: Callable[[Family, str], Iterator[Shape]] | None = None


FAMILIES: dict[str, Family] = {}


def family(**options: Any) -> Callable[[Run], Run]:
    def keep(run: Run) -> Run:
        FAMILIES[run.__name__] = Family(run, **options)
        return run

    return keep


def shapes_of(kind: Family, name: str) -> Iterator[Shape]:
    """Every width once; each other number as often as any of its kind, in an order of its own."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    widths = WIDTHS[zlib.crc32(name.encode()) % kind.share :: kind.share]
    depths = (0, 0, 1, 2, 3) if kind.volumes else (0,)
    kinds = (HEIGHTS, depths, LABELS, CHANNELS, (False, True), (1, 2))
    columns = [random.permutation(np.resize(np.array(values), len(widths))) for values in kinds]
    for seed, (width, *rest) in enumerate(zip(widths, *columns, strict=True)):
        height, depth, n_labels, n_channels, masked, n_threads = map(int, rest)
        yield Shape(width, height, depth, n_labels, n_channels, bool(masked), n_threads, seed)


def short_rows(kind: Family, name: str) -> Iterator[Shape]:
    """Every number of labels with every number of points up to two chunks and one more."""
    for n_labels in LABELS:
        for width in range(1, 66):
            yield Shape(width, 1, 0, n_labels, 1, False, 1 + width % 2, width)


# -- superpixels, runs and colors ----------------------------------------------------------------


@family()
def slic_superpixels(of: Shape) -> Any:
    """Cells of several widths, so that the last one of a row ends in every way."""
    image, valid, axes = of.image(), of.valid(), len(of.shape)
    wanted = (3, max(1, image[..., 0].size // 40), max(1, image[..., 0].size // 130))
    options = {"spatial_ndim": axes, "valid": valid, "n_iter": 3}
    return [slic(image, n, **options) for n in wanted]


@family(share=3)
def etps_superpixels(of: Shape) -> Any:
    image = of.image()
    n = max(1, image[..., 0].size // 60)
    return etps(image, n, spatial_ndim=len(of.shape), valid=of.valid(), n_iter=2)


@family(share=3)
def felzenszwalb_regions(of: Shape) -> Any:
    return felzenszwalb(of.image(), 30.0, min_size=5, spatial_ndim=len(of.shape), valid=of.valid())


@family()
def runs_and_pieces(of: Shape) -> Any:
    labels = of.random().integers(-1, 2, (max(1, of.depth), *of.shape[-2:]))
    labels = np.repeat(labels, 3, axis=2)[..., : of.width].astype(np.int32)
    vectors = way()
    starts, firsts = find_runs(labels, vectors)
    return starts, firsts, *join_runs(labels, starts, firsts, vectors)


@family(atol=1e-5, rtol=1e-6)
def color_statistics(of: Shape) -> Any:
    colors = np.moveaxis(of.image(), -1, 0).astype(np.float32)
    colors = np.ascontiguousarray(colors.reshape(len(colors), -1, *of.shape[-2:]))
    return color_spread(colors, _inside(of, colors.shape[1:]))


@family()
def color_quads(of: Shape) -> Any:
    colors = np.moveaxis(of.image(), -1, 0).astype(np.float32)
    colors = np.ascontiguousarray(colors.reshape(len(colors), -1, *of.shape[-2:]))
    depth, height, width = colors.shape[1:]
    quads = np.full((-(-len(colors) // 4), depth, height, width + of.seed % 11, 4), 9, np.int16)
    means = colors.mean(axis=(1, 2, 3))
    write_quads(colors, _inside(of, colors.shape[1:]), means, 3.7, 300.0, quads)
    n_rows = depth * height * (width + of.seed % 11)
    channels = quads.reshape(-1, n_rows, 4).swapaxes(0, 1).reshape(n_rows, -1)
    return channels[:, : len(colors)]  # others may stay as they are


def _inside(of: Shape, shape: tuple[int, ...]) -> Any:
    valid = of.valid()
    return np.ones(shape, bool) if valid is None else valid.reshape(shape)


@family(share=3)
def perceptual(of: Shape) -> Any:
    return perceptual_planes(of.image(n_channels=3).astype(np.float32))


# -- dense CRFs -----------------------------------------------------------------------------------


@family(atol=2e-4)
def dense_crf(of: Shape) -> Any:
    compatibility = "potts"
    if of.seed % 3 == 0:
        compatibility = of.random().random((of.n_labels,) * 2)
        compatibility = compatibility + compatibility.T
        np.fill_diagonal(compatibility, 0)
    return mean_field(
        *(of.costs(), of.image()), n_iter=2, valid=of.valid(), compatibility=compatibility,
        spatial_weight=1.0, bilateral_weight=1.0, tol=1e-9 if of.seed % 2 else 0.0,
    ).marginals  # fmt: skip


@family(atol=2e-4, shapes=short_rows)
def dense_crf_of_few_points(of: Shape) -> Any:
    features = of.random().random((*of.shape, 1))
    model = DenseModel.of(of.image(), kernels=[FeatureKernel(1.0, features)])
    return model.mean_field(
        of.costs(), n_iter=1, spatial_weight=1.0, bilateral_weight=1.0
    ).marginals


@family(atol=2e-4, share=2)
def dense_crf_pruned(of: Shape) -> Any:
    costs = of.costs(of.n_labels + 2) + 40 * (np.arange(of.n_labels + 2) % 3 == 2)
    features = of.random().random((*of.shape, of.n_channels))
    kernels = [FeatureKernel(0.1, features)]
    return mean_field(
        costs, of.image(), n_iter=2, prune=1e-3, kernels=kernels, valid=of.valid(),
        spatial_weight=0.1, bilateral_weight=0.1,
    ).marginals  # fmt: skip


@family(atol=2e-4, share=2)
def dense_crf_of_two_labels(of: Shape) -> Any:
    costs, image, valid = of.costs(2), of.image(), of.valid()
    return mean_field(costs, image, n_iter=2, valid=valid, bilateral_weight=1.0).marginals


@family(atol=2e-4, share=2)
def dense_crf_of_large_lattices(of: Shape) -> Any:
    """Lattices whose rows threads share; large ones alone would take too long."""
    small, dense_filter._SMALL = dense_filter._SMALL, 8
    try:
        return dense_crf(of)
    finally:
        dense_filter._SMALL = small


# -- grids and graphs -----------------------------------------------------------------------------


def _weights(of: Shape, connectivity: int) -> Any:
    return grid_weights(
        of.image(), connectivity=connectivity, spatial_ndim=len(of.shape), valid=of.valid()
    )


def _whole(weights: Any) -> Any:
    return {offset: np.rint(9 * values).astype(np.int64) for offset, values in weights.items()}


@family(atol=1e-4)
def grid_crf(of: Shape) -> Any:
    connectivity = 1 + of.seed % len(of.shape)
    options = {"n_iter": 2, "damping": 0.2 * (of.seed % 2)}
    if of.seed % 3 == 0:
        options["compatibility"] = "potts" if of.n_labels == 1 else _steps(of.n_labels)
    return grid_mean_field(of.costs(), _weights(of, connectivity), **options).marginals


def _steps(n: int) -> Any:
    return np.minimum(abs(np.subtract.outer(np.arange(n), np.arange(n))), 3) * 0.5


@family(atol=1e-4, share=2)
def graph_crf(of: Shape) -> Any:
    n = of.width
    i = np.arange(n - 1, dtype=np.int32) if n > 1 else np.zeros(0, np.int32)
    j = np.minimum(i + 1 + (i % 5 == 0), max(n - 1, 0)).astype(np.int32)
    weights = of.random().random(len(i)).astype(np.float32)
    costs = of.costs()[..., :1, :, :].reshape(-1, of.n_labels)[:n]
    options = {} if of.n_labels == 1 or of.seed % 2 else {"compatibility": _steps(of.n_labels)}
    return grid_mean_field(costs, (i, j, weights), n_iter=2, **options).marginals


@family(share=2)
def cut_of_two_labels(of: Shape) -> Any:
    connectivity = (1, len(of.shape))[of.seed % 2]
    costs = np.rint(10 * of.costs(2)).astype(np.int64)
    found = graph_cut(costs, _whole(_weights(of, connectivity)))
    return found.labels, found.energies[-1]


@family(share=2)
def cut_again(of: Shape) -> Any:
    cut = DynamicCut(_whole(_weights(of, (1, len(of.shape))[of.seed % 2])))
    costs = np.rint(10 * of.costs(2)).astype(np.int64)
    first = cut.solve(costs).labels
    return first, cut.solve(costs, of.seeds(2)).labels, cut.solve(costs[..., ::-1]).labels


@family(share=2)
def cut_by_expansion(of: Shape) -> Any:
    connectivity = (1, len(of.shape))[of.seed % 2]
    costs = np.rint(10 * of.costs()).astype(np.int64)
    found = graph_cut(costs, _whole(_weights(of, connectivity)), max_iter=2)
    return found.labels, found.energies, found.lower_bound


@family(share=3)
def cut_by_swap(of: Shape) -> Any:
    costs = np.rint(10 * of.costs(1 + of.n_labels % 5)).astype(np.int64)
    found = graph_cut(costs, _whole(_weights(of, 1)), moves="swap", max_iter=1)
    return found.labels, found.energies


@family(share=2)
def cut_of_regions(of: Shape) -> Any:
    """Messages on arcs, eight labels at a time."""
    regions, image = _regions(of), of.image()
    graph = region_graph(regions)
    i, j, weights = region_weights(graph, region_means(image, regions))
    n_regions = int(regions.max()) + 1
    costs = of.random().integers(0, 40, (n_regions, of.n_labels))
    whole = (i, j, np.rint(9 * weights).astype(np.int64))
    found = graph_cut(costs, whole, max_iter=2)
    return found.labels, found.energies, found.lower_bound


def _regions(of: Shape) -> Any:
    """Numbers of blocks of a few pixels, each of which is there."""
    places = np.indices(of.shape)
    numbers = sum((axis // 3) * 1009**k for k, axis in enumerate(places))
    return np.unique(numbers, return_inverse=True)[1].reshape(of.shape)


@family(share=3)
def region_statistics(of: Shape) -> Any:
    regions, image = _regions(of), of.image()
    graph = region_graph(regions)
    labels = of.random().integers(-1, of.n_labels, of.shape)
    n_regions = int(regions.max()) + 1
    sums = region_sums(image.astype(np.float32), regions)
    counts = region_labels(regions, labels, n_regions)
    return graph.edges, graph.lengths, sums, region_means(image, regions), *counts


@family(atol=1e-5)
def region_pairs(of: Shape) -> Any:
    regions = np.arange(np.prod(of.shape)).reshape(of.shape) % (of.width + of.seed % 3)
    regions = np.unique(regions, return_inverse=True)[1].reshape(of.shape)
    i, j, weights = dense_region_weights(regions, of.image(), bilateral_width=9.0)
    dense = np.zeros((regions.max() + 1,) * 2)
    dense[i, j] = weights
    return dense


# -- random walker and level sets -----------------------------------------------------------------


@family(atol=1e-3)
def walker(of: Shape) -> Any:
    n_labels = min(1 + of.n_labels % 4, max(1, int(np.prod(of.shape)) // 6))  # one by one
    image, seeds, valid = of.image(n_channels=1)[..., 0], of.seeds(n_labels), of.valid()
    if valid is not None:
        seeds[~valid] = -1
        seeds.flat[seeds.size // 2] = 0
    return random_walker(image, seeds, valid=valid, tol=1e-5).proba


@family()
def snakes_of_regions(of: Shape) -> Any:
    image = of.image(n_channels=1)[..., 0] / 255
    image = image.astype((np.float32, np.float64)[of.seed % 2])
    init = (of.random().random(of.shape) < 0.4).astype(np.uint8)
    options = {"init": init, "smoothing": 1 + of.seed % 2, "spatial_ndim": len(of.shape)}
    return morphological_chan_vese(image, 3, **options).labels


@family()
def snakes_of_edges(of: Shape) -> Any:
    edges = of.image(n_channels=1)[..., 0] / 255
    init = (of.random().random(of.shape) < 0.4).astype(np.uint8)
    options = {"init": init, "balloon": of.seed % 3 - 1.0, "spatial_ndim": len(of.shape)}
    return morphological_geodesic_active_contour(edges, 3, threshold=0.5, **options).labels


@family(atol=1e-3, volumes=False)
def level_set(of: Shape) -> Any:
    image = of.image(n_channels=1)[..., 0].astype(np.float64)
    dtype = (np.float32, np.float64)[of.seed % 2]
    return chan_vese(image, n_iter=3, tol=0.0, dtype=dtype).level_set


# -- running them ---------------------------------------------------------------------------------


@dataclass
class Count:
    """What came of a family's cases."""

    cases: int = 0
    outside: int = 0
    differing: int = 0
    errors: int = 0
    named: list[str] = field(default_factory=list)

    def name(self, of: Shape, what: str) -> None:
        if len(self.named) < _NAMED:
            self.named.append(f"{of}: {what}")

    @property
    def failed(self) -> int:
        return self.outside + self.differing + self.errors


def shapes_in(name: str) -> list[Shape]:
    """The cases of a family."""
    kind = FAMILIES[name]
    return list((kind.shapes or shapes_of)(kind, name))


def count_cases(name: str, shapes: list[Shape], each: Run = lambda of: None) -> Count:
    """Run some cases of a family; ``each`` is told of every one before it runs."""
    kind, count = FAMILIES[name], Count()
    threads = get_num_threads()
    for of in shapes:
        each(of)
        count.cases += 1
        try:
            set_num_threads(min(of.n_threads, threads))
            fast, plain = (_arrays(kind.run, of, ways) for ways in (True, False))
        except IndexError as error:
            count.outside += 1
            count.name(of, str(error))
        except Exception as error:  # a case that the function refuses is a fault of the sweep
            count.errors += 1
            count.name(of, f"{type(error).__name__}: {error}")
        else:
            if not all(map(_alike(kind), fast, plain)) or len(fast) != len(plain):
                count.differing += 1
                count.name(of, "vectors and plain loops differ")
        finally:
            set_num_threads(threads)
    return count


def _arrays(run: Run, of: Shape, vectors: bool) -> list[Any]:
    before, simd.ENABLED = simd.ENABLED, simd.ENABLED and vectors
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = run(of)
    finally:
        simd.ENABLED = before
    parts = found if isinstance(found, (tuple, list)) else [found]
    return [np.asarray(part) for part in parts]


def _alike(kind: Family) -> Callable[[Any, Any], bool]:
    def alike(a: Any, b: Any) -> bool:
        if kind.atol is None:
            return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        return a.shape == b.shape and np.allclose(a, b, kind.rtol, kind.atol, equal_nan=True)

    return alike


def main(names: list[str]) -> None:
    """Write a line of JSON for each family: its name and what came of it."""
    for name in names or FAMILIES:
        print(json.dumps([name, asdict(count_cases(name, shapes_in(name)))]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
