"""Cliques: sets of sites that should agree, with robust costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array

from hybridseg.pairwise.sites import Sites
from hybridseg.pairwise.sums import exact_sum
from hybridseg.validation import as_numbers, check_magnitude

#: Costs of cliques that are integers stay below this, so that their products fit int64.
_MAX_INTEGER = 2**62

#: Sums of integers below this are exact in float64.
_MAX_EXACT = 2**53


@dataclass(frozen=True, eq=False)
class Cliques:
    r"""Sets of sites that should agree, with costs of the robust P^n model.

    The cost of clique c depends on the smallest weight of members that disagree with one label:

    .. math:: \min\Big(\text{cap}_c,\;
              \text{slope}_c \min_l \sum_{i \in c,\, x_i \ne l} w_{ci}\Big)

    This is the robust P^n model of [1]_, with the same slope and no offset for each label. A large
    cap makes it linear in the number of sites that disagree; a small cap makes it the P^n Potts
    model, which costs the same however many sites disagree.

    Parameters
    ----------
    first : array-like of int, (C + 1,)
        The members of clique c are ``site[first[c]:first[c + 1]]``.
    site : array-like of int, (M,)
        Site numbers: region numbers, or positions of pixels in row-major order. A site may belong
        to several cliques. A site that occurs twice in a clique counts with both weights.
    slope : array-like, (C,)
        The cost of a member of weight 1 that disagrees, at least 0.
    cap : array-like, (C,)
        The largest cost of the clique, at least 0.
    weight : array-like, (M,), optional
        The weight of each member, at least 0. Default: 1.

    Attributes
    ----------
    first : ndarray of int64, (C + 1,)
    site : ndarray of int64, (M,)
    slope, cap : ndarray of int64 or float64, (C,)
    weight : ndarray of int64 or float64, (M,)

    Raises
    ------
    TypeError, ValueError
        An array does not fit its description, or the others; or integers overflow.

    References
    ----------
    .. [1] P. Kohli, L. Ladicky, P. H. S. Torr, "Robust higher order potentials for enforcing label
       consistency", International Journal of Computer Vision 82, 2009, section 3.

    Examples
    --------
    Three regions should agree; each that disagrees costs 2, and all of them at most 3:

    >>> from hybridseg.pairwise import Cliques, CliqueTerm, Energy
    >>> cliques = Cliques([0, 4], [0, 1, 2, 3], [2], [3])
    >>> energy = Energy([[0, 0], [0, 0], [0, 0], [0, 0]], [CliqueTerm(cliques)])
    >>> energy.energy([1, 1, 1, 1]), energy.energy([0, 1, 1, 1]), energy.energy([0, 0, 1, 1])
    (0.0, 2.0, 3.0)
    """

    first: Any
    site: Any
    slope: Any
    cap: Any
    weight: Any = None

    def __post_init__(self) -> None:
        first, site = _as_indices(self.first, "first"), _as_indices(self.site, "site")
        n_members = len(site)
        steps = np.diff(first)
        if not len(first) or first[0] != 0 or first[-1] != n_members or (steps < 0).any():
            raise ValueError(
                f"first has {len(first)} numbers; expected C + 1 numbers that rise from 0 to "
                f"{n_members}, the length of site."
            )
        slope, cap = (_as_costs(getattr(self, name), name) for name in ("slope", "cap"))
        for name, array in (("slope", slope), ("cap", cap)):
            if array.shape != steps.shape:
                raise ValueError(
                    f"{name} has shape {array.shape}; expected {steps.shape}: one number for each "
                    f"clique."
                )
        weight = self.weight
        weight = np.ones(n_members, np.int64) if weight is None else _as_costs(weight, "weight")
        if weight.shape != site.shape:
            raise ValueError(
                f"weight has shape {weight.shape}; expected {site.shape}: one number for each "
                f"member in site."
            )
        checked = {"first": first, "site": site, "slope": slope, "cap": cap, "weight": weight}
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        self._refuse_overflow()

    def _refuse_overflow(self) -> None:
        with np.errstate(over="ignore"):
            largest = self.slope.astype(np.float64) * self._sums_of(self.weight.astype(np.float64))
            total = float(largest.sum()) + float(self.cap.sum(dtype=np.float64))
        if self.exact and total >= _MAX_INTEGER:
            raise ValueError(
                f"slope, weight and cap hold integers whose sum may reach {total:.3g} and overflow "
                f"int64; pass floats, or divide all costs by a common factor."
            )
        if not np.isfinite(total):
            raise ValueError(
                "slope, weight and cap hold costs whose sum overflows float64; divide all costs by "
                "a common factor."
            )

    @classmethod
    def of_members(
        cls,
        clique: ArrayLike,
        site: ArrayLike,
        slope: ArrayLike,
        cap: ArrayLike,
        weight: ArrayLike | None = None,
    ) -> Self:
        """Make cliques of members in any order.

        Parameters
        ----------
        clique, site : array-like of int, (M,)
            Site ``site[m]`` belongs to clique ``clique[m]``.
        slope, cap : array-like, (C,)
        weight : array-like, (M,), optional
            As for :class:`Cliques`.

        Raises
        ------
        TypeError, ValueError
            An array does not fit its description, or a clique is not one of 0..C-1.
        """
        number, n_cliques = _as_indices(clique, "clique"), len(_as_costs(slope, "slope"))
        member = _as_indices(site, "site")
        if number.shape != member.shape:
            raise ValueError(
                f"clique has shape {number.shape} and site {member.shape}; expected two arrays (M,)"
            )
        if number.size and int(number.max()) >= n_cliques:
            raise ValueError(
                f"clique holds {number.max()}; expected numbers 0..{n_cliques - 1}, the positions "
                f"in slope."
            )
        order = np.argsort(number, kind="stable")
        first = np.concatenate([[0], np.cumsum(np.bincount(number, minlength=n_cliques))])
        own = None if weight is None else as_numbers(weight, "weight")[order]
        return cls(first, member[order], slope, cap, own)

    def __len__(self) -> int:
        return len(self.slope)

    @property
    def exact(self) -> bool:
        """Whether all costs and weights are integers."""
        return all(each.dtype.kind == "i" for each in (self.slope, self.cap, self.weight))

    @cached_property
    def clique(self) -> NDArray[np.int64]:
        """The clique of each member, (M,)."""
        return np.repeat(np.arange(len(self)), np.diff(self.first))

    @cached_property
    def sizes(self) -> NDArray[Any]:
        """The sum of the weights of each clique, (C,)."""
        return self._sums_of(self.weight)

    @property
    def nbytes(self) -> int:
        """The size in bytes."""
        arrays = self.first, self.site, self.slope, self.cap, self.weight
        return sum(int(each.nbytes) for each in arrays)

    def _sums_of(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the sum over the members of each clique, (C,)."""
        return _sums_by(self.clique, values, len(self))

    def agreement(self, labels: NDArray[Any], n_labels: int) -> NDArray[Any]:
        """Return the weight of each clique's members that have each label, (C, L).

        ``labels`` (n,) are indices 0..L-1 of all sites.
        """
        key = self.clique * n_labels + labels[self.site]
        return _sums_by(key, self.weight, len(self) * n_labels).reshape(-1, n_labels)

    def costs(self, labels: NDArray[Any], n_labels: int) -> NDArray[Any]:
        """Return the cost of each clique, (C,), for label indices (n,) of all sites."""
        if not len(self):
            return np.zeros(0, np.int64)
        most = self.agreement(labels, n_labels).max(axis=1)
        return np.minimum(self.cap, self.slope * (self.sizes - most))

    def cost(self, labels: NDArray[Any], n_labels: int) -> int | float:
        """Return the sum of all costs in 64 bits, exact for integers."""
        return exact_sum(self.costs(labels, n_labels))

    def scaled(self, factor: float) -> Cliques:
        """Return the cliques with all costs times a factor."""
        slope, cap = np.multiply(self.slope, factor), np.multiply(self.cap, factor)
        return Cliques(self.first, self.site, slope, cap, self.weight)

    def on(self, n_sites: int, counted: NDArray[np.bool_] | None) -> Cliques:
        """Return the cliques between sites that count, each site once, without free ones.

        Raises
        ------
        ValueError
            A site is not one of 0..n_sites-1.
        """
        if self.site.size and int(self.site.max()) >= n_sites:
            raise ValueError(
                f"site holds {self.site.max()}; expected numbers 0..{n_sites - 1}, because unary "
                f"has {n_sites} sites."
            )
        kept = self.weight > 0
        if counted is not None:
            kept &= counted.ravel()[self.site]
        members = self.weight[kept], (self.clique[kept], self.site[kept])
        table = coo_array(members, shape=(len(self), n_sites)).tocsr()  # adds up duplicates
        costly = (np.diff(table.indptr) > 1) & (self.slope > 0) & (self.cap > 0)
        if not costly.all():
            table = table[np.flatnonzero(costly)]
        slope, cap = self.slope[costly], self.cap[costly]
        return Cliques(table.indptr, table.indices, slope, cap, table.data)

    def within(self, shape: tuple[int, ...], box: tuple[slice, ...]) -> Cliques:
        """Return the parts of the cliques in a box of the image.

        The cap shrinks with the weight of the members, so that the fraction of the members that
        may disagree before the cost is capped stays the same.

        Parameters
        ----------
        shape : tuple of int
            That of the image, or (R,).
        box : tuple of slice
            One slice with both ends for each axis.
        """
        sides = [side.stop - side.start for side in box]
        if tuple(sides) == tuple(shape):
            return self
        numbers = np.full(shape, -1, np.int64)
        numbers[box] = np.arange(np.prod(sides)).reshape(sides)
        site = numbers.ravel()[self.site]
        inside = site >= 0
        weight = np.where(inside, self.weight, 0)
        left = self._sums_of(weight) / np.maximum(self.sizes, np.finfo(np.float64).tiny)
        return Cliques.of_members(
            *(self.clique[inside], site[inside], self.slope, self.cap * left),
            weight=self.weight[inside],
        )


@dataclass(frozen=True, eq=False)
class CliqueTerm:
    """A term of given cliques, whose sites should agree.

    The compatibility of labels does not enter: every other label disagrees in the same way.

    Parameters
    ----------
    of : Cliques
        Members are region numbers, or positions of pixels in row-major order. Members that are not
        valid are ignored.

    Raises
    ------
    TypeError
        ``of`` is not a :class:`Cliques`.

    See Also
    --------
    SuperpixelCliques : Cliques of the superpixels of an image.

    Examples
    --------
    >>> from hybridseg.inference import solve_cuts
    >>> from hybridseg.pairwise import Cliques, CliqueTerm, Energy
    >>> term = CliqueTerm(Cliques([0, 3], [0, 1, 2], [4], [4]))  # three regions should agree
    >>> solve_cuts(Energy([[0, 9], [0, 2], [3, 0]], [term])).labels.tolist()
    [0, 0, 0]
    """

    of: Cliques

    def __post_init__(self) -> None:
        if not isinstance(self.of, Cliques):
            raise TypeError(
                f"of is a {type(self.of).__name__}; expected Cliques(first, site, slope, cap)."
            )

    def cliques(self, sites: Sites) -> Cliques:
        """Return the cliques; Energy checks that they fit."""
        return self.of


def join_cliques(parts: Sequence[Cliques]) -> Cliques:
    """Return the cliques of several terms in one record."""
    if len(parts) == 1:
        return parts[0]
    none = np.zeros(0, np.int64)
    if not parts:
        return Cliques([0], none, none, none)
    ends = np.cumsum([0, *(len(each.site) for each in parts)])
    first = [each.first[:-1] + end for each, end in zip(parts, ends, strict=False)]
    joined = (
        np.concatenate([getattr(each, name) for each in parts])
        for name in ("site", "slope", "cap", "weight")
    )
    return Cliques(np.concatenate([*first, ends[-1:]]), *joined)


def _sums_by(key: NDArray[np.int64], values: NDArray[Any], n: int) -> NDArray[Any]:
    """Return the sums of values with the same key 0..n-1, (n,); exact for integers."""
    if values.dtype.kind == "f" or float(values.sum(dtype=np.float64)) < _MAX_EXACT:
        return np.bincount(key, values, n).astype(values.dtype, copy=False)
    sums = np.zeros(n, values.dtype)
    np.add.at(sums, key, values)
    return sums


def _as_indices(values: ArrayLike, name: str) -> NDArray[np.int64]:
    array = as_numbers(values, name, expected="integers")
    if array.ndim != 1:
        raise ValueError(f"{name} has shape {array.shape}; expected an array with one axis.")
    if array.size == 0:
        return np.zeros(0, np.int64)
    if array.dtype.kind not in "ui":
        raise TypeError(f"{name} has dtype {array.dtype}; expected integers.")
    if array.min() < 0 or int(array.max()) > np.iinfo(np.int64).max:
        raise ValueError(f"{name} holds {array.min()}; expected numbers of at least 0.")
    return array.astype(np.int64, copy=False)


def _as_costs(values: ArrayLike, name: str) -> NDArray[Any]:
    array = as_numbers(values, name)
    check_magnitude(array, name, largest=np.finfo(np.float64).max)
    if array.size and array.min() < 0:
        raise ValueError(f"{name} holds {array.min():g}; expected costs and weights >= 0.")
    if array.dtype.kind == "f":
        return array.astype(np.float64, copy=False)
    if array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise ValueError(f"{name} holds {array.max()}, which overflows int64: pass floats.")
    return array.astype(np.int64, copy=False)
