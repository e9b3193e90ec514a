"""The base class of refiners that minimize an energy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sklearn.utils.validation import check_is_fitted

from hybridseg.base import Scene
from hybridseg.pairwise.energy import Energy


class Minimizer:
    """Base class of refiners that minimize an energy of each Scene.

    A class names it before :class:`hybridseg.base.Refiner` among its bases and writes two hooks:
    ``_chosen(scene)`` returns the parameters with "auto" resolved, ``_energy(scene, parameters)``
    the energy for these parameters.
    """

    def energy(self, scene: Any) -> Energy:
        """Return the energy that is minimized for a Scene, with "auto" resolved.

        Parameters
        ----------
        scene : Scene with costs, or an image with ``estimator``

        Returns
        -------
        Energy
            Its ``energy(indices)`` evaluates any labeling, given as indices into ``classes_`` for
            each pixel, or for each region with ``on="regions"``.
        """
        check_is_fitted(self)
        self._validate_params()  # type: ignore[attr-defined]
        (known,) = self._incoming([scene])  # type: ignore[attr-defined]
        return self._energy(known, self._chosen(known))

    def _chosen(self, scene: Scene) -> Mapping[str, float]:
        return {}

    def _energy(self, scene: Scene, parameters: Mapping[str, float]) -> Energy:
        raise TypeError(f"{type(self).__name__} lacks the hook _energy(scene, parameters).")
