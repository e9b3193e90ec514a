"""The parameters of a CRF as a vector: what all refiners that learn by a gradient share.

The parameters are the weight a of the costs, a bias b of each label, the weight w_k of each term,
the widths of kernels, and the label compatibility mu. Weights and widths are positive, so the
vector holds their logarithms. An entry of mu is learned as a factor of the entry given, so that
costs remain costs: ``exp((c_l + c_m) / 2 + d_lm)``, with a number c for each label and d for each
pair.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.inference.scene_energy import as_label_bias
from hybridseg.pairwise.compatibility import as_compatibility

Doubles = NDArray[np.float64]

#: What ``Learner(what=...)`` may name.
PARTS = ("weights", "widths", "compatibility", "bias")

#: The factors of given weights and widths from which starting points are made.
_WEIGHT_FACTORS, _WIDTH_FACTORS = (0.25, 1.0, 4.0), (1.0, 2.5)

#: The largest absolute logarithm of a weight.
_MAX_LOG = 12.0

#: The largest absolute logarithm of a factor of the compatibility.
_MAX_LOG_FACTOR = 5.0

#: The weight below which a term is left out.
_MIN_WEIGHT = 2e-5


@dataclass(frozen=True, eq=False)
class Parameters:
    """Values of the parameters of a CRF with L labels.

    Attributes
    ----------
    unary_weight : float
    weights : ndarray of float, (m,)
        Of all terms.
    widths : ndarray of float, (v,)
        Of all kernels whose widths can be learned.
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

    @classmethod
    def start(
        cls,
        weights: ArrayLike,
        widths: ArrayLike,
        n_labels: int,
        *,
        unary_weight: float,
        compatibility: str | ArrayLike,
        label_bias: ArrayLike | None,
    ) -> Parameters:
        """Return the values given to a refiner, with all factors of the compatibility at 1."""
        return cls(
            float(unary_weight),
            np.array(weights, np.float64),
            np.array(widths, np.float64),
            np.zeros(n_labels),
            np.zeros(n_labels * (n_labels - 1) // 2),
            as_compatibility(compatibility, n_labels),
            np.zeros(n_labels)
            if label_bias is None
            else as_label_bias(label_bias, n_labels).astype(np.float64),
        )

    @property
    def compatibility(self) -> Doubles:
        """The label compatibility with all factors, (L, L)."""
        return self.base * np.exp(np.clip(self.logs, -_MAX_LOG_FACTOR, _MAX_LOG_FACTOR))

    @property
    def logs(self) -> Doubles:
        """The logarithms of the factors of all pairs, (L, L); 0 on the diagonal."""
        logs = np.zeros_like(self.base)
        logs[np.triu_indices(len(logs), 1)] = self.pairs
        logs += logs.T + (self.labels[:, np.newaxis] + self.labels) / 2
        np.fill_diagonal(logs, 0)
        return logs

    @property
    def rewards(self) -> Doubles:
        """The compatibility subtracted from the largest of each row, (L, L).

        A constant added to a row changes no marginal; with it, Potts is the identity.
        """
        matrix = self.compatibility
        return matrix.max(axis=1, keepdims=True) - matrix

    def factor_gradients(self, of_matrix: Doubles, scale: float) -> dict[str, Doubles]:
        """Return the gradients by ``labels`` and ``pairs``.

        ``of_matrix`` is ``scale`` times the gradient by the compatibility.
        """
        of_pairs = (of_matrix + np.transpose(of_matrix)) / scale * self.compatibility
        np.fill_diagonal(of_pairs, 0)
        return {
            "labels": of_pairs.sum(axis=1) / 2,
            "pairs": of_pairs[np.triu_indices(len(of_pairs), 1)],
        }


class ParameterVector:
    """The layout of a vector of parameters; the base class of CRFs as learning sees them.

    Parameters
    ----------
    start : Parameters
    what : set of str
        Some of `PARTS`; weights are always learned.
    kept : sequence of int, default=()
        The indices of labels whose pixels stay as the costs alone decide.
    """

    def __init__(self, start: Parameters, what: frozenset[str], kept: Sequence[int] = ()) -> None:
        self.first = start
        self.what = what
        self.n_labels = len(start.bias)
        self.spared: tuple[int, ...] = ()
        self.given_kept = self.kept = tuple(kept)

    def sparing(self, labels: Sequence[int]) -> Self:
        """Return a copy in which disagreeing with some labels costs half, for any vector.

        A label that is listed twice is kept: its pixels stay as the costs alone decide. Less than
        half would not do: between two labels that pay in full, a label that pays less than half is
        the cheapest compromise, so it would spread along their boundary.
        """
        known = copy.copy(self)
        times = Counter(labels)
        known.spared = tuple(label for label, n in times.items() if n == 1)
        more = {label for label, n in times.items() if n > 1}
        known.kept = tuple(sorted({*self.given_kept, *more}))
        return known

    def pack(self, parts: Mapping[str, Any]) -> Doubles:
        """Join the parts that are learned to one vector."""
        chosen = [np.atleast_1d(parts["unary_weight"]), parts["weights"]]
        chosen += [parts["widths"]] if "widths" in self.what else []
        chosen += [parts["labels"], parts["pairs"]] if "compatibility" in self.what else []
        chosen += [parts["bias"]] if "bias" in self.what else []
        return np.concatenate([np.asarray(part, np.float64).ravel() for part in chosen])

    def vector(self, values: Parameters) -> Doubles:
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

    def unpack(self, point: Doubles) -> Parameters:
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
            logs = np.clip(take(len(values.widths)), near - np.log(30), near + np.log(30))
            values = replace(values, widths=np.exp(logs))
        if "compatibility" in self.what:
            values = replace(values, labels=take(self.n_labels), pairs=take(len(values.pairs)))
        if "bias" in self.what:
            values = replace(values, bias=take(len(values.bias)))
        if self.spared:
            labels = values.labels.copy()
            labels[list(self.spared)] -= 2 * np.log(2)
            values = replace(values, labels=labels)
        return values

    def penalty(self, point: Doubles, strength: float) -> tuple[float, Doubles]:
        """Return the penalty on differences between labels, and its gradient.

        It is ``strength`` times half the sum of squares of the biases and of the logarithms of all
        factors of the compatibility.
        """
        values = self.unpack(point)
        slopes: dict[str, Any] = {
            "unary_weight": 0.0,
            "weights": np.zeros(len(values.weights)),
            "widths": np.zeros(len(values.widths)),
            "bias": strength * values.bias,
        }
        total = strength * float(values.bias @ values.bias) / 2 if "bias" in self.what else 0.0
        logs = values.logs
        slopes["labels"] = strength * logs.sum(axis=1) / 2
        slopes["pairs"] = strength * logs[np.triu_indices(self.n_labels, 1)]
        if "compatibility" in self.what:
            total += strength * float((logs**2).sum()) / 4
        return total, self.pack(slopes)

    def starts(self) -> list[Doubles]:
        """Return vectors near the start, with weaker and stronger weights and other widths.

        The first of the widths keeps its value.
        """
        own = _WIDTH_FACTORS if "widths" in self.what else (1.0,)
        n_changed = max(0, len(self.first.widths) - 1)
        found = []
        for strength, *factors in product(_WEIGHT_FACTORS, *[own] * n_changed):
            widths = self.first.widths.copy()
            widths[1:] *= factors
            values = replace(self.first, weights=self.first.weights * strength, widths=widths)
            found.append(self.vector(values))
        return found

    def weakened(self, point: Doubles, strength: float) -> Doubles:
        """Return the vector at a strength from 0, which changes no cost, to 1.

        Weights and biases are multiplied with the strength, and factors are raised to its power.
        """
        first = self.first.unary_weight
        plain = self.sparing(())
        values = plain.unpack(point)
        return self.vector(
            replace(
                values,
                unary_weight=first * (values.unary_weight / first) ** strength,
                weights=values.weights * strength,
                labels=values.labels * strength,
                pairs=values.pairs * strength,
                bias=values.bias * strength,
            )
        )

    def settled(self, point: Doubles) -> Parameters:
        """Return the values of a vector, with costs of pairs of labels whose mean is 1.

        Only products of weights and costs of pairs have an effect, so the mean goes into the
        weights.
        """
        values = self.unpack(point)
        if "compatibility" not in self.what and not self.spared:
            return values
        costs = values.compatibility[np.triu_indices(self.n_labels, 1)]
        mean = float(np.abs(costs).mean()) if costs.size else 0.0
        if mean == 0:
            return values
        return replace(values, weights=values.weights * mean, base=values.base / mean)

    def of_labels(self, values: Parameters) -> dict[str, Any]:
        """Return the learned compatibility, bias and kept labels by their names in refiners.

        Kept labels are indices.
        """
        named: dict[str, Any] = {}
        if "compatibility" in self.what or self.spared:
            named["compatibility"] = values.compatibility
        if "bias" in self.what:
            named["label_bias"] = values.bias
        if self.kept:
            named["kept_labels"] = list(self.kept)
        return named


def what_of(what: str | Sequence[str], parts: Sequence[str] = PARTS) -> frozenset[str]:
    """Return the names of the parameters that ``Learner(what=...)`` means.

    Parameters
    ----------
    what : {"weights", "all"} or sequence of str
    parts : sequence of str
        Those of `PARTS` that the refiner has. "all" means all but the bias.

    Raises
    ------
    ValueError
        A name is unknown.
    """
    if isinstance(what, str):
        return frozenset(set(parts) - {"bias"} if what == "all" else {"weights"})
    unknown = [name for name in what if name not in parts]
    if unknown or not what:
        raise ValueError(
            f"learn={tuple(what)!r}; expected 'weights', 'all', or some of {list(parts)}."
        )
    return frozenset({*what, "weights"})
