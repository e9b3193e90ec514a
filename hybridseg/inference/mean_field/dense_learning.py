"""The parameters of a dense CRF and their gradient: what learning needs of it.

The parameters are those of `hybridseg.inference.mean_field.parameters`, with the widths of the two
own kernels. The scores of an iteration are

    s_l = -(a u_l + b_l) - sum over kernels k and labels m of  w_k mu(m, l) (K_k q)_m.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridseg.inference.kept import with_kept
from hybridseg.inference.mean_field.dense_gradient import DenseTape, last_marginals
from hybridseg.inference.mean_field.parameters import Parameters, ParameterVector
from hybridseg.kernels._compile import threads_for
from hybridseg.kernels.dense.dense_filter import DenseFilter, embed
from hybridseg.learning.examples import Example
from hybridseg.pairwise.dense import (
    BilateralKernel,
    DenseKernel,
    GaussianKernel,
    Spacing,
    valid_features,
)
from hybridseg.pairwise.terms import scaled

Singles = NDArray[np.float32]
Doubles = NDArray[np.float64]

#: The widths of the two own kernels, in the order of the vector.
WIDTHS = ("spatial_width", "bilateral_width", "bilateral_color")
#: The weights of the two own kernels.
WEIGHTS = ("spatial_weight", "bilateral_weight")


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
class DenseRecord:
    """The marginals of an example, which can be differentiated."""

    model: DenseLearnable
    values: Parameters
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
        parts.update(values.factor_gradients(of_compatibility, scale))
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


class DenseLearnable(ParameterVector):
    """A dense CRF as learning sees it.

    Parameters
    ----------
    read : callable
        ``read(position, whole)`` returns the `Example` of an image; its ``given`` are `Pixels`.
    start : Parameters
    kernels : sequence of kernels
        Further kernels, of weights above 0; only their weights are learned.
    what : set of str
        Some of `PARTS`; weights are always learned.
    n_iter : int
        Iterations while learning.
    final_n_iter : int
        Iterations of predictions.
    kept : sequence of int, default=()
        As in `ParameterVector`.
    """

    def __init__(
        self,
        read: Callable[[int, bool], Example],
        start: Parameters,
        kernels: Sequence[DenseKernel],
        what: frozenset[str],
        n_iter: int,
        final_n_iter: int,
        kept: Sequence[int] = (),
    ) -> None:
        super().__init__(start, what, kept)
        self.example = read
        self.kernels = tuple(kernels)
        self.n_iter, self.final_n_iter = n_iter, final_n_iter

    def all_kernels(self, values: Parameters) -> list[DenseKernel]:
        """Return the kernels with these weights and widths."""
        spatial, reach, color = (float(width) for width in values.widths)
        own: list[DenseKernel] = [
            GaussianKernel(float(values.weights[0]), spatial),
            BilateralKernel(float(values.weights[1]), reach, color),
        ]
        further = zip(self.kernels, values.weights[2:], strict=True)
        return [*own, *(scaled(kernel, weight / kernel.weight) for kernel, weight in further)]

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
    ) -> tuple[Parameters, DenseFilter, list[Singles], Singles, list[Doubles]]:
        """Return the values, the filter and its features, the costs, and the matrices A_k."""
        values, pixels = self.unpack(point), example.given
        if pixels.widths is not None:
            values = replace(values, widths=pixels.widths)
        dense, features = pixels.filter_of(self.all_kernels(values), tuple(values.widths))
        rewards = values.rewards
        responses = [weight * rewards for weight in values.weights]
        costs = example.costs * np.float32(values.unary_weight) + values.bias.astype(np.float32)
        costs = with_kept(costs, self.kept, example.cheapest)
        return values, dense, features, np.ascontiguousarray(costs), responses

    def values(self, point: Doubles) -> dict[str, Any]:
        """Return the learned parameters by their names in `hybridseg.DenseCRF`."""
        values = self.settled(point)
        named: dict[str, Any] = {"unary_weight": values.unary_weight}
        named.update(zip(WEIGHTS, values.weights[:2].tolist(), strict=True))
        if self.kernels:
            named["kernels"] = tuple(self.all_kernels(values)[2:])
        if "widths" in self.what:
            named.update(zip(WIDTHS, values.widths.tolist(), strict=True))
        return named | self.of_labels(values)


def start_of(given: Mapping[str, Any], n_labels: int, further: Sequence[DenseKernel]) -> Parameters:
    """Return the start for the parameters of a `hybridseg.DenseCRF`, with "auto" resolved."""
    return Parameters.start(
        [given[name] for name in WEIGHTS] + [kernel.weight for kernel in further],
        [given[name] for name in WIDTHS],
        n_labels,
        unary_weight=given["unary_weight"],
        compatibility=given["compatibility"],
        label_bias=given.get("label_bias"),
    )
