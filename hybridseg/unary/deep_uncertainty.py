"""How sure a network is: what its probabilities say, and how they vary under dropout."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

_DROPOUT = (
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
    *(nn.AlphaDropout, nn.FeatureAlphaDropout),
)


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """How sure several predictions of one image are, and how far they agree.

    Attributes
    ----------
    proba : ndarray of float32, (*spatial, L)
        The mean of the predictions' probabilities.
    entropy : ndarray of float32, (*spatial,)
        Of ``proba``, in nats: all uncertainty, up to ln L.
    mutual_information : ndarray of float32, (*spatial,)
        ``entropy`` less the mean entropy of the single predictions, in nats [1]_: the part that
        comes from not knowing the right network, and that more training data would remove.

    References
    ----------
    .. [1] A. Kendall, Y. Gal: What Uncertainties Do We Need in Bayesian Deep Learning for Computer
       Vision? NeurIPS 2017.
    """

    proba: NDArray[np.float32]
    entropy: NDArray[np.float32]
    mutual_information: NDArray[np.float32]

    @classmethod
    def of(cls, predictions: Iterable[NDArray[Any]]) -> Uncertainty:
        """Summarise probabilities ``(*spatial, L)``, reading one prediction at a time.

        They may be those of one network under dropout, or of an ensemble's members:
        ``Uncertainty.of(model.predict_proba([image])[0] for model in models)``.

        Raises
        ------
        ValueError
            There is no prediction; or they are no probabilities, or of different shapes.
        """
        n_seen, total, entropies = 0, np.zeros(()), np.zeros(())
        for proba in predictions:
            wide = _checked(proba, n_seen, total.shape if n_seen else None)
            n_seen += 1
            total = total + wide
            entropies = entropies + entropy_of(wide)
        if n_seen == 0:
            raise ValueError("predictions is empty; expected at least one array (*spatial, L).")
        mean = np.asarray(total / n_seen)
        entropy = entropy_of(mean)
        information = np.maximum(entropy - entropies / n_seen, 0)  # negative by rounding alone
        return cls(*(part.astype(np.float32) for part in (mean, entropy, information)))


def _checked(proba: Any, position: int, shape: tuple[int, ...] | None) -> NDArray[np.float64]:
    found = np.asarray(proba, dtype=np.float64)
    if shape is not None and found.shape != shape:
        raise ValueError(
            f"predictions[{position}] has shape {found.shape}, but those before have {shape}; "
            f"expected predictions of one image, by models with the same classes."
        )
    if found.ndim == 0 or not np.allclose(found.sum(axis=-1), 1, atol=1e-3) or found.min() < 0:
        raise ValueError(
            f"predictions[{position}] holds no probabilities (*spatial, L), which are at least 0 "
            f"and sum to 1 over the last axis; pass what predict_proba gives."
        )
    return found


def entropy_of(proba: NDArray[np.float64]) -> NDArray[np.float64]:
    """``-sum p log p`` over the last axis, in nats."""
    logs = np.log(np.maximum(proba, np.finfo(np.float64).tiny))
    return np.asarray(-(proba * logs).sum(axis=-1))


def with_dropout(module: nn.Module) -> nn.Module:
    """A copy of a network in which dropout goes on, and all else is as in evaluation.

    Raises
    ------
    ValueError
        The network has no dropout.
    """
    noisy = copy.deepcopy(module).eval()
    layers = [part for part in noisy.modules() if isinstance(part, _DROPOUT) and part.p > 0]
    if not layers:
        raise ValueError(
            f"{type(module).__name__} has no dropout to sample from; train it with "
            f"network_options={{'dropout': 0.2}} where it has that option, or train several "
            f"networks and pass their probabilities to Uncertainty.of."
        )
    for layer in layers:
        layer.train()
    return noisy
