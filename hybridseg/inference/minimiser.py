"""Refiners that minimise an energy, and tell which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sklearn.utils.validation import check_is_fitted

from hybridseg.base import Scene
from hybridseg.pairwise.energy import Energy


class Minimiser:
    """A refiner that minimises an energy of each Scene.

    It derives from this before :class:`hybridseg.base.Refiner`, and writes two hooks:
    ``_chosen(scene)`` gives its parameters with "auto" resolved, ``_energy(scene, parameters)``
    the energy at these.
    """

    def energy(self, scene: Any) -> Energy:
        """The energy that is minimised for a Scene, with "auto" resolved.

        Parameters
        ----------
        scene : Scene with costs, or an image with ``estimator``

        Returns
        -------
        Energy
            Its ``energy(indices)`` judges any labelling: indices into ``classes_`` at each pixel,
            or at each region with ``on="regions"``.
        """
        check_is_fitted(self)
        self._validate_params()  # type: ignore[attr-defined]
        (known,) = self._incoming([scene])  # type: ignore[attr-defined]
        return self._energy(known, self._chosen(known))

    def _chosen(self, scene: Scene) -> Mapping[str, float]:
        return {}

    def _energy(self, scene: Scene, parameters: Mapping[str, float]) -> Energy:
        raise TypeError(f"{type(self).__name__} lacks the hook _energy(scene, parameters).")
