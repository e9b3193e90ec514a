"""The base class of GridCRF and GraphCut: refiners with one weight for all neighbors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.base import Scene
from hybridseg.features.boxes import Box
from hybridseg.inference.minimizer import Minimizer
from hybridseg.inference.restraint import Restrained, cut_out, strongest
from hybridseg.inference.scene_energy import has_region, part_of, restraint_of, scene_energy
from hybridseg.pairwise.edges import EdgeTerm
from hybridseg.pairwise.energy import Energy
from hybridseg.pairwise.grid import GridTerm
from hybridseg.pairwise.regions import RegionTerm, kernel_edges


class NeighborRefiner(Minimizer, Restrained):
    """Base class with the energy of GridCRF and GraphCut, and the search for its weight.

    A class names it before :class:`hybridseg.base.Refiner` among its bases. The hook
    ``_solve(energy)`` returns the result of the solver, ``_labels(found)`` the labels (*shape,) of
    that result, which the search for the weight checks.
    """

    weight: str | float
    contrast: str | float | None
    connectivity: int
    on: str
    kernels: Any = ()
    compatibility: str | ArrayLike = "potts"
    unary_weight: float = 1.0
    label_bias: ArrayLike | None = None
    kept_labels: ArrayLike | None = None
    _seeded = False

    def _solve(self, energy: Energy) -> NDArray[Any]:
        raise TypeError(f"{type(self).__name__} lacks the hook _solve(energy).")

    def _labels(self, found: NDArray[Any]) -> NDArray[Any]:
        return found

    def _chosen(self, scene: Scene) -> dict[str, float]:
        if not isinstance(self.weight, str):
            return {"weight": self.weight}
        if self.on == "regions" and not has_region(scene):
            return {"weight": 0.0}
        return {"weight": self._searched(self._energy(scene, {"weight": 1.0}))[0]}

    def _energy(self, scene: Scene, parameters: Mapping[str, float]) -> Energy:
        weight, by_region = parameters["weight"], self.on == "regions"
        near: Any = (
            RegionTerm(weight, self.contrast)
            if by_region
            else GridTerm(weight, self.contrast, self.connectivity)
        )
        return scene_energy(
            scene,
            [near, *self.kernels],
            on=self.on,
            compatibility=self.compatibility,
            seeded=self._seeded,
            unary_weight=self.unary_weight,
            label_bias=self.label_bias,
            kept_labels=self.kept_labels,
        )

    def _solved(self, scene: Scene) -> tuple[NDArray[np.int64] | None, Any]:
        """Return the region map (None for pixels) and the solver's result at the chosen weight."""
        if self.on == "regions" and not has_region(scene):
            return None, None
        if not isinstance(self.weight, str):
            energy = self._energy(scene, {"weight": self.weight})
            return energy.regions, self._solve(energy)
        energy = self._energy(scene, {"weight": 1.0})
        return energy.regions, self._searched(energy)[1]

    def _searched(self, energy: Energy) -> tuple[float, Any]:
        """Return the largest weight that the costs allow, and the solver's result with it."""
        near, *kernels = energy.terms
        sites, by_region = energy.sites, energy.regions is not None
        weights: Any = near.edges(sites)
        far = []
        if kernels:
            assert energy.regions is not None  # _energy refuses kernels without regions
            edges = kernel_edges(kernels, energy.regions, sites.colors, sites.spacing)
            far = [EdgeTerm(edges)]

        def solve(box: Box, strength: float) -> tuple[NDArray[Any], Any]:
            if by_region:
                i, j, w = weights
                scaled: Any = (i, j, strength * w)
            else:
                scaled = cut_out(weights, box, strength)
            found = self._solve(part_of(energy, box, [EdgeTerm(scaled), *far]))
            return self._labels(found), found

        return strongest(restraint_of(energy), solve, whole=by_region)
