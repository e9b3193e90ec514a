"""Temperature scaling, after which probabilities match the frequencies of correct predictions."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional

from hybridseg.base import ImageList
from hybridseg.metrics import expected_calibration_error
from hybridseg.scene.costs import proba_from_costs
from hybridseg.scene.sequences import as_sources, read_label_source
from hybridseg.validation import as_label_map, as_mask, warn_caller

#: The maximum number of sampled pixels; they determine the temperature to about three digits.
_MAX_PIXELS = 200_000

#: The bounds of the logarithm of the temperature.
_LOG_TEMPERATURES = (-4.0, 4.0)


class Calibration:
    """Mixin with the method that calibrates a segmenter's probabilities."""

    classes_: NDArray[Any]
    temperature_: float
    calibration_error_: NDArray[np.float64]
    transform: Any

    def calibrate(self, X: Any, y: Any) -> Self:
        """Calibrate the probabilities on held-out images by temperature scaling [1]_.

        The logits are divided by the temperature that maximizes the likelihood of the labels. The
        predicted labels stay the same. Networks that are trained for long are overconfident, and a
        refiner after them in a pipeline can then hardly change their labels. The calibration is
        valid for images and class frequencies like those of ``X`` and ``y``.

        Parameters
        ----------
        X, y : sequences
            Held-out images and label maps, as in :meth:`fit`. At most about 200 000 labeled pixels
            are drawn from them. Label values that are not in ``classes_`` are left out.

        Returns
        -------
        self
            The segmenter, with new ``temperature_`` and ``calibration_error_``.

        Raises
        ------
        ValueError
            No pixel has a label value of ``classes_``.

        Warns
        -----
        UserWarning
            The best temperature lies at a bound, because nearly all confident predictions are
            correct, or nearly all are wrong.

        References
        ----------
        .. [1] C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On calibration of modern neural
           networks", ICML, 2017, section 4.2.
        """
        scenes = self.transform(X)
        self.temperature_, self.calibration_error_ = calibrated_temperature(
            scenes, y, self.classes_, self.temperature_
        )
        return self


def calibrated_temperature(
    scenes: ImageList, y: Any, classes: NDArray[Any], temperature: float
) -> tuple[float, NDArray[np.float64]]:
    """The best temperature, and the calibration errors at temperature 1 and at the best one.

    Parameters
    ----------
    scenes : ImageList of Scene
        Scenes with costs ``(*spatial, L)``.
    y : sequence of label maps (or paths)
    classes : ndarray of int, (L,)
        All label values, sorted.
    temperature : float
        The temperature at which the costs were computed.

    Returns
    -------
    temperature : float
    errors : ndarray of float64, (2,)
        The expected calibration error before and after.

    Raises
    ------
    ValueError
        No pixel has a label value of ``classes``.
    """
    sources, rng = as_sources(y, len(scenes)), np.random.default_rng(0)
    share = -(-_MAX_PIXELS // len(scenes))
    costs, labels = [], []
    for position, (scene, source) in enumerate(zip(scenes, sources, strict=True)):
        found = scene.unary
        truth = as_label_map(
            read_label_source(source),
            shape=found.shape[:-1],
            ignore_label=scene.ignore_label,
            name=f"y[{position}]",
        )
        if scene.valid is not None:
            truth[~as_mask(scene.valid, truth.shape)] = -1
        counted = np.flatnonzero(np.isin(truth, classes))
        drawn = rng.choice(counted, min(share, len(counted)), replace=False)
        costs.append(found.reshape(-1, len(classes))[drawn] * np.float32(temperature))
        labels.append(np.searchsorted(classes, truth.ravel()[drawn]))
    scores, truths = -np.concatenate(costs), np.concatenate(labels)
    if len(truths) == 0:
        raise ValueError(
            f"y has no pixel of the classes {classes.tolist()}; expected label maps of the "
            f"held-out images: pass maps with these label values."
        )
    best = fit_temperature(torch.from_numpy(scores), torch.from_numpy(truths))
    if not _LOG_TEMPERATURES[0] + 0.01 < math.log(best) < _LOG_TEMPERATURES[1] - 0.01:
        never = "wrong" if best < 1 else "right"
        warn_caller(
            f"the temperature {best:.3g} is at its bound: the network's confident predictions are "
            f"almost never {never}. Calibrate on more images, whose labels have the same meaning "
            f"as in training.",
        )
    errors = [
        expected_calibration_error(truths, proba_from_costs(-scores / np.float32(t)))
        for t in (1.0, best)
    ]
    return best, np.array(errors)


def fit_temperature(scores: Tensor, labels: Tensor) -> float:
    """The temperature T that maximizes the likelihood of labels by ``softmax(scores / T)`` [1]_.

    Parameters
    ----------
    scores : Tensor, (n, L)
    labels : Tensor of int64, (n,)
        Class indices.

    References
    ----------
    .. [1] C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On calibration of modern neural networks",
       ICML, 2017, section 4.2.
    """
    exact = scores.double()

    def cross_entropy(log_temperature: float) -> float:
        return float(functional.cross_entropy(exact / math.exp(log_temperature), labels))

    found = minimize_scalar(cross_entropy, bounds=_LOG_TEMPERATURES, method="bounded")
    return math.exp(float(found.x))
