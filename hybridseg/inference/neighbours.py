"""Refiners whose neighbouring pixels, or regions, pay one weight: GridCRF and GraphCut."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.base import Scene
from hybridseg.inference.minimiser import Minimiser
from hybridseg.inference.restraint import Box, Restrained, cut_out, strongest
from hybridseg.inference.scene_parts import has_region, part_of, restraint_of, scene_energy
from hybridseg.pairwise.edges import EdgeTerm
from hybridseg.pairwise.energy import Energy
from hybridseg.pairwise.grid import GridTerm
from hybridseg.pairwise.regions import RegionTerm, kernel_edges


class NeighbourRefiner(Minimiser, Restrained):
    """What GridCRF and GraphCut share: their energy, and the search for its weight.

    It derives from this before :class:`hybridseg.base.Refiner`. The hook ``_solve(energy)`` gives
    what the solver found, ``_labels(found)`` the labels (*shape,) by which the search judges it.
    """

    weight: str | float
    contrast: str | float | None
    connectivity: int
    on: str
    kernels: Any = ()
    compatibility: str | ArrayLike = "potts"
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
        )

    def _solved(self, scene: Scene) -> tuple[NDArray[np.int64] | None, Any]:
        """The regions that were solved on, if any, and what was found at the chosen weight."""
        if self.on == "regions" and not has_region(scene):
            return None, None
        if not isinstance(self.weight, str):
            energy = self._energy(scene, {"weight": self.weight})
            return energy.regions, self._solve(energy)
        energy = self._energy(scene, {"weight": 1.0})
        return energy.regions, self._searched(energy)[1]

    def _searched(self, energy: Energy) -> tuple[float, Any]:
        """The greatest weight that the costs allow, and what is found with it."""
        near, *kernels = energy.terms
        sites, by_region = energy.sites, energy.regions is not None
        weights: Any = near.edges(sites)
        far = []
        if kernels:
            assert energy.regions is not None  # refused before
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
