"""The parameters of a graph cut as a vector, and the labelings that learning asks for.

The energy is linear in the vector theta: the factor a of the costs, the weight w of the edges, and,
if it is learned, the bias b of each label.

    E(y) = a sum_i c_i(y_i) + w sum over edges of g_ij [y_i != y_j] + sum_i b(y_i)

Labels depend on the ratios w / a and b / a only. Pixels without a known label are left out while
learning, with their edges: the true labeling must have an energy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridseg.base import Scene
from hybridseg.features.boxes import Box
from hybridseg.inference.restraint import cut_out
from hybridseg.inference.scene_energy import has_region, scene_energy, seed_indices
from hybridseg.learning.examples import Example, MarginModel
from hybridseg.learning.max_margin import Oracle
from hybridseg.pairwise.edges import EdgeGroup, EdgeTerm, EdgeWeights, edge_groups
from hybridseg.pairwise.energy import Energy
from hybridseg.validation import as_mask

Singles = NDArray[np.float32]
Doubles = NDArray[np.float64]
Longs = NDArray[np.int64]
Mask = NDArray[np.bool_]

#: What ``Learner(what=...)`` may name.
PARTS = ("weights", "bias")

#: The smallest factor of the costs while learning: without costs, the ratios have no meaning.
_MIN_FACTOR = 0.01


@dataclass(frozen=True, eq=False)
class CutProblem:
    """The part of a graph cut that does not depend on what is learned: sites and edges.

    The sites are the pixels of a window, or the regions of an image.

    Attributes
    ----------
    costs : ndarray of float32, (*shape, L)
        With the factor and the bias that are given and not learned.
    edges : sequence of arrays, {offset: array} or (i, j, w)
        The edges at weight 1.
    seeds : ndarray of int64, (*shape,), or None
    inside : ndarray of bool, (*spatial,), or None
        The pixels of the example; None if these are all pixels of the window.
    regions : ndarray of int64, (*spatial,), or None
        The region of each pixel, negative outside of all regions; None if pixels are the sites.
    pixel_seeds : ndarray of int64, (n,), or None
        The seeds of the example's pixels.
    """

    costs: Singles
    edges: Any
    seeds: Longs | None
    inside: Mask | None
    regions: Longs | None
    pixel_seeds: Longs | None

    @property
    def nbytes(self) -> int:
        """The size in bytes."""
        arrays = [self.costs, self.seeds, self.inside, self.regions]
        arrays += self.edges.values() if isinstance(self.edges, dict) else self.edges
        return int(sum(array.nbytes for array in arrays if array is not None))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a labeling."""
        return self.costs.shape[:-1]

    def region_rows(self) -> Longs:
        """Return the region (n,) of each pixel of the example."""
        assert self.regions is not None
        return self.regions.ravel() if self.inside is None else self.regions[self.inside]

    def sizes(self) -> Singles:
        """Return the number of pixels of each site, of the shape (*shape, 1)."""
        if self.regions is None:
            return np.ones((*self.shape, 1), np.float32)
        numbers = self.regions[self.regions >= 0]
        return np.bincount(numbers, minlength=len(self.costs))[:, np.newaxis].astype(np.float32)

    def scattered(self, rows: NDArray[Any], outside: Any) -> NDArray[Any]:
        """Return values (n,) of the example's pixels as an array of the window's shape."""
        spatial = self.shape if self.regions is None else self.regions.shape
        if self.inside is None:
            return rows.reshape(spatial)
        grid = np.full(spatial, outside, rows.dtype)
        grid[self.inside] = rows
        return grid

    def counts(self, truth: Longs) -> Singles:
        """Return how often each label is true in each site (*shape, L), given that of pixels."""
        n_labels = self.costs.shape[-1]
        labels = self.scattered(truth, -1)
        if self.regions is None:
            return (labels[..., np.newaxis] == np.arange(n_labels)).astype(np.float32)
        both = (labels >= 0) & (self.regions >= 0)
        places = self.regions[both] * n_labels + labels[both]
        found = np.bincount(places, minlength=self.costs.size)
        return found.reshape(self.costs.shape).astype(np.float32)

    def energy(self, costs: Singles, weight: float) -> Energy:
        """Return the energy with these costs (*shape, L) and this weight of the edges."""
        valid = self.inside if self.regions is None else None
        return Energy(costs, [EdgeTerm(_scaled(self.edges, weight))], seeds=self.seeds, valid=valid)


@dataclass(frozen=True, eq=False)
class Marked:
    """A problem whose true labels are known at some sites; others are left out.

    Attributes
    ----------
    problem : CutProblem
        Its costs and edges are 0 where the truth is not known.
    sizes : ndarray of float32, (*shape, 1)
        The number of pixels of each known site; 0 elsewhere.
    loss : ndarray of float32, (*shape, L)
        The loss of each label, 0 for the best one.
    truth : ndarray of int64, (*shape,)
        The label without loss.
    n_known : int
        The number of pixels with a known label.
    groups : list of EdgeGroup
        The edges.
    """

    problem: CutProblem
    sizes: Singles
    loss: Singles
    truth: Longs
    n_known: int
    groups: list[EdgeGroup]

    @classmethod
    def of(cls, problem: CutProblem, truth: Longs, class_weight: Doubles) -> Marked:
        """Return the problem with the true labels (n,) of its pixels, -1 where unknown.

        A pixel loses the weight of its true class if it gets another label. A region loses the
        sum over its pixels; its true label is the one with the smallest loss. Seeds cannot be
        wrong, so they have no loss.
        """
        counts = problem.counts(truth)
        gains = counts * class_weight.astype(np.float32)
        most = gains.max(axis=-1, keepdims=True)
        loss = most - gains
        labels = np.where(most[..., 0] > 0, gains.argmax(axis=-1), counts.argmax(axis=-1))
        known: Mask = counts.max(axis=-1) > 0
        if problem.seeds is not None:
            seeded = problem.seeds >= 0
            labels = np.where(seeded, problem.seeds, labels)
            loss[seeded] = 0
            known = known | seeded
        edges = _kept(problem.edges, known)
        return cls(
            replace(problem, costs=problem.costs * known[..., np.newaxis], edges=edges),
            problem.sizes() * known[..., np.newaxis],
            loss,
            labels,
            int(counts.sum()),
            edge_groups(edges, problem.shape),
        )

    def features(self, labels: NDArray[np.integer[Any]]) -> Doubles:
        """Return the sums (2 + L,) that theta multiplies: costs, cut edges, pixels per label."""
        costs, n_labels = self.problem.costs, self.problem.costs.shape[-1]
        own = np.take_along_axis(costs, labels[..., np.newaxis], axis=-1)
        cut = [
            group.weight[labels[group.p] != labels[group.q]].sum(dtype=np.float64)
            for group in self.groups
        ]
        sizes = np.bincount(labels.ravel(), self.sizes.ravel(), minlength=n_labels)
        return np.concatenate([[own.sum(dtype=np.float64), sum(cut)], sizes])

    def plane(self, labels: NDArray[np.integer[Any]]) -> Doubles:
        """Return the plane (3 + L,) of a labeling: its loss, and its features below the truth."""
        lost = np.take_along_axis(self.loss, labels[..., np.newaxis], axis=-1)
        apart = self.features(self.truth) - self.features(labels)
        return np.concatenate([[lost.sum(dtype=np.float64)], apart]) / self.n_known

    def augmented(self, factor: float, weight: float, bias: Doubles) -> Energy:
        """Return the energy minus the loss: its minimum is the labeling of the largest plane."""
        costs = self.problem.costs * np.float32(factor) + self.sizes * bias.astype(np.float32)
        whole = replace(self.problem, inside=None)
        return whole.energy(costs - self.loss, weight)


class CutModel(MarginModel):
    """A graph cut as learning sees it; theta is (a, w) or (a, w, b_1, ..., b_L).

    Parameters
    ----------
    read : callable
        ``read(position, whole)`` returns the `Example` of an image; its ``given`` is a
        `CutProblem`.
    solve : callable
        ``solve(energy)`` returns labels (*shape,) of low energy.
    unary_weight : float
        The factor that learned values refer to.
    weight : float
        The weight at the start.
    bias : ndarray of float, (L,), or None
        The bias at the start; None if it is not learned.
    """

    def __init__(
        self,
        read: Callable[[int, bool], Example],
        solve: Callable[[Energy], NDArray[np.int32]],
        unary_weight: float,
        weight: float,
        bias: Doubles | None,
    ) -> None:
        self.example = read
        self._solve = solve
        self._unary_weight = unary_weight
        self._with_bias = bias is not None
        self.center = np.array([1.0, weight, *([] if bias is None else bias)])
        self.lower = np.array([_MIN_FACTOR, 0.0, *np.full(len(self.center) - 2, -np.inf)])

    def oracle(self, example: Example, truth: Longs, class_weight: Doubles) -> Oracle:
        """Return what finds the labeling of an image with the largest loss minus energy."""
        size = 1 + len(self.center)
        marked = Marked.of(example.given, truth, class_weight)
        if marked.n_known == 0:
            return lambda _: np.zeros(size)

        def largest(point: Doubles) -> Doubles:
            bias = point[2:] if self._with_bias else np.zeros(marked.loss.shape[-1])
            labels = self._solve(marked.augmented(point[0], point[1], bias))
            return marked.plane(labels)[:size]

        return largest

    def predict(self, point: Doubles, example: Example) -> NDArray[np.integer[Any]]:
        """Return the label indices (n,) of an example's pixels."""
        problem, values = example.given, self.values(point)
        costs = problem.costs
        if self._with_bias:
            costs = costs + problem.sizes() * values["label_bias"].astype(np.float32)
        cheapest = example.costs.argmin(axis=1)
        if not costs.size:
            return cheapest
        labels = self._solve(problem.energy(costs, values["weight"]))
        if problem.regions is None:
            return labels.ravel() if problem.inside is None else labels[problem.inside]
        regions, seeds = problem.region_rows(), problem.pixel_seeds
        found = np.where(regions >= 0, labels[regions], cheapest)
        return found if seeds is None else np.where(seeds >= 0, seeds, found)

    def weakened(self, point: Doubles, strength: float) -> Doubles:
        """Return the point with weight and bias times the strength; 0 changes no cost."""
        return np.concatenate([point[:1], strength * point[1:] + 0.0])  # no negative zeros

    def values(self, point: Doubles) -> dict[str, Any]:
        """Return the learned parameters by their names in `hybridseg.GraphCut`."""
        named: dict[str, Any] = {
            "unary_weight": self._unary_weight,
            "weight": float(point[1] / point[0]),
        }
        if self._with_bias:
            named["label_bias"] = point[2:] / point[0]
        return named


def what_of(what: str | Sequence[str]) -> frozenset[str]:
    """Return the names of the parameters that ``Learner(what=...)`` means.

    Raises
    ------
    ValueError
        A name is unknown, or a graph cut has no such parameter.
    """
    if isinstance(what, str):  # "weights" and "all" are the same: there are no widths
        return frozenset({"weights"})
    if not what or any(name not in PARTS for name in what):
        raise ValueError(
            f"learn={tuple(what)!r}; expected 'weights', 'all', or some of {list(PARTS)}, which a "
            f"graph cut can learn."
        )
    return frozenset({*what, "weights"})


def cut_example(
    example: Example,
    scene: Scene,
    near: Any,
    on: str,
    box: Box,
    inside: Mask | None,
    *,
    unary_weight: float,
    label_bias: Any,
) -> Example:
    """Return the example with its `CutProblem`: that of a window, or of all regions of an image.

    Its costs become those that labels follow without edges: weighted, sums over regions, and lowest
    at the labels of seeds. ``near`` is the term of the neighbors at weight 1. A window has the
    contrast of its image.
    """
    valid = None if scene.valid is None else as_mask(scene.valid, scene.shape)
    seeds = seed_indices(scene, valid)
    if seeds is not None:
        seeds = seeds[box].ravel() if inside is None else seeds[box][inside]
    if on == "regions" and not has_region(scene):
        blank = np.zeros((0, example.costs.shape[1]), np.float32)
        none = np.zeros(0, np.int64)
        edges: Any = (none, none, none.astype(np.float32))
        nowhere = np.full(scene.shape, -1)
        problem = CutProblem(blank, edges, None, inside, nowhere, seeds)
        return replace(example, costs=_pinned(example.costs, seeds), given=problem)
    energy = scene_energy(
        scene, [near], on=on, seeded=True, unary_weight=unary_weight, label_bias=label_bias
    )
    edges = near.edges(energy.sites)
    if on == "regions":
        problem = CutProblem(energy.unary, edges, energy.seeds, inside, energy.regions, seeds)
        regions = problem.region_rows()
        own = _pinned(energy.unary, energy.seeds)
        alone = np.where(regions[:, np.newaxis] >= 0, own[regions], example.costs)
    else:
        unary = np.ascontiguousarray(energy.unary[box])
        within = None if energy.seeds is None else energy.seeds[box]
        problem = CutProblem(unary, cut_out(edges, box, 1.0), within, inside, None, seeds)
        alone = unary.reshape(-1, unary.shape[-1]) if inside is None else unary[inside]
    return replace(example, costs=_pinned(alone, seeds), given=problem)


def _pinned(costs: Singles, seeds: Longs | None) -> Singles:
    """Return costs (n, L) of sites whose cheapest labels are the seeds (n,), where there are."""
    if seeds is None:
        return costs
    pinned = 1 - np.eye(costs.shape[1], dtype=np.float32)[seeds]
    return np.where(seeds[:, np.newaxis] >= 0, pinned, costs)


def _scaled(edges: Any, weight: float) -> EdgeWeights:
    if isinstance(edges, dict):
        return {offset: weight * array for offset, array in edges.items()}
    i, j, w = edges
    return i, j, weight * w


def _kept(edges: Any, known: Mask) -> Any:
    """Return edges whose weight is 0 unless both ends are known."""
    if isinstance(edges, dict):
        groups = edge_groups(edges, known.shape)
        return {
            offset: group.weight * (known[group.p] & known[group.q])
            for offset, group in zip(edges, groups, strict=True)
        }
    i, j, w = edges
    return i, j, w * (known[i] & known[j])
