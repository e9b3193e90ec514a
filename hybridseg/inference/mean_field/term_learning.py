"""A CRF of any terms as learning sees it: on pixels or regions, with edges and dense kernels.

The gradient comes from updates of all sites at once, `hybridseg.inference.mean_field.term_gradient`
holds them. Held-out images are judged by the solver of the refiner itself. Its energy has the same
terms, times the learned factors.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from hybridseg.base import Scene
from hybridseg.features.boxes import Box
from hybridseg.inference.kept import kept_indices, with_kept
from hybridseg.inference.learned import Examples
from hybridseg.inference.mean_field.mixed import CliqueMessages
from hybridseg.inference.mean_field.parameters import Parameters, ParameterVector, what_of
from hybridseg.inference.mean_field.term_gradient import (
    CliqueCosts,
    CostMessages,
    DenseMessages,
    EdgeMessages,
    Messages,
    OwnCosts,
    TermTape,
)
from hybridseg.inference.scene_energy import has_region, part_of, seed_indices
from hybridseg.kernels.superpixels.regions import sums_and_counts
from hybridseg.learning.examples import Example
from hybridseg.learning.learner import Learner
from hybridseg.pairwise.dense import DenseKernel, FeatureKernel
from hybridseg.pairwise.edges import EdgeTerm, edges_in
from hybridseg.pairwise.energy import Energy
from hybridseg.pairwise.higher_order.cliques import CliqueTerm
from hybridseg.pairwise.terms import (
    SPELLED,
    HasCliques,
    HasEdges,
    HasMessageGradient,
    HasMessages,
    ScaledTerm,
    can,
    has_cliques,
    has_edges,
    is_dense,
    refuse_terms,
    scaled,
    term_cliques,
    term_edges,
)
from hybridseg.scene.costs import proba_from_costs
from hybridseg.validation import Colors, as_costs, as_soft_costs

Singles = NDArray[np.float32]
Doubles = NDArray[np.float64]

#: The parameters of `hybridseg.inference.mean_field.parameters` that these CRFs have.
PARTS = ("weights", "compatibility", "bias")

#: The updates for each iteration that a learner asks for: an update keeps half of the marginals,
#: and sweeps would use new marginals at once.
_UPDATES_PER_ITERATION = 2

#: The sizes of an edge and of a pixel in a lattice, in bytes.
_BYTES_OF_EDGE, _BYTES_OF_POINT = 28, 96


@dataclass(frozen=True, eq=False)
class Problem:
    """What an example gives besides costs and truth: the energy of the sites, pixels or regions.

    Attributes
    ----------
    energy : Energy or None
        With the costs as they came, and all terms at factor 1; None if there is no region.
    sizes : ndarray of float32, (sites,)
        The number of pixels of each site.
    places : ndarray of int32, (n,)
        The site of each pixel of the example; -1 outside of all regions.
    own : ndarray of float32, (n, L)
        The costs of each pixel of the example alone.
    """

    energy: Energy | None
    sizes: Singles
    places: NDArray[np.int32]
    own: Singles

    @property
    def nbytes(self) -> int:
        """The size in bytes, with that of the messages."""
        total = self.own.nbytes + self.places.nbytes
        if self.energy is not None:
            energy, n_sites = self.energy, math.prod(self.energy.shape)
            total += energy.unary.nbytes
            total += sum(group.weight.size for group in energy.edges) * _BYTES_OF_EDGE
            n_kernels = sum(is_dense(term, energy.sites) for term in energy.terms)
            total += n_kernels * n_sites * _BYTES_OF_POINT
            total += 2 * energy.cliques.nbytes
        return int(total)

    @cached_property
    def messages(self) -> list[Messages | CostMessages]:
        """The messages of each term at factor 1."""
        energy = self.energy
        assert energy is not None  # there are sites where messages are asked for
        return [messages_of(term, energy) for term in energy.terms]

    @cached_property
    def unary(self) -> Singles:
        """The costs of the sites as they came, (sites, L)."""
        assert self.energy is not None  # as above
        rows = self.energy.unary.reshape(-1, self.energy.n_labels)
        return np.asarray(as_costs(rows), np.float32)

    @cached_property
    def cheapest(self) -> NDArray[np.intp]:
        """The cheapest label of each site, (sites,)."""
        found: NDArray[np.intp] = self.unary.argmin(axis=1)
        return found

    def costs(self, values: Parameters, kept: Sequence[int]) -> Singles:
        """Return the costs of the sites, (sites, L), with weight, bias and kept labels."""
        costs = self.unary * np.float32(values.unary_weight)
        if values.bias.any():
            costs += self.sizes[:, np.newaxis] * values.bias.astype(np.float32)
        return with_kept(as_soft_costs(costs), kept, self.cheapest)

    def weighted(self, values: Parameters, kept: Sequence[int]) -> Energy:
        """Return the energy with these parameters, and with kept labels."""
        energy = self.energy
        assert energy is not None  # as above
        terms = zip(energy.terms, values.weights, strict=True)
        return Energy(
            self.costs(values, kept).reshape(energy.unary.shape),
            [scaled(term, weight) for term, weight in terms],
            image=Colors(energy.sites.colors),
            compatibility=values.compatibility,
            seeds=energy.seeds,
            valid=energy.valid,
            spacing=energy.spacing,
            regions=energy.regions,
        )

    def spread(self, rows: NDArray[Any], outside: NDArray[Any]) -> NDArray[Any]:
        """Return rows of the pixels from rows of the sites; ``outside`` serves other pixels."""
        if not len(rows):
            return outside
        found = rows[self.places]
        beyond = self.places < 0
        if beyond.any():
            found[beyond] = outside[beyond]
        return found

    def gathered(self, rows: Singles) -> Singles:
        """Return the sums (sites, L) of rows (n, L) of the pixels over each site."""
        rows = np.ascontiguousarray(rows, np.float32)
        on_pixels = self.energy is not None and self.energy.regions is None
        if on_pixels and len(rows) == len(self.sizes):  # each pixel is a site
            return rows
        sums = sums_and_counts(rows, self.places, len(self.sizes))[0]
        return np.asarray(sums, np.float32)


def messages_of(term: Any, energy: Energy) -> Messages | CostMessages:
    """Return the messages of a term at factor 1, by the first ability that learning can use."""
    sites = energy.sites
    if is_dense(term, sites):
        return DenseMessages.of(term, sites)
    if has_edges(term, sites):
        return EdgeMessages.of(term_edges([term], sites), sites.shape)
    if has_cliques(term, sites):
        own = term_cliques([term], sites)
        return CliqueCosts(CliqueMessages.of(own, math.prod(sites.shape)))
    return OwnCosts(term, sites, energy.n_labels)


@dataclass(frozen=True, eq=False)
class TermRecord:
    """The marginals of an example, which can be differentiated."""

    model: TermLearnable
    values: Parameters
    problem: Problem
    tape: TermTape | None

    @cached_property
    def marginals(self) -> Singles:
        """Those of the pixels, (n, L)."""
        none = np.zeros((0, self.model.n_labels), np.float32)
        last = none if self.tape is None else self.tape.marginals[-1]
        return np.asarray(self.problem.spread(last, proba_from_costs(self.problem.own)), np.float32)

    @property
    def nbytes(self) -> int:
        """The size in bytes."""
        return self.problem.own.nbytes + (0 if self.tape is None else self.tape.nbytes)

    def gradient(self, given: Singles) -> Doubles:
        """Return the gradient (P,) by the vector of parameters."""
        model, values, problem = self.model, self.values, self.problem
        if self.tape is None:
            return np.zeros_like(model.vector(values))
        # An objective is a mean over pixels, so its slopes are small. They are scaled up, because
        # their products with small marginals would be denormal numbers, which are slow.
        scale = float(max(1, len(given)))
        found = self.tape.gradient(problem.gathered(given * np.float32(scale)))
        parts: dict[str, Any] = {
            "unary_weight": values.unary_weight * np.vdot(found.costs, problem.unary) / scale,
            "weights": values.weights * found.weights / scale,
            "bias": (found.costs.T @ problem.sizes).astype(np.float64) / scale,
        }
        if "compatibility" in model.what:
            parts.update(values.factor_gradients(found.matrix, scale))
        return model.pack(parts)


class TermLearnable(ParameterVector):
    """A CRF of any terms as learning sees it; weights are factors of the given terms.

    Parameters
    ----------
    read : callable
        ``read(position, whole)`` returns the `Example` of an image; its ``given`` is a `Problem`.
    start : Parameters
    what : set of str
        Some of `PARTS`; weights are always learned.
    n_iter : int
        Iterations while learning.
    solve : callable
        Returns the marginals of an energy, as the refiner computes them.
    named : callable
        Returns the parameters of the refiner by name, given the weights (m,).
    kept : sequence of int, default=()
        As in `ParameterVector`.
    """

    def __init__(
        self,
        read: Callable[[int, bool], Example],
        start: Parameters,
        what: frozenset[str],
        n_iter: int,
        solve: Callable[[Energy], Singles],
        named: Callable[[Doubles], Mapping[str, Any]],
        kept: Sequence[int] = (),
    ) -> None:
        super().__init__(start, what, kept)
        self.example = read
        self.n_updates = _UPDATES_PER_ITERATION * n_iter
        self.solve, self.named = solve, named

    def record(self, point: Doubles, example: Example) -> TermRecord:
        """Compute the marginals of an example, to be differentiated."""
        values, problem = self.unpack(point), example.given
        if problem.energy is None:
            return TermRecord(self, values, problem, None)
        seeds = problem.energy.seeds
        tape = TermTape.record(
            problem.messages,
            values.weights,
            values.rewards,
            problem.costs(values, self.kept),
            self.n_updates,
            seeds=None if seeds is None else seeds.ravel(),
            keep_sums="compatibility" in self.what,
        )
        return TermRecord(self, values, problem, tape)

    def predict(self, point: Doubles, example: Example) -> NDArray[np.integer[Any]]:
        """Return the label indices (n,) that the refiner finds with these parameters."""
        values, problem = self.unpack(point), example.given
        alone = problem.own.argmin(axis=1)
        if problem.energy is None:
            return alone
        found = self.solve(problem.weighted(values, self.kept)).argmax(axis=-1)
        return problem.spread(found.ravel(), alone)

    def values(self, point: Doubles) -> dict[str, Any]:
        """Return the learned parameters by their names in the refiner."""
        values = self.settled(point)
        own = {"unary_weight": values.unary_weight, **self.named(values.weights)}
        return own | self.of_labels(values)


def term_learnable(
    refiner: Any,
    examples: Examples,
    learner: Learner,
    weights: Sequence[float],
    given: Mapping[str, float],
    solve: Callable[[Energy], Singles],
    named: Callable[[Doubles], Mapping[str, Any]],
) -> TermLearnable:
    """Return what learning needs of a refiner, for these examples.

    Parameters
    ----------
    refiner : GridCRF or CRF
    examples : Examples
    learner : Learner
    weights : sequence of float, (m,)
        The factors of the terms at which learning starts.
    given : mapping
        The parameters with which ``refiner._energy(scene, given)`` has all terms at factor 1.
    solve, named : callable
        As for `TermLearnable`.
    """
    start = Parameters.start(
        weights,
        (),
        len(examples.classes),
        unary_weight=refiner.unary_weight,
        compatibility=refiner.compatibility,
        label_bias=refiner.label_bias,
    )
    plain = copy.copy(refiner)
    plain.unary_weight, plain.label_bias, plain.kept_labels = 1.0, None, None
    read = problem_reader(examples, lambda scene: plain._energy(scene, given), refiner.on)
    n_iter = min(int(learner.n_iter), int(refiner.n_iter))
    what = what_of(learner.what, PARTS)
    kept = kept_indices(refiner.kept_labels, examples.classes)
    return TermLearnable(read, start, what, n_iter, solve, named, kept)


def refuse_to_learn(terms: Sequence[Any], name: str) -> None:
    """Raise an error if a term has no ability that gives its messages a gradient.

    Raises
    ------
    TypeError
        It names the term.
    """
    abilities = HasEdges, DenseKernel, HasCliques, HasMessageGradient
    lacking = [term for term in terms if not any(can(term, ability) for ability in abilities)]
    refuse_terms(
        lacking,
        f"{name}(learn=...)",
        f"{SPELLED[HasEdges]}, {SPELLED[DenseKernel]}, {SPELLED[HasCliques]}, or "
        f"{SPELLED[HasMessages]} and {SPELLED[HasMessageGradient]},",
        "Leave it out while learning, or give its class one of them.",
    )


def problem_reader(
    examples: Examples, energy_of: Callable[[Scene], Energy], on: str
) -> Callable[[int, bool], Example]:
    """Return the function that reads an image as an `Example` whose ``given`` is a `Problem`.

    Parameters
    ----------
    examples : Examples
    energy_of : callable
        Returns the energy of a Scene with costs as they come and all terms at factor 1.
    on : {"pixels", "regions"}
        Regions are read from whole images, because a window would cut them.
    """
    if on == "regions":
        unlimited = clone(examples.learner).set_params(max_pixels=2**62)
        whole_images = replace(examples, learner=unlimited)
        return lambda position, _: _on_regions(whole_images, energy_of, position)
    return lambda position, whole: _on_pixels(examples, energy_of, position, whole)


def _on_pixels(
    examples: Examples, energy_of: Callable[[Scene], Energy], position: int, whole: bool
) -> Example:
    scene, box, valid, example = examples.read(position, whole)
    energy = energy_of(scene)
    part = part_of(energy, box, [_in_box(term, energy, box) for term in energy.terms])
    n_sites = math.prod(part.shape)
    seen = slice(None) if valid is None else np.flatnonzero(valid)
    places = np.arange(n_sites, dtype=np.int32)[seen]
    problem = Problem(part, np.ones(n_sites, np.float32), places, example.costs)
    truth = example.truth
    if part.seeds is not None:
        truth = np.where(part.seeds.ravel()[seen] >= 0, -1, truth)
    return replace(example, truth=truth, given=problem)


def _in_box(term: Any, energy: Energy, box: Box) -> Any:
    """Return a term for a box of the image; contrasts that are "auto" are those of the image.

    A term with a method ``in_box(shape, box)``, such as :class:`LocationPrior`, says itself what it
    is there; shape is that of the image. Another term that has messages only sees the sites of the
    box.
    """
    sites = energy.sites
    if has_edges(term, sites):
        return EdgeTerm(edges_in(term_edges([term], sites), energy.shape, box))
    if has_cliques(term, sites):
        return CliqueTerm(term_cliques([term], sites).within(energy.shape, box))
    if isinstance(term, ScaledTerm):
        return scaled(_in_box(term.term, energy, box), term.factor)
    if hasattr(term, "in_box"):
        return term.in_box(sites.spatial_shape, box)
    if isinstance(term, FeatureKernel) and not callable(term.features):
        return replace(term, features=np.asarray(term.features)[box])
    return term


def _on_regions(examples: Examples, energy_of: Callable[[Scene], Energy], position: int) -> Example:
    scene, _, valid, example = examples.read(position, True)
    seeds = None
    if not has_region(scene):
        outside = np.full(len(example.costs), -1, np.int32)
        problem = Problem(None, np.zeros(0, np.float32), outside, example.costs)
        return replace(example, given=problem)
    energy = energy_of(scene)
    everything = tuple(slice(0, n) for n in energy.shape)
    energy = energy.with_terms([_in_box(term, energy, everything) for term in energy.terms])
    regions = energy.regions
    assert regions is not None  # the sites are regions
    seen = slice(None) if valid is None else valid.ravel()
    places = regions.ravel()[seen].astype(np.int32)
    sizes = np.bincount(regions[regions >= 0], minlength=energy.shape[0])
    problem = Problem(energy, sizes.astype(np.float32), places, example.costs)
    truth = example.truth
    if energy.seeds is not None:
        truth = np.where((places >= 0) & (energy.seeds[places] >= 0), -1, truth)
        seeds = seed_indices(scene, None if scene.valid is None else np.asarray(scene.valid, bool))
        assert seeds is not None  # those of regions come from them
        truth = np.where(seeds.ravel()[seen] >= 0, -1, truth)
    # What refinement is compared with are the costs of the regions: their sums over pixels.
    costs = problem.spread(problem.unary, example.costs)
    return replace(example, costs=costs, truth=truth, given=problem)
