"""The parameters of a dense CRF as a vector, and their gradient: what learning needs of it.

The parameters are the weight a of the costs, a bias b of each label, the weights w_k and widths of
the kernels, and the label compatibility mu. Weights and widths are positive, so the vector holds
their logarithms. An entry of mu is learned as a factor of the entry given, so that costs remain
costs: ``exp((c_l + c_m) / 2 + d_lm)``, with a number c for each label and d for each pair. The
scores of an iteration are

    s_l = -(a u_l + b_l) - sum over kernels k and labels m of  w_k mu(m, l) (K_k q)_m.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridseg.inference.mean_field.dense_gradient import DenseTape, last_marginals
from hybridseg.kernels._compile import threads_for
from hybridseg.kernels.dense.dense_filter import DenseFilter, embed
from hybridseg.learning.learner import Example
from hybridseg.pairwise.compatibility import as_compatibility
from hybridseg.pairwise.dense import (
    BilateralKernel,
    DenseKernel,
    GaussianKernel,
    Spacing,
    reweighted,
    valid_features,
)

Singles = NDArray[np.float32]
Doubles = NDArray[np.float64]

#: The widths of the two own kernels, in the order of the vector.
WIDTHS = ("spatial_width", "bilateral_width", "bilateral_color")
#: The weights of the two own kernels.
WEIGHTS = ("spatial_weight", "bilateral_weight")

#: What ``Learner(what=...)`` may name.
PARTS = ("weights", "widths", "compatibility", "bias")

#: The factors of given weights and widths from which starting points are made.
_WEIGHT_FACTORS, _WIDTH_FACTORS = (0.25, 1.0, 4.0), (1.0, 2.5)

#: The largest absolute logarithm of a weight.
_MAX_LOG = 12.0

#: The largest absolute logarithm of a factor of the compatibility.
_MAX_LOG_FACTOR = 5.0

#: The weight below which a kernel is left out.
_MIN_WEIGHT = 2e-5


@dataclass(frozen=True, eq=False)
class Pixels:
    """What the kernels of a dense CRF need of an image or of a window of it.

    Attributes
    ----------
    colors : ndarray of float32, (*spatial, C)
    spacing : sequence of float, optional
    valid : ndarray of bool, (*spatial,), or None
    widths : ndarray of float, (3,), or None
        The widths for this image, if they depend on the image and are not learned.
    filters : dict
        The filter of the last widths, so that it is made once while widths do not change.
    """

    colors: Singles
    spacing: Spacing
    valid: NDArray[np.bool_] | None
    widths: Doubles | None = None
    filters: dict[tuple[float, ...], tuple[DenseFilter, list[Singles]]] = field(
        default_factory=dict
    )

    @property
    def nbytes(self) -> int:
        """The size in bytes, with a filter."""
        n_pixels = self.colors.size // self.colors.shape[-1]
        return int(self.colors.nbytes + 8 * n_pixels * (8 + self.colors.shape[-1]))

    def filter_of(
        self, kernels: Sequence[DenseKernel], key: tuple[float, ...]
    ) -> tuple[DenseFilter, list[Singles]]:
        """Return the filter of the kernels and their features; ``key`` holds their widths."""
        if key not in self.filters:
            features = [valid_features(k, self.colors, self.spacing, self.valid) for k in kernels]
            n_pixels = self.colors[..., 0].size
            if self.valid is not None:
                n_pixels = int(np.count_nonzero(self.valid))
            self.filters.clear()
            with threads_for(n_pixels):
                self.filters[key] = embed(features, n_pixels), features
        return self.filters[key]


@dataclass(frozen=True, eq=False)
class DenseParameters:
    """Values of the parameters of a dense CRF.

    Attributes
    ----------
    unary_weight : float
    weights : ndarray of float, (m,)
        Of all kernels: the spatial one, the bilateral one, and further ones.
    widths : ndarray of float, (3,)
        As `WIDTHS`.
    labels : ndarray of float, (L,)
        The logarithms c of the factors of the labels.
    pairs : ndarray of float, (L (L - 1) / 2,)
        The logarithms d of the factors of the pairs, which come on top.
    base : ndarray of float, (L, L)
        The compatibility to which the factors belong.
    bias : ndarray of float, (L,)
    """

    unary_weight: float
    weights: Doubles
    widths: Doubles
    labels: Doubles
    pairs: Doubles
    base: Doubles
    bias: Doubles

    @property
    def compatibility(self) -> Doubles:
        """The label compatibility with all factors, (L, L)."""
        logs = np.zeros_like(self.base)
        logs[np.triu_indices(len(logs), 1)] = self.pairs
        logs += logs.T + (self.labels[:, np.newaxis] + self.labels) / 2
        np.fill_diagonal(logs, 0)
        return self.base * np.exp(np.clip(logs, -_MAX_LOG_FACTOR, _MAX_LOG_FACTOR))


@dataclass(frozen=True, eq=False)
class DenseRecord:
    """The marginals of an example, which can be differentiated."""

    model: DenseLearnable
    values: DenseParameters
    tape: DenseTape
    features: list[Singles]
    costs: Singles

    @property
    def marginals(self) -> Singles:
        """Those after the last iteration, (n, L)."""
        last: Singles = self.tape.marginals[-1]
        return last

    @property
    def nbytes(self) -> int:
        """The size of the tape in bytes."""
        return int(self.tape.marginals.nbytes + sum(t.nbytes for t in self.tape.filtered))

    def gradient(self, given: Singles) -> Doubles:
        """Return the gradient (P,) by the vector of parameters."""
        model, values = self.model, self.values
        # An objective is a mean over pixels, so its slopes are small. They are scaled up, because
        # their products with small marginals would be denormal numbers, which are slow.
        scale = float(len(given))
        widths = "widths" in model.what
        found = self.tape.gradient(given * np.float32(scale), corners=widths)
        parts: dict[str, Any] = {
            "unary_weight": values.unary_weight * np.vdot(found.costs, self.costs) / scale,
            "weights": [
                (gradient * matrix).sum() / scale
                for gradient, matrix in zip(found.responses, self.tape.responses, strict=True)
            ],
            "bias": found.costs.sum(axis=0, dtype=np.float64) / scale,
        }
        of_compatibility = -sum(
            weight * gradient
            for weight, gradient in zip(values.weights, found.responses, strict=True)
        )
        both = (of_compatibility + np.transpose(of_compatibility)) / scale
        of_pairs = both * values.compatibility
        np.fill_diagonal(of_pairs, 0)
        parts["labels"] = of_pairs.sum(axis=1) / 2
        parts["pairs"] = of_pairs[model.pairs]
        if widths:
            slopes = [
                np.einsum("ij,ij->j", features, found.of_features(self.tape.dense, k, features))
                for k, features in enumerate(self.features[:2])
            ]
            n_axes = slopes[0].size
            parts["widths"] = [
                -slopes[0].sum() / scale,
                -slopes[1][:n_axes].sum() / scale,
                -slopes[1][n_axes:].sum() / scale,
            ]
        return model.pack(parts)


class DenseLearnable:
    """A dense CRF as learning sees it.

    Parameters
    ----------
    read : callable
        ``read(position, whole)`` returns the `Example` of an image; its ``given`` are `Pixels`.
    start : DenseParameters
    kernels : sequence of kernels
        Further kernels; only their weights are learned.
    what : set of str
        Some of `PARTS`; weights are always learned.
    n_iter : int
        Iterations while learning.
    final_n_iter : int
        Iterations of predictions.
    """

    def __init__(
        self,
        read: Callable[[int, bool], Example],
        start: DenseParameters,
        kernels: Sequence[DenseKernel],
        what: frozenset[str],
        n_iter: int,
        final_n_iter: int,
    ) -> None:
        self.example = read
        self.first = start
        self.kernels = tuple(kernels)
        self.what = what
        self.n_iter, self.final_n_iter = n_iter, final_n_iter
        self.n_labels = len(start.bias)
        self.pairs = np.triu_indices(self.n_labels, 1)

    def pack(self, parts: Mapping[str, Any]) -> Doubles:
        """Join the parts that are learned to one vector."""
        chosen = [np.atleast_1d(parts["unary_weight"]), parts["weights"]]
        chosen += [parts["widths"]] if "widths" in self.what else []
        chosen += [parts["labels"], parts["pairs"]] if "compatibility" in self.what else []
        chosen += [parts["bias"]] if "bias" in self.what else []
        return np.concatenate([np.asarray(part, np.float64).ravel() for part in chosen])

    def vector(self, values: DenseParameters) -> Doubles:
        """Return the vector of some values."""
        with np.errstate(divide="ignore"):
            return self.pack(
                {
                    "unary_weight": np.log(values.unary_weight),
                    "weights": np.log(np.maximum(values.weights, np.exp(-_MAX_LOG))),
                    "widths": np.log(values.widths),
                    "labels": values.labels,
                    "pairs": values.pairs,
                    "bias": values.bias,
                }
            )

    def penalty(self, point: Doubles, strength: float) -> tuple[float, Doubles]:
        """Return the penalty on differences between labels, and its gradient.

        It is ``strength`` times half the sum of squares of the logarithms of the factors of pairs,
        and of the biases.
        """
        size = len(point) - sum(
            count
            for name, count in (("compatibility", len(self.pairs[0])), ("bias", self.n_labels))
            if name in self.what
        )
        kept = point.copy()
        kept[:size] = 0
        return strength * float(kept @ kept) / 2, strength * kept

    def unpack(self, point: Doubles) -> DenseParameters:
        """Return the values of a vector; what is not learned remains as at the start."""
        values, place = self.first, 0

        def take(size: int) -> Doubles:
            nonlocal place
            place += size
            return point[place - size : place]

        scale = float(np.exp(np.clip(take(1)[0], -_MAX_LOG, _MAX_LOG)))
        weights = np.exp(np.clip(take(len(values.weights)), -_MAX_LOG, _MAX_LOG))
        weights[(values.weights == 0) | (weights < _MIN_WEIGHT)] = 0
        values = replace(values, unary_weight=scale, weights=weights)
        if "widths" in self.what:
            near = np.log(values.widths)
            logs = np.clip(take(len(WIDTHS)), near - np.log(30), near + np.log(30))
            values = replace(values, widths=np.exp(logs))
        if "compatibility" in self.what:
            values = replace(values, labels=take(self.n_labels), pairs=take(len(self.pairs[0])))
        if "bias" in self.what:
            values = replace(values, bias=take(len(values.bias)))
        return values

    def starts(self) -> list[Doubles]:
        """Return vectors near the start, with weaker and stronger weights and other widths."""
        widths = _WIDTH_FACTORS if "widths" in self.what else (1.0,)
        found = []
        for strength, reach, color in product(_WEIGHT_FACTORS, widths, widths):
            factors = np.array([1.0, reach, color])
            values = replace(
                self.first,
                weights=self.first.weights * strength,
                widths=self.first.widths * factors,
            )
            found.append(self.vector(values))
        return found

    def all_kernels(self, values: DenseParameters) -> list[DenseKernel]:
        """Return the kernels with these weights and widths."""
        spatial, reach, color = (float(width) for width in values.widths)
        own: list[DenseKernel] = [
            GaussianKernel(float(values.weights[0]), spatial),
            BilateralKernel(float(values.weights[1]), reach, color),
        ]
        further = zip(self.kernels, values.weights[2:], strict=True)
        return [*own, *(reweighted(kernel, float(weight)) for kernel, weight in further)]

    def record(self, point: Doubles, example: Example) -> DenseRecord:
        """Compute the marginals of an example, to be differentiated."""
        values, dense, features, costs, responses = self._problem(point, example)
        tape = DenseTape.record(dense, costs, responses, self.n_iter)
        return DenseRecord(self, values, tape, features, example.costs)

    def predict(self, point: Doubles, example: Example) -> NDArray[np.integer[Any]]:
        """Return the label indices (n,) after all iterations."""
        _, dense, _, costs, responses = self._problem(point, example)
        found: NDArray[np.integer[Any]] = last_marginals(
            dense, costs, responses, self.final_n_iter
        ).argmax(axis=1)
        return found

    def _problem(
        self, point: Doubles, example: Example
    ) -> tuple[DenseParameters, DenseFilter, list[Singles], Singles, list[Doubles]]:
        """Return the values, the filter and its features, the costs, and the matrices A_k."""
        values, pixels = self.unpack(point), example.given
        if pixels.widths is not None:
            values = replace(values, widths=pixels.widths)
        dense, features = pixels.filter_of(self.all_kernels(values), tuple(values.widths))
        # A constant added to a row changes no marginal; with it, Potts is a multiple of the
        # identity.
        rewards = values.compatibility.max(axis=1, keepdims=True) - values.compatibility
        responses = [weight * rewards for weight in values.weights]
        costs = example.costs * np.float32(values.unary_weight) + values.bias.astype(np.float32)
        return values, dense, features, np.ascontiguousarray(costs), responses

    def weakened(self, point: Doubles, strength: float) -> Doubles:
        """Return the vector with weights and bias times the strength; 0 changes no cost."""
        values = self.unpack(point)
        first = self.first.unary_weight
        return self.vector(
            replace(
                values,
                unary_weight=first * (values.unary_weight / first) ** strength,
                weights=values.weights * strength,
                bias=values.bias * strength,
            )
        )

    def values(self, point: Doubles) -> dict[str, Any]:
        """Return the learned parameters by their names in `hybridseg.DenseCRF`."""
        values = self.unpack(point)
        named: dict[str, Any] = {"unary_weight": values.unary_weight}
        named.update(zip(WEIGHTS, values.weights[:2].tolist(), strict=True))
        if self.kernels:
            named["kernels"] = tuple(self.all_kernels(values)[2:])
        if "widths" in self.what:
            named.update(zip(WIDTHS, values.widths.tolist(), strict=True))
        if "compatibility" in self.what:
            named["compatibility"] = values.compatibility
        if "bias" in self.what:
            named["label_bias"] = values.bias
        return named


def what_of(what: str | Sequence[str]) -> frozenset[str]:
    """Return the names of the parameters that ``Learner(what=...)`` means.

    Raises
    ------
    ValueError
        A name is unknown.
    """
    if isinstance(what, str):
        return frozenset(PARTS[:3] if what == "all" else PARTS[:1])
    unknown = [name for name in what if name not in PARTS]
    if unknown or not what:
        raise ValueError(
            f"learn={tuple(what)!r}; expected 'weights', 'all', or some of {list(PARTS)}."
        )
    return frozenset({*what, "weights"})


def start_of(
    given: Mapping[str, Any], n_labels: int, further: Sequence[DenseKernel]
) -> DenseParameters:
    """Return the start for the parameters of a `hybridseg.DenseCRF`, with "auto" resolved."""
    weights = [given[name] for name in WEIGHTS] + [kernel.weight for kernel in further]
    bias = given.get("label_bias")
    return DenseParameters(
        float(given["unary_weight"]),
        np.array(weights, np.float64),
        np.array([given[name] for name in WIDTHS], np.float64),
        np.zeros(n_labels),
        np.zeros(n_labels * (n_labels - 1) // 2),
        as_compatibility(given["compatibility"], n_labels),
        np.zeros(n_labels) if bias is None else np.asarray(bias, np.float64),
    )
