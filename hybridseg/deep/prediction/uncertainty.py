"""Uncertainty of predictions: entropy and mutual information, by Monte Carlo dropout."""

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

#: The limit of SELU at minus infinity; alpha dropout sets dropped features to it.
_SATURATED = -1.7580993408473766


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """Total and epistemic uncertainty of several predictions of one image.

    The total uncertainty is the sum of the epistemic uncertainty, which more training data would
    lower, and the aleatoric uncertainty, which comes from the image itself [1]_, [2]_.

    Attributes
    ----------
    proba : ndarray of float32, (*spatial, L)
        The mean of the predicted probabilities.
    entropy : ndarray of float32, (*spatial,)
        The total uncertainty: the entropy of ``proba``, in nats, between 0 and ln L.
    mutual_information : ndarray of float32, (*spatial,)
        The epistemic uncertainty: ``entropy`` minus the mean entropy of the single predictions, in
        nats. ``entropy - mutual_information`` is the aleatoric uncertainty.

    References
    ----------
    .. [1] A. Kendall, Y. Gal, "What uncertainties do we need in Bayesian deep learning for computer
       vision?", NeurIPS, 2017.
    .. [2] Y. Gal, "Uncertainty in deep learning", PhD thesis, University of Cambridge, 2016,
       section 3.3.1 (mutual information).

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.deep import Uncertainty
    >>> first = np.array([[0.5, 0.5], [1.0, 0.0]])  # two pixels: both networks are unsure of the
    >>> second = np.array([[0.5, 0.5], [0.0, 1.0]])  # first, and disagree about the second
    >>> result = Uncertainty.of([first, second])
    >>> result.entropy.round(3), result.mutual_information.round(3)
    (array([0.693, 0.693], dtype=float32), array([0.   , 0.693], dtype=float32))
    """

    proba: NDArray[np.float32]
    entropy: NDArray[np.float32]
    mutual_information: NDArray[np.float32]

    @classmethod
    def of(cls, predictions: Iterable[NDArray[Any]]) -> Uncertainty:
        """Compute the uncertainty from several predictions of one image.

        The predictions may come from one network with dropout or from the members of an ensemble:
        ``Uncertainty.of(model.predict_proba([image])[0] for model in models)``. They are read one
        at a time, so a generator saves memory.

        Parameters
        ----------
        predictions : iterable of ndarray, (*spatial, L)
            Probabilities, at least one array.

        Returns
        -------
        Uncertainty

        Raises
        ------
        ValueError
            ``predictions`` is empty, an array does not hold probabilities, or the shapes differ.
        """
        n_seen, total, entropies = 0, np.zeros(()), np.zeros(())
        for proba in predictions:
            wide = _checked(proba, n_seen, total.shape if n_seen else None)
            n_seen += 1
            total = total + wide
            entropies = entropies + entropy_of(wide)
        if n_seen == 0:
            raise ValueError(
                "predictions is empty; expected at least one array (*spatial, L): pass what "
                "predict_proba returns for one image."
            )
        mean = np.asarray(total / n_seen)
        entropy = entropy_of(mean)
        information = np.maximum(entropy - entropies / n_seen, 0)  # rounding can make it negative
        return cls(*(part.astype(np.float32) for part in (mean, entropy, information)))


def _checked(proba: Any, position: int, shape: tuple[int, ...] | None) -> NDArray[np.float64]:
    """A prediction as an array; refuses other shapes and values that are not probabilities."""
    found = np.asarray(proba, dtype=np.float64)
    if shape is not None and found.shape != shape:
        raise ValueError(
            f"predictions[{position}] has shape {found.shape}, but predictions[0] has {shape}; "
            f"expected equal shapes: pass predictions of one image by models with the same classes."
        )
    if found.ndim == 0 or not np.allclose(found.sum(axis=-1), 1, atol=1e-3) or found.min() < 0:
        raise ValueError(
            f"predictions[{position}] does not hold probabilities; expected values (*spatial, L) "
            f">= 0 that sum to 1 over the last axis: pass what predict_proba returns for one image."
        )
    return found


def entropy_of(proba: NDArray[np.float64]) -> NDArray[np.float64]:
    """The entropy ``-sum p log p`` of probabilities over the last axis, in nats."""
    logs = np.log(np.maximum(proba, np.finfo(np.float64).tiny))
    return np.asarray(-(proba * logs).sum(axis=-1))


class MonteCarloDropout:
    """Mixin that estimates the uncertainty of a segmenter's predictions by Monte Carlo dropout.

    A segmenter has two hooks: ``_input(scene)`` returns the inputs of its network, and
    ``_costs_by(network, *inputs)`` the costs ``(*spatial, L)`` that another network predicts.
    """

    net_: Any
    random_state: Any
    transform: Any
    _input: Any
    _costs_by: Any

    def predict_uncertainty(self, X: Any, n_samples: int = 20) -> ImageList:
        """Estimate aleatoric and epistemic uncertainty by Monte Carlo dropout [1]_.

        The network predicts each image several times with different dropout masks. The epistemic
        uncertainty, which more training data would lower, is the ``mutual_information`` of the
        result. The aleatoric uncertainty, which comes from the image itself, is ``entropy -
        mutual_information``.

        Parameters
        ----------
        X : sequence of images, paths or Scenes
        n_samples : int
            The number of predictions of each image. Time grows linearly with it.

        Returns
        -------
        ImageList of Uncertainty
            One for each image, with ``proba``, ``entropy`` and ``mutual_information``. For an
            ensemble of networks use :meth:`hybridseg.unary.Uncertainty.of`.

        Raises
        ------
        TypeError, ValueError
            ``n_samples`` is not an integer of at least 1, or the network has no dropout.

        References
        ----------
        .. [1] Y. Gal, Z. Ghahramani, "Dropout as a Bayesian approximation: representing model
           uncertainty in deep learning", ICML, 2016.
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
    """A copy of a network in evaluation mode in which dropout remains active.

    The dropout masks are drawn from ``generator``, which is on the network's device. torch's global
    generator is not used, so that other threads do not change the masks.

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
            f"network_options={{'dropout': 0.2}} if it has that option, or train several "
            f"networks and pass their probabilities to Uncertainty.of."
        )
    for parent, name, part in layers:
        setattr(parent, name, SampledDropout(part, generator).eval())
    return noisy[0]


class SampledDropout(nn.Module):
    """A dropout layer that is active in evaluation mode too, and has its own random generator.

    Parameters
    ----------
    layer : torch.nn.Dropout or another dropout layer of torch
        The layer to replace. It determines the probability, whether single features or whole
        channels are dropped, and whether mean and variance are kept (alpha dropout).
    generator : torch.Generator
    """

    def __init__(self, layer: Any, generator: torch.Generator) -> None:
        super().__init__()
        self.p = float(layer.p)
        self.of_channels = not isinstance(layer, nn.Dropout | nn.AlphaDropout)
        self.keeps_moments = isinstance(layer, nn.AlphaDropout | nn.FeatureAlphaDropout)
        self.generator = generator

    def forward(self, features: Tensor) -> Tensor:
        """Drop some of the features ``(B, C, *spatial)``."""
        shape = features.shape
        if self.of_channels:
            shape = torch.Size((*shape[:2], *(1,) * (features.ndim - 2)))
        share = 1 - self.p
        kept = features.new_empty(shape).bernoulli_(share, generator=self.generator)
        if not self.keeps_moments:
            return features * kept / max(share, 1e-12)
        # alpha dropout: G. Klambauer et al., "Self-normalizing neural networks", NeurIPS, 2017
        scale = (share * (1 + self.p * _SATURATED**2)) ** -0.5 if share else 0.0
        return scale * (features * kept + _SATURATED * (1 - kept) - _SATURATED * self.p)
