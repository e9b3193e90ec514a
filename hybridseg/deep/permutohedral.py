"""Gaussian filters on permutohedral lattices (Adams et al. [1]_) in operations of torch.

The filter is that of `hybridseg.kernels.dense.dense_filter`: same simplices, same blur and same
normalization, so that both give the same numbers up to rounding. This one runs on every device, in
float32 and float64, and autograd differentiates it. The points of all images of a batch share one
table; a vertex belongs to one image.

References
----------
.. [1] A. Adams, J. Baek, M. A. Davis, "Fast high-dimensional filtering using the permutohedral
   lattice", Computer Graphics Forum 29(2) (Eurographics), 2010.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from hybridseg.kernels.dense.lattice_build import axis_scales

#: The bound on a key, which is an int64 number.
_MAX_KEY = 2**62


@dataclass(frozen=True, eq=False)
class TorchFilter:
    """The normalized kernel of n points, ``N^-1/2 K N^-1/2`` with the row sums N of K.

    Attributes
    ----------
    vertices : Tensor of int64, (n, d + 1)
        The table rows of the corners of each point's simplex.
    weights : Tensor, (n, d + 1)
        The barycentric coordinates, divided by the square root of the row sum of the point.
    ahead, behind : Tensor of int64, (d + 1, M + 1)
        The table rows one step ahead and one step behind each vertex along each direction. The last
        row of a table is 0 and stands for all vertices that no point touches.
    """

    vertices: Tensor
    weights: Tensor
    ahead: Tensor
    behind: Tensor

    @classmethod
    def of(cls, features: Tensor, images: Tensor | None = None) -> TorchFilter:
        """Make the lattice of features, and normalize the kernel.

        Parameters
        ----------
        features : Tensor, (n, d)
            Positions, divided by the standard deviations of the Gaussian. The weights can be
            differentiated with respect to them wherever no point lies on the border of a simplex.
        images : Tensor of int64, (n,), optional
            The number of the image of each point; points of different images do not meet.
        """
        corners, weights = _simplices(features)
        vertices, ahead = _linked(corners, images)
        n_rows = ahead.shape[1]
        behind = torch.full_like(ahead, n_rows - 1)
        behind.scatter_(1, ahead, torch.arange(n_rows, device=ahead.device).expand_as(ahead))
        behind[:, -1] = n_rows - 1
        raw = cls(vertices, weights.to(features.dtype), ahead, behind)
        sums = raw.read(raw.blur(raw.spread(torch.ones_like(raw.weights[:, :1]))))
        return cls(vertices, raw.weights / sums.sqrt(), ahead, behind)

    def spread(self, values: Tensor) -> Tensor:
        """Spread values (n, K) over the corners of their points; return a table (M + 1, K)."""
        table = values.new_zeros(self.ahead.shape[1], values.shape[1])
        for corner in range(self.vertices.shape[1]):
            rows = self.weights[:, corner : corner + 1] * values
            table = table.index_add(0, self.vertices[:, corner], rows)
        return table

    def blur(self, table: Tensor) -> Tensor:
        """Smooth a table along all directions, with the weights [1/2, 1, 1/2] along each."""
        for ahead, behind in zip(self.ahead, self.behind, strict=True):
            table = table + 0.5 * (table.index_select(0, ahead) + table.index_select(0, behind))
        return table

    def read(self, table: Tensor) -> Tensor:
        """Return for each point the weighted sum (n, K) of the rows of its corners."""
        return functional.embedding_bag(
            self.vertices, table, per_sample_weights=self.weights, mode="sum"
        )


def log_marginals(
    filters: Sequence[TorchFilter], costs: Tensor, responses: Tensor, n_iter: int
) -> Tensor:
    """Run mean field with dense kernels, and return the logarithms of the marginals.

    Parameters
    ----------
    filters : sequence of TorchFilter
        One for each kernel.
    costs : Tensor, (n, L)
    responses : Tensor, (m, L, L)
        What a message of label l' adds to the score of label l, for each kernel.
    n_iter : int

    Returns
    -------
    Tensor, (n, L)
    """
    scores = -costs
    for _ in range(n_iter):
        marginals = scores.softmax(dim=1)
        scores = -costs
        for each, matrix in zip(filters, responses, strict=True):
            scores = scores + each.read(each.blur(each.spread(marginals)) @ matrix)
    return scores.log_softmax(dim=1)


def _simplices(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return the corners of each point's simplex, and the barycentric coordinates.

    Corner k has the coordinates ``(d + 1) q + k``. The corners are integers (n, d + 1, d + 1): the
    numbers q of each corner and axis. The coordinates (n, d + 1) can be differentiated.
    """
    n_dims = features.shape[1]
    lifted = _lifted(features)
    with torch.no_grad():
        origin = lifted.round()
        excess = origin.sum(dim=1, keepdim=True)
        order = (lifted - origin).sort(dim=1, descending=True, stable=True).indices
        places = torch.arange(n_dims + 1, device=features.device, dtype=lifted.dtype)
        ranks = torch.empty_like(lifted).scatter_(1, order, places.expand_as(lifted))
        # Move to the nearest point of remainder 0 (Adams et al., section 3.2).
        turns = torch.floor((ranks + excess) / (n_dims + 1))
        origin -= turns
        ranks += excess - turns * (n_dims + 1)
        order = ranks.argsort(dim=1)
        steps = torch.arange(n_dims + 1, device=features.device)[:, None]
        back = ranks[:, None] >= (n_dims + 1 - steps)
        corners = origin.to(torch.int64)[:, None] - back.to(torch.int64)
    falling = (lifted - origin).gather(1, order)
    first = 1 - (falling[:, :1] - falling[:, -1:])
    rest = (falling[:, :-1] - falling[:, 1:]).flip(1)
    return corners, torch.cat([first, rest], dim=1)


def _lifted(features: Tensor) -> Tensor:
    """Lift points onto the hyperplane of zero sum, in units of d + 1; (n, d + 1).

    The operations and their order are those of `hybridseg.kernels.dense.simplices.lift`, so that
    points on the border of a simplex fall to the same side.
    """
    exact = torch.float32 if features.device.type == "mps" else torch.float64
    scales = torch.as_tensor(axis_scales(features.shape[1]), dtype=exact, device=features.device)
    scaled = features.to(exact) * scales
    later, rows = torch.zeros_like(scaled[:, 0]), []
    for j in range(features.shape[1], 0, -1):
        rows.append(later - j * scaled[:, j - 1])
        later = later + scaled[:, j - 1]
    return torch.stack([later, *reversed(rows)], dim=1)


def _linked(corners: Tensor, images: Tensor | None) -> tuple[Tensor, Tensor]:
    """Number the vertices, and find the neighbors ahead.

    A vertex is named by its remainder k, its first d numbers q, and its image. A step along an axis
    adds 1 to k and subtracts 1 from q there; after k = d, k becomes 0 and all numbers q except that
    of the axis rise by 1.

    Returns
    -------
    vertices : Tensor of int64, (n, d + 1)
    ahead : Tensor of int64, (d + 1, M + 1)
    """
    n_points, n_axes, _ = corners.shape
    remainders = torch.arange(n_axes, device=corners.device).expand(n_points, n_axes)
    columns = [remainders.reshape(-1, 1), corners[..., :-1].reshape(-1, n_axes - 1)]
    if images is not None:
        columns.append(images[:, None].expand(n_points, n_axes).reshape(-1, 1))
    names = torch.cat(columns, dim=1)
    least = names.amin(dim=0) - 1
    names -= least  # so that a step remains within 0 and the extent
    extents = [int(extent) + 2 for extent in names.amax(dim=0).tolist()]
    packing = _Packing.of(extents, len(names))
    vertices, tables = packing.number(names)
    n_vertices = len(tables[-1])
    first = torch.full((n_vertices,), len(names), device=names.device)
    places = torch.arange(len(names), device=names.device)
    known = names[first.scatter_reduce_(0, vertices, places, "amin")]
    ahead = torch.full((n_axes, n_vertices + 1), n_vertices, device=names.device)
    wraps = known[:, 0] + least[0] == n_axes - 1
    for axis in range(n_axes):
        step = torch.zeros_like(known)
        step[:, 0] = torch.where(wraps, 1 - n_axes, 1)
        step[:, 1:n_axes] = wraps[:, None].to(step.dtype)
        if axis < n_axes - 1:
            step[:, 1 + axis] -= 1
        ahead[axis, :-1] = packing.find(known + step, tables)
    return vertices.reshape(n_points, n_axes), ahead


@dataclass(frozen=True, eq=False)
class _Packing:
    """How the columns of names are packed into words of int64, in mixed radix.

    Attributes
    ----------
    words : list of list of (int, int)
        For each word, its columns with the number of values of each.
    """

    words: list[list[tuple[int, int]]]

    @classmethod
    def of(cls, extents: Sequence[int], n_names: int) -> _Packing:
        """Pack columns with these numbers of values; the leading digit has n_names values."""
        words: list[list[tuple[int, int]]] = [[]]
        size = n_names
        for column, extent in enumerate(extents):
            if size * extent >= _MAX_KEY:
                words.append([])
                size = n_names
            words[-1].append((column, extent))
            size *= extent
        return cls(words)

    def number(self, names: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Number different rows (n,) of names; also return the sorted keys of each word."""
        numbers, tables = torch.zeros_like(names[:, 0]), list[Tensor]()
        for word in self.words:
            keys, numbers = torch.unique(_packed(numbers, names, word), return_inverse=True)
            tables.append(keys)
        return numbers, tables

    def find(self, names: Tensor, tables: Sequence[Tensor]) -> Tensor:
        """Return the numbers (n,) of rows of names; unknown rows get the number of all rows."""
        numbers = torch.zeros_like(names[:, 0])
        known = torch.ones_like(numbers, dtype=torch.bool)
        for word, keys in zip(self.words, tables, strict=True):
            wanted = _packed(numbers, names, word)
            numbers = torch.searchsorted(keys, wanted).clamp_(max=len(keys) - 1)
            known &= keys[numbers] == wanted
        return torch.where(known, numbers, len(tables[-1]))


def _packed(numbers: Tensor, names: Tensor, word: Sequence[tuple[int, int]]) -> Tensor:
    """Return the keys of one word; the numbers of earlier words are the leading digit."""
    keys = numbers
    for column, extent in word:
        keys = keys * extent + names[:, column]
    return keys
