"""Costs of the labels that occur and of their pairs: sums, expectations and derivatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.pairwise.labels import as_label_costs
from hybridseg.pairwise.sums import exact_sum
from hybridseg.validation import as_numbers, check_magnitude

Singles = NDArray[np.float32]
Doubles = NDArray[np.float64]


class PresenceCosts(NamedTuple):
    """The cost of each set of labels: a sum over its labels and over its pairs of labels.

    Attributes
    ----------
    single : ndarray of int64 or float64, (L,)
        Paid once for each label that occurs.
    joint : ndarray, (L, L), or None
        In the dtype of ``single``; symmetric, with a diagonal of zeros. Paid once for each pair of
        labels that both occur. None: no pair has a cost.
    """

    single: NDArray[Any]
    joint: NDArray[Any] | None = None

    @classmethod
    def of(
        cls, label_costs: NDArray[Any] | None, terms: Sequence[Any], n_labels: int
    ) -> PresenceCosts | None:
        """Add up checked label costs and the costs of terms; None if there are none.

        Raises
        ------
        TypeError, ValueError
            The costs of a term are not a symmetric matrix for these labels, or sums of integers
            overflow int64.
        """
        if label_costs is None and not terms:
            return None
        total = np.zeros(n_labels, np.int64) if label_costs is None else label_costs
        joint: NDArray[Any] | None = None
        for term in terms:
            name = f"{type(term).__name__}.label_set_costs(n_labels)"
            matrix = as_presence_costs(term.label_set_costs(n_labels), name, n_labels)
            total = _added(total, matrix.diagonal(), name)
            pairs = matrix.copy()
            np.fill_diagonal(pairs, 0)
            if pairs.any():
                joint = pairs if joint is None else _added(joint, pairs, name)
        if joint is None:
            return cls(total)
        if total.dtype != joint.dtype:
            return cls(total.astype(np.float64), joint.astype(np.float64))
        return cls(total, joint)

    def of_set(self, present: NDArray[Any]) -> int | float:
        """Return the cost of a set of labels (indices, without duplicates); exact for integers."""
        total = exact_sum(self.single[present])
        if self.joint is not None:
            total += exact_sum(np.triu(self.joint[np.ix_(present, present)]))
        return total

    @property
    def sum(self) -> float:
        """The cost of the set of all labels."""
        total = float(self.single.sum(dtype=np.float64))
        return total if self.joint is None else total + float(self.joint.sum(dtype=np.float64)) / 2

    def astype(self, dtype: Any) -> PresenceCosts:
        """Return the costs in another dtype."""
        joint = None if self.joint is None else self.joint.astype(dtype)
        return PresenceCosts(self.single.astype(dtype), joint)


def as_presence_costs(costs: ArrayLike, name: str, n_labels: int | None = None) -> NDArray[Any]:
    """Check costs of labels and pairs: symmetric (L, L), int64 or float64.

    Raises
    ------
    TypeError, ValueError
        ``costs`` is not a symmetric matrix of finite numbers for ``n_labels`` labels (None: any).
    """
    array = as_numbers(costs, name, expected="real costs (L, L)")
    size = "L" if n_labels is None else n_labels
    square = array.ndim == 2 and array.shape[0] == array.shape[1] > 0
    if not square or n_labels not in (None, len(array)):
        raise ValueError(
            f"{name} has shape {array.shape}; expected ({size}, {size}): a cost for each pair of "
            f"labels, and on the diagonal for each label."
        )
    matrix = as_label_costs(array.ravel(), array.size, name=name).reshape(array.shape)
    uneven = matrix != matrix.T
    if matrix.dtype.kind == "f":
        uneven = np.abs(matrix / 2 - matrix.T / 2) > 1e-6 * np.abs(matrix / 2).max()
    if bool(uneven.any()):
        i, j = np.argwhere(uneven)[0]
        raise ValueError(
            f"{name}[{i}, {j}]={array[i, j]} but {name}[{j}, {i}]={array[j, i]}; expected a "
            f"symmetric matrix, because a pair of labels has no order: for example "
            f"({name} + {name}.T) / 2."
        )
    return matrix if matrix.dtype.kind == "i" else matrix / 2 + matrix.T / 2


def presence_messages(rows: NDArray[Any], costs: PresenceCosts) -> Singles:
    r"""Return the expected cost that each site adds by taking a label.

    .. math:: m_i(l) = \Big(c_l + \sum_{m \ne l} c_{lm} P_m\Big) \prod_{j \ne i} (1 - Q_j(l))

    is the derivative of :func:`expected_presence_cost`. Products are sums of logarithms. Sites with
    marginal 1 are counted separately, because their logarithm is infinite.

    Parameters
    ----------
    rows : (n, L)
        Marginals.
    costs : PresenceCosts

    Returns
    -------
    (n, L)
    """
    absence = _Absence.of(rows)
    return np.asarray(absence.prices(costs) * absence.of_others(), np.float32)


def expected_presence_cost(rows: NDArray[Any], costs: PresenceCosts) -> float:
    """Return the expected cost of the labels that occur, if they occur independently."""
    present = _Absence.of(rows).present
    total = float(costs.single @ present)
    return total if costs.joint is None else total + float(present @ costs.joint @ present) / 2


def presence_gradient(rows: NDArray[Any], slopes: NDArray[Any], costs: PresenceCosts) -> Singles:
    """Return the derivative of ``sum(slopes * presence_messages(rows, costs))`` by the marginals.

    A marginal enters the messages of its own label at all other sites, and by the probability that
    its label occurs the messages of all other labels.

    Parameters
    ----------
    rows, slopes : (n, L)
    costs : PresenceCosts

    Returns
    -------
    (n, L)
    """
    absence = _Absence.of(rows)
    given = np.asarray(slopes, np.float64)
    others = absence.of_others()
    found = -absence.prices(costs) * absence.summed_over_others(given)
    if costs.joint is not None:
        found += others * (costs.joint @ (given * others).sum(axis=0))
    return np.asarray(found, np.float32)


class _Absence(NamedTuple):
    """The probabilities that sites do not have a label: logarithms, and which of them are 0."""

    logs: Doubles
    certain: NDArray[np.bool_]

    @classmethod
    def of(cls, rows: NDArray[Any]) -> _Absence:
        """Take marginals (n, L); where a site surely has a label, its logarithm is set to 0."""
        marginals = np.minimum(rows.astype(np.float64), 1.0)
        certain = marginals == 1
        logs = np.log1p(-marginals, out=np.zeros_like(marginals), where=~certain)
        return cls(logs, certain)

    @property
    def present(self) -> Doubles:
        """The probability that a label occurs at any site, (L,)."""
        found: Doubles = np.where(self.certain.any(axis=0), 1.0, -np.expm1(self.logs.sum(axis=0)))
        return found

    def prices(self, costs: PresenceCosts) -> Doubles:
        """Return the cost of each label if it occurs, given which others may occur, (L,)."""
        single = costs.single.astype(np.float64)
        return single if costs.joint is None else single + costs.joint @ self.present

    def of_others(self) -> Doubles:
        """Return the probability that no other site has the label, (n, L)."""
        n_others = self.certain.sum(axis=0) - self.certain
        products = np.exp(self.logs.sum(axis=0) - self.logs)
        return np.where(n_others > 0, 0.0, products)

    def summed_over_others(self, given: Doubles) -> Doubles:
        """Return sum over i != j of given_i prod over k != i, j of (1 - Q_k), (n, L)."""
        n_certain = self.certain.sum(axis=0)
        total = self.logs.sum(axis=0)
        products, factors = np.exp(total - self.logs), np.exp(-self.logs)
        free = np.where(self.certain, 0.0, given * factors)
        sure = np.where(self.certain, given, 0.0).sum(axis=0)
        none = products * (free.sum(axis=0) - free)
        # With one certain site c, all products that hold c are 0: i or j is c.
        one = np.where(self.certain, np.exp(total) * free.sum(axis=0), products * sure)
        two = np.where(self.certain, np.exp(total) * (sure - given), 0.0)
        return np.select([n_certain == 0, n_certain == 1, n_certain == 2], [none, one, two], 0.0)


def _added(one: NDArray[Any], other: NDArray[Any], name: str) -> NDArray[Any]:
    """Return the sum of costs; that of integers is exact.

    Raises
    ------
    ValueError
        The sum overflows.
    """
    if one.dtype.kind == other.dtype.kind == "i":
        ends = (int(one.min()) + int(other.min()), int(one.max()) + int(other.max()))
        if not -(2**63) <= ends[0] <= ends[1] < 2**63:
            raise ValueError(
                f"{name} and other label costs hold integers whose sum overflows int64: pass "
                f"floats, or divide all costs by a common factor."
            )
        return one + other
    with np.errstate(over="ignore"):  # refused below
        total = np.add(one, other, dtype=np.float64)
    check_magnitude(total, f"{name}, added to other label costs,", largest=np.finfo(np.float64).max)
    return total
