"""Uncertainty of predictions: their entropy, and their disagreement under dropout."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hybridseg.arguments import random_generator
from hybridseg.base import ImageList
from hybridseg.deep.prediction.device import device_of
from hybridseg.scene.costs import proba_from_costs
from hybridseg.validation import check_number

_DROPOUT = (
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
    *(nn.AlphaDropout, nn.FeatureAlphaDropout),
)

#: The limit of SELU far below zero, to which alpha dropout sets features.
_SATURATED = -1.7580993408473766


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """Uncertainty of several predictions of one image, and their disagreement.

    Attributes
    ----------
    proba : ndarray of float32, (*spatial, L)
        The mean of the predictions' probabilities.
    entropy : ndarray of float32, (*spatial,)
        The entropy of ``proba``, in nats: the total uncertainty, up to ln L.
    mutual_information : ndarray of float32, (*spatial,)
        ``entropy`` less the mean entropy of the single predictions, in nats [1]_: the epistemic
        uncertainty, which more training data would remove. The rest is aleatoric.

    References
    ----------
    .. [1] A. Kendall, Y. Gal: What Uncertainties Do We Need in Bayesian Deep Learning for Computer
       Vision? NeurIPS 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.deep import Uncertainty
    >>> first = np.array([[0.5, 0.5], [1.0, 0.0]])  # two pixels; both networks doubt the first,
    >>> second = np.array([[0.5, 0.5], [0.0, 1.0]])  # and they disagree about the second
    >>> result = Uncertainty.of([first, second])
    >>> result.entropy.round(3), result.mutual_information.round(3)
    (array([0.693, 0.693], dtype=float32), array([0.   , 0.693], dtype=float32))
    """

    proba: NDArray[np.float32]
    entropy: NDArray[np.float32]
    mutual_information: NDArray[np.float32]

    @classmethod
    def of(cls, predictions: Iterable[NDArray[Any]]) -> Uncertainty:
        """Summarize probabilities ``(*spatial, L)``, reading one prediction at a time.

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


class MonteCarloDropout:
    """Uncertainty of a segmenter with a trained network, from passes with other features dropped.

    A segmenter provides two hooks: ``_input(scene)``, what its network is given, and
    ``_costs_by(network, *given)``, the costs ``(*spatial, L)`` of a network that takes the place of
    the trained one.
    """

    net_: Any
    random_state: Any
    transform: Any
    _input: Any
    _costs_by: Any

    def predict_uncertainty(self, X: Any, n_samples: int = 20) -> ImageList:
        """Estimate aleatoric and epistemic uncertainty by Monte Carlo dropout [1]_.

        Epistemic uncertainty, which more training data would lower, is the ``mutual_information``
        of the result; aleatoric uncertainty, which no training data lowers, is its ``entropy``
        less that.

        Parameters
        ----------
        X : sequence of images, paths or Scenes
        n_samples : int
            Passes through the network, each with other features dropped.

        Returns
        -------
        ImageList of Uncertainty
            One per image, with ``proba``, ``entropy`` and ``mutual_information``; for ensembles
            there is :meth:`hybridseg.unary.Uncertainty.of`.

        Raises
        ------
        ValueError
            The network has no dropout.

        References
        ----------
        .. [1] Y. Gal, Z. Ghahramani: Dropout as a Bayesian Approximation. ICML 2016.
        """
        check_number(n_samples, "n_samples", minimum=1, integer=True)
        scenes = self.transform(X)
        generator = torch.Generator(device_of(self.net_.module_))
        network = with_dropout(self.net_.module_, generator)
        seed = int(random_generator(copy.deepcopy(self.random_state)).integers(2**62))
        found = ImageList()
        for scene in scenes:
            given = self._input(scene)
            generator.manual_seed(seed)
            drawn = (self._costs_by(network, *given) for _ in range(n_samples))
            found.append(Uncertainty.of(map(proba_from_costs, drawn)))
        return found


def with_dropout(module: nn.Module, generator: torch.Generator) -> nn.Module:
    """A copy of a network in evaluation mode, in which dropout still acts.

    The dropped features are drawn from ``generator``, which is on the network's device. torch's
    global generator is left alone, so that other threads do not change the draw.

    Raises
    ------
    ValueError
        The network has no dropout.
    """
    noisy = nn.Sequential(copy.deepcopy(module)).eval()
    layers = [
        (parent, name, part)
        for parent in noisy.modules()
        for name, part in parent.named_children()
        if isinstance(part, _DROPOUT) and part.p > 0
    ]
    if not layers:
        raise ValueError(
            f"{type(module).__name__} has no dropout to sample from; train it with "
            f"network_options={{'dropout': 0.2}} where it has that option, or train several "
            f"networks and pass their probabilities to Uncertainty.of."
        )
    for parent, name, part in layers:
        setattr(parent, name, SampledDropout(part, generator).eval())
    return noisy[0]


class SampledDropout(nn.Module):
    """A dropout layer that acts in evaluation mode as well, with a generator of its own.

    Parameters
    ----------
    layer : dropout of torch
        The layer that it replaces, for the probability, and for single features or channels.
    generator : torch.Generator
    """

    def __init__(self, layer: Any, generator: torch.Generator) -> None:
        super().__init__()
        self.p = float(layer.p)
        self.of_channels = not isinstance(layer, nn.Dropout | nn.AlphaDropout)
        self.keeps_moments = isinstance(layer, nn.AlphaDropout | nn.FeatureAlphaDropout)
        self.generator = generator

    def forward(self, features: Tensor) -> Tensor:
        """Features ``(B, C, *spatial)``, some of them dropped."""
        shape = features.shape
        if self.of_channels:
            shape = torch.Size((*shape[:2], *(1,) * (features.ndim - 2)))
        share = 1 - self.p
        kept = features.new_empty(shape).bernoulli_(share, generator=self.generator)
        if not self.keeps_moments:
            return features * kept / max(share, 1e-12)
        # Klambauer et al.: Self-Normalizing Neural Networks, 2017, "alpha dropout"
        scale = (share * (1 + self.p * _SATURATED**2)) ** -0.5 if share else 0.0
        return scale * (features * kept + _SATURATED * (1 - kept) - _SATURATED * self.p)
