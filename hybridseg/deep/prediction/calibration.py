"""Calibration: the temperature under which probabilities are the frequencies of being right."""

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

#: At most this many pixels are drawn, which give a temperature to three digits.
_MAX_PIXELS = 200_000

#: The interval of logarithms in which the temperature is searched.
_LOG_TEMPERATURES = (-4.0, 4.0)


class Calibration:
    """The calibration of a segmenter's probabilities by a temperature."""

    classes_: NDArray[Any]
    temperature_: float
    calibration_error_: NDArray[np.float64]
    transform: Any

    def calibrate(self, X: Any, y: Any) -> Self:
        """Calibrate probabilities on images that were not trained on.

        Logits are divided by the temperature under which the labels are likeliest, which changes
        no prediction. Networks trained for long are over-confident, and what follows them in a
        pipeline then cannot overrule them. With ``class_weight`` or images of another kind, what
        is calibrated holds for images like these.

        Parameters
        ----------
        X, y : sequences
            Held-out images and label maps, as in :meth:`fit`. Of their labeled pixels, 200 000
            are drawn; label values that the network does not know are left out.

        Returns
        -------
        self
            With ``temperature_`` and ``calibration_error_``.

        Raises
        ------
        ValueError
            No pixel has a label that the network knows.

        Warns
        -----
        UserWarning
            The best temperature is out of range: the network is hardly ever wrong, or right.
        """
        scenes = self.transform(X)
        self.temperature_, self.calibration_error_ = calibrated_temperature(
            scenes, y, self.classes_, self.temperature_
        )
        return self


def calibrated_temperature(
    scenes: ImageList, y: Any, classes: NDArray[Any], temperature: float
) -> tuple[float, NDArray[np.float64]]:
    """The best temperature, and the calibration errors at 1 and at it.

    Parameters
    ----------
    scenes : ImageList of Scene
        With costs that were made at ``temperature``.
    y : sequence of label maps (or paths)
    classes : ndarray of int, (L,)
    temperature : float

    Raises
    ------
    ValueError
        No pixel has one of the classes.
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
            f"y holds no pixel of the classes {classes.tolist()} to calibrate by; expected label "
            f"maps of held-out images."
        )
    best = fit_temperature(torch.from_numpy(scores), torch.from_numpy(truths))
    if not _LOG_TEMPERATURES[0] + 0.01 < math.log(best) < _LOG_TEMPERATURES[1] - 0.01:
        never = "wrong" if best < 1 else "right"
        warn_caller(
            f"the temperature {best:.3g} is at its bound: the network is hardly ever {never} where "
            f"it is certain; calibrate on more images, with labels like those of the training.",
        )
    errors = [
        expected_calibration_error(truths, proba_from_costs(-scores / np.float32(t)))
        for t in (1.0, best)
    ]
    return best, np.array(errors)


def fit_temperature(scores: Tensor, labels: Tensor) -> float:
    """The temperature T that maximizes the labels' likelihood under ``softmax(scores / T)`` [1]_.

    Parameters
    ----------
    scores : Tensor, (n, L)
    labels : Tensor of int64, (n,)

    References
    ----------
    .. [1] C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger: On Calibration of Modern Neural Networks.
       ICML 2017, section 4.2.
    """
    exact = scores.double()

    def cross_entropy(log_temperature: float) -> float:
        return float(functional.cross_entropy(exact / math.exp(log_temperature), labels))

    found = minimize_scalar(cross_entropy, bounds=_LOG_TEMPERATURES, method="bounded")
    return math.exp(float(found.x))
