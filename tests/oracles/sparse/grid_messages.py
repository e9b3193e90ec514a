"""Strips by their definition, and message passing on arcs in the order of the strips."""

import numpy as np

from tests.oracles.sparse import potts_messages


def make_strips(shape, n_lanes=8):
    """The row of cells and the lane of each pixel (N,), and the pixels in the order of passes."""
    height = -(-shape[1] // n_lanes)
    z, r, c = (part.ravel() for part in np.indices(shape))
    row, lane = z * height + r % height, r // height
    return row, lane, np.lexsort((lane, c, row))


def strip_edges(tail, head, shape, offsets):
    """The number k N + v of each arc's edge, where v is its first end."""
    numbers = []
    for ends in zip(tail, head, strict=True):
        p, q = (np.array(np.unravel_index(v, shape)) for v in sorted(ends))
        k = next(k for k, offset in enumerate(offsets) if (q - p == offset).all())
        numbers.append(k * int(np.prod(shape)) + min(ends))
    return np.array(numbers)


def to_strips(shape, values, n_cells, n_lanes=8):
    """Values (N, V) in cells (n_cells, V, lanes), with an empty cell first and after each row."""
    cells = np.zeros((n_cells, values.shape[1], n_lanes), values.dtype)
    row, lane, _ = make_strips(shape, n_lanes)
    cells[1 + row * (shape[2] + 1) + np.indices(shape)[2].ravel(), :, lane] = values
    return cells


def count_shares(first, head):
    """For each node: 1 / number of chains through it, and the same if one share is kept."""
    shares = []
    for v in range(len(first) - 1):
        arcs = head[first[v] : first[v + 1]]
        ahead, behind = (arcs > v).sum(), (arcs < v).sum()
        shares.append((1 / max(ahead, behind, 1), 1 / max(ahead + 1, behind)))
    return np.array(shares, np.float32).T


def pass_messages(*arcs):
    """The messages (E, L) of arcs in the order of the strips."""
    return potts_messages.send_messages(*arcs)


def settle_strips(*arcs):
    """Bound, height, flow and labels of arcs in the order of the strips."""
    return potts_messages.settle_flows(*arcs)
