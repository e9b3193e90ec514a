"""The fully connected CRF of one image: its lattices, and the iteration of mean field on them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.inference.mean_field.dense_iteration import iterate
from hybridseg.inference.mean_field.pruning import certify
from hybridseg.kernels._compile import threads_for
from hybridseg.kernels.dense.columns import filter_column
from hybridseg.kernels.dense.dense_filter import (
    DenseFilter,
    embed,
    tables_for,
    total_weights,
)
from hybridseg.pairwise.compatibility import as_compatibility
from hybridseg.pairwise.dense import (
    DenseKernel,
    Spacing,
    dense_kernels,
    dense_widths,
    valid_features,
)
from hybridseg.pairwise.energy import Energy
from hybridseg.pairwise.terms import is_dense
from hybridseg.space import Width
from hybridseg.validation import (
    LARGEST,
    IntensityRange,
    as_colors,
    as_costs,
    as_mask,
    as_numbers,
    as_soft_costs,
    as_spacing,
    check_number,
    only_valid,
)

Singles = NDArray[np.float32]

#: The smallest initial marginal: smaller ones are raised to it, so that logarithms are finite.
_MIN_MARGINAL = 1e-30


@dataclass(frozen=True, eq=False)
class MeanFieldResult:
    """The result of :func:`solve_mean_field`, :func:`mean_field` or :func:`grid_mean_field`.

    Attributes
    ----------
    marginals : ndarray of float32, (*spatial, L) or (R, L)
        The probability of each label at each pixel or region; they sum to one there.
    n_iter : int
        Iterations made.
    converged : bool
        Whether the last change was below ``tol``.
    changes : tuple of float
        The largest change of any marginal, iteration by iteration. For dense kernels alone it is
        empty if ``tol`` is 0, because comparing marginals takes a quarter of the time. To record
        all changes, pass a ``tol`` that is never reached, such as 1e-12.
    energies : tuple of float
        The free energy at the start and after each iteration, as :func:`free_energy` computes it;
        empty without ``with_energy``.
    pruned : tuple of int
        The labels that ``prune`` left out; their marginals are 0.
    prune_bound : float
        A bound on the change of any marginal by ``prune``; see the notes of :func:`mean_field`. 0
        if no label was left out.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.inference import grid_mean_field
    >>> unary = np.array([[[0.0, 1.0], [1.0, 0.0]]])  # one row of two pixels
    >>> result = grid_mean_field(unary, [np.zeros((0, 2)), np.array([[3.0]])], tol=1e-3, n_iter=50)
    >>> result.marginals.shape, result.converged, len(result.changes) == result.n_iter
    ((1, 2, 2), True, True)
    """

    marginals: Singles
    n_iter: int
    converged: bool
    changes: tuple[float, ...]
    energies: tuple[float, ...] = ()
    pruned: tuple[int, ...] = ()
    prune_bound: float = 0.0


@dataclass(frozen=True, eq=False)
class Trace:
    """The values of an objective at the marginals (*shape, L) of each iteration."""

    objective: Callable[[Singles], float]
    energies: list[float] = field(default_factory=list)

    def record(self, marginals: Singles) -> None:
        """Append the objective's value."""
        self.energies.append(self.objective(marginals))


@dataclass(frozen=True, eq=False)
class Request:
    """The checked arguments of one inference besides costs and kernels."""

    matrix: NDArray[np.float64]
    n_iter: int
    tol: float
    init: Singles | None
    prune: float | None
    trace: Trace | None = None

    @property
    def energies(self) -> tuple[float, ...]:
        """The objective at the start and after each iteration so far."""
        return () if self.trace is None else tuple(self.trace.energies)

    @classmethod
    def of(
        cls,
        costs: Singles,
        compatibility: str | ArrayLike,
        n_iter: int,
        tol: float,
        init: ArrayLike | None,
        prune: float | None,
        trace: Trace | None = None,
    ) -> Self:
        """Check the arguments of :func:`mean_field` that do not concern kernels."""
        matrix = as_compatibility(compatibility, costs.shape[-1])
        check_number(n_iter, "n_iter", minimum=0, integer=True)
        check_number(tol, "tol", minimum=0)
        if prune is not None:
            check_number(prune, "prune", minimum=0, maximum=1, strict=True)
        start = None if init is None else as_marginals(init, costs.shape)
        return cls(matrix, n_iter, tol, start, prune, trace)


@dataclass(frozen=True, eq=False)
class DenseModel:
    """The kernels of one image, embedded in lattices once, for any number of inferences.

    Embedding the pixels takes about as long as a few iterations. If the image stays the same and
    costs, kernel weights, compatibility or the number of iterations change (a search for
    parameters, costs from several models, interaction), make the model once with :meth:`of` and
    call :meth:`mean_field` on it.

    Attributes
    ----------
    shape : tuple of int
        The image's height and width, or depth, height and width.
    valid : ndarray of bool, (*spatial,), or None
        Where False, a pixel is ignored.
    weights : ndarray of float32, (m,)
        The weights of the kernels, unless :meth:`mean_field` gets others.
    filter : DenseFilter or None
        All lattices together; None if no pixel is valid.

    See Also
    --------
    mean_field : the same in one call; it describes the parameters.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.inference import DenseModel
    >>> image = np.zeros((12, 16), np.uint8)
    >>> image[:, 8:] = 200
    >>> model = DenseModel.of(image, bilateral_width=40.0)
    >>> unary = np.where(np.eye(2, dtype=bool)[(image > 0).astype(int)], 0.3, 0.7)
    >>> firm, soft = (
    ...     model.mean_field(unary, bilateral_weight=weight).marginals.max(axis=-1).mean()
    ...     for weight in (10.0, 1.0)
    ... )
    >>> bool(firm > soft)
    True
    """

    shape: tuple[int, ...]
    valid: NDArray[np.bool_] | None
    weights: Singles
    filter: DenseFilter | None

    @classmethod
    def of(
        cls,
        image: ArrayLike,
        *,
        spatial_width: Width = "auto",
        bilateral_width: Width = "auto",
        bilateral_color: float = 13.0,
        kernels: Iterable[DenseKernel] = (),
        intensity_range: IntensityRange = "dtype",
        spacing: Spacing = None,
        valid: ArrayLike | None = None,
        spatial_ndim: int | None = None,
    ) -> Self:
        """Embed an image's pixels in one lattice for each kernel.

        Parameters
        ----------
        image : array-like, (H, W[, C]) or (D, H, W[, C])
        spatial_width, bilateral_width, bilateral_color, kernels, intensity_range, spacing, valid
            As in :func:`mean_field`. Weights are arguments of :meth:`mean_field`.
        spatial_ndim : {2, 3}, optional
            Pass 3 for a volume (D, H, W) whose shape could also be that of an image (H, W, C).

        Returns
        -------
        DenseModel

        Raises
        ------
        TypeError, ValueError
            An argument does not fit its description.
        """
        if valid is not None:
            valid = as_numbers(valid, "valid", expected="a mask of booleans")
        rank = spatial_ndim if valid is None or spatial_ndim is not None else np.ndim(valid)
        colors = as_colors(
            image,
            spatial_ndim=rank,
            intensity_range=intensity_range,
            valid=valid,
        )
        mask = None if valid is None else as_mask(valid, colors.shape[:-1])
        widths = dense_widths(spatial_width, bilateral_width, spacing, colors.ndim - 1)
        terms = dense_kernels(1.0, widths[0], 1.0, widths[1], bilateral_color, kernels)
        return cls.build(terms, colors, as_spacing(spacing, colors.ndim - 1), mask)

    @classmethod
    def of_energy(cls, energy: Energy) -> Self:
        """Embed the pixels of an energy in one lattice for each of its dense kernels.

        Raises
        ------
        ValueError
            The energy has no image, or the features of a kernel do not fit a lattice.
        """
        sites = energy.sites
        kernels = [term for term in energy.local_terms if is_dense(term, sites)]
        return cls.build(kernels, sites.colors, sites.spacing, sites.valid)

    @classmethod
    def build(
        cls,
        kernels: Iterable[DenseKernel],
        colors: Singles,
        spacing: Spacing = None,
        valid: NDArray[np.bool_] | None = None,
    ) -> Self:
        """Embed the (valid) pixels of checked colors ``(*spatial, C)``."""
        kernels = tuple(kernels)
        shape = colors.shape[:-1]
        n_pixels = math.prod(shape) if valid is None else int(np.count_nonzero(valid))
        weights = np.array([kernel.weight for kernel in kernels], np.float32)
        dense = None
        if n_pixels > 0:
            with threads_for(n_pixels):
                dense = embed(
                    [valid_features(k, colors, spacing, valid) for k in kernels], n_pixels
                )
        return cls(shape, valid, weights, dense)

    def mean_field(
        self,
        unary: ArrayLike,
        *,
        spatial_weight: float = 3.0,
        bilateral_weight: float = 10.0,
        compatibility: str | ArrayLike = "potts",
        n_iter: int = 10,
        tol: float = 0.0,
        init: ArrayLike | None = None,
        prune: float | None = None,
    ) -> MeanFieldResult:
        """Approximate the marginals for these costs; see :func:`mean_field`.

        Parameters
        ----------
        unary : array-like, (*spatial, L)
            The cost of each label at each pixel, lower is better.
        spatial_weight, bilateral_weight : float
            At least 0. Further kernels keep their own weights.
        compatibility, n_iter, tol, init, prune
            As in :func:`mean_field`.

        Returns
        -------
        MeanFieldResult

        Raises
        ------
        TypeError, ValueError
            An argument does not fit its description, or ``unary`` and the image differ in shape.
        """
        check_number(spatial_weight, "spatial_weight", minimum=0)
        check_number(bilateral_weight, "bilateral_weight", minimum=0)
        weights = self.weights.copy()
        weights[:2] = spatial_weight, bilateral_weight
        costs = as_soft_costs(as_costs(only_valid(unary, self.valid), spatial_shape=self.shape))
        start = None
        if init is not None:
            start = only_valid(init, self.valid, instead=1.0, name="init")
        request = Request.of(costs, compatibility, n_iter, tol, start, prune)
        check_strengths(weights, request.matrix)
        return self.solve(costs, weights, request)

    def solve(self, costs: Singles, weights: Singles, request: Request) -> MeanFieldResult:
        """Run mean field with kernel weights (m,); all arguments are checked."""
        n_labels, start, prune = costs.shape[-1], request.init, request.prune
        if self.filter is None:
            uniform = np.full_like(costs, 1 / n_labels)
            if request.trace is not None:
                request.trace.record(uniform)
            return MeanFieldResult(uniform, 0, False, (), request.energies)
        rows, start = self._rows(costs), None if start is None else self._rows(start)
        with threads_for(rows.size):
            leaves = None
            if prune is not None:
                reach = float(total_weights(self.filter, weights).max(initial=0))
                leaves = certify(rows, request.matrix, reach, prune, request.n_iter, start)
            few, chosen = rows, np.arange(n_labels)
            if leaves is not None and len(leaves.pruned):
                chosen = leaves.kept
                few = np.take(rows, chosen, axis=1)  # rows[:, chosen] takes three times as long
            first = few if start is None else -np.log(np.maximum(start[:, chosen], _MIN_MARGINAL))
            matrix = request.matrix[chosen][:, chosen]

            def everywhere(marginals: Singles) -> Singles:
                """Return marginals of all labels at all pixels."""
                if few.shape != rows.shape:
                    every = np.zeros(rows.shape, np.float32)
                    every[:, chosen] = marginals
                    marginals = every
                return self._spread(marginals, costs.shape)

            trace = request.trace
            record = None if trace is None else lambda found: trace.record(everywhere(found))
            marginals, changes, made = iterate(
                self.filter, weights, few, matrix, request.n_iter, request.tol, first, record
            )
        return MeanFieldResult(
            marginals=everywhere(marginals),
            n_iter=made,
            converged=bool(changes) and changes[-1] < request.tol,
            changes=tuple(changes),
            energies=request.energies,
            pruned=() if leaves is None else tuple(int(label) for label in leaves.pruned),
            prune_bound=0.0 if leaves is None or not len(leaves.pruned) else leaves.bound,
        )

    def messages(self, marginals: Singles, weights: Singles) -> Singles:
        """Filter marginals (*spatial, L) with the kernels times weights (m,), without mu.

        A pixel counts as its own neighbor. The result is 0 where pixels are not valid.
        """
        gathered = np.zeros_like(marginals)
        if self.filter is None:
            return gathered
        rows = self._rows(marginals)
        found = np.empty(rows.shape, np.float32)
        one = np.empty(len(rows), np.float32)
        with threads_for(rows.size):
            tables = tables_for(self.filter, 1)
            for label in range(rows.shape[1]):
                filter_column(self.filter, rows[:, label], weights, tables, one)
                found[:, label] = one
        if self.valid is None:
            return found.reshape(marginals.shape)
        gathered[self.valid] = found
        return gathered

    def _rows(self, array: Singles) -> Singles:
        """Return the rows (n, L) of the valid pixels."""
        return array.reshape(-1, array.shape[-1]) if self.valid is None else array[self.valid]

    def _spread(self, marginals: Singles, shape: tuple[int, ...]) -> Singles:
        if self.valid is None:
            return marginals.reshape(shape)
        everywhere = np.full(shape, 1 / shape[-1], dtype=np.float32)
        everywhere[self.valid] = marginals
        return everywhere


def as_marginals(init: ArrayLike, shape: tuple[int, ...], name: str = "init") -> Singles:
    """Check initial probabilities (*spatial, L), and scale them to sum to one at each pixel."""
    array = as_costs(init, spatial_shape=shape[:-1], name=name)
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; expected that of unary, {shape}.")
    if float(array.max()) > LARGEST:  # only proportions matter
        array = (array / np.float64(array.max())).astype(np.float32)
    sums = array.sum(axis=-1, keepdims=True)
    if float(array.min()) < 0 or float(sums.min()) <= 0:
        raise ValueError(
            f"{name} holds negative numbers, or only zeros at a pixel; expected probabilities, "
            "such as the marginals of an earlier result."
        )
    marginals: Singles = array / sums
    return marginals


def check_strengths(
    weights: Singles, matrix: NDArray[np.float64], largest: float = LARGEST
) -> None:
    """Refuse kernels whose weights times the compatibility exceed ``largest``.

    Raises
    ------
    ValueError
        Their messages would overflow float32, or overrule seeds.
    """
    strongest = float(weights.max(initial=0)) * float(abs(matrix).max(initial=0))
    if strongest > largest:
        raise ValueError(
            f"a kernel's weight times the compatibility is {strongest:g}; expected at most "
            f"{largest:g}: divide unary and all weights by a common factor."
        )


def embedded(energy: Energy, model: DenseModel | None) -> DenseModel:
    """Return the model of an energy: the given one, if it fits, or a new one.

    Raises
    ------
    ValueError
        The model has other kernels, another shape or another mask.
    """
    sites = energy.sites
    n_kernels = sum(is_dense(term, sites) for term in energy.local_terms)
    if model is None and n_kernels == 0:
        return DenseModel.build((), np.zeros((*energy.shape, 1), np.float32), None, sites.valid)
    if model is None:
        return DenseModel.of_energy(energy)
    if model.shape != energy.shape or len(model.weights) != n_kernels:
        raise ValueError(
            f"model has {len(model.weights)} kernels on {model.shape} pixels, but energy has "
            f"{n_kernels} on {energy.shape}; make it with DenseModel.of_energy(energy)."
        )
    if not _same_mask(model.valid, sites.valid):
        raise ValueError(
            "model was made with another mask valid than energy has; make it with "
            "DenseModel.of_energy(energy)."
        )
    return model


def _same_mask(one: NDArray[np.bool_] | None, other: NDArray[np.bool_] | None) -> bool:
    if one is None or other is None:
        return all(mask is None or bool(mask.all()) for mask in (one, other))
    return one is other or np.array_equal(one, other)
