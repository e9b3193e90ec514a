"""Small energies on grids, for the tests of minimum cuts."""

import numpy as np

from hybridseg.pairwise import grid_weights


def case(rng, shape=(3, 4), n_labels=2, dtype=int, connectivity=1):
    """Costs and weights: integers give many ties, and floats give none."""
    image = np.zeros(shape)
    spread = 1 if dtype is int else rng.random((*shape, n_labels))
    unary = rng.integers(0, 12, (*shape, n_labels)) * spread
    weights = {
        offset: (rng.integers(0, 6, w.shape) * (1 if dtype is int else rng.random(w.shape)))
        for offset, w in grid_weights(
            image, connectivity=connectivity, spatial_ndim=len(shape)
        ).items()
    }
    return unary.astype(dtype), {o: w.astype(dtype) for o, w in weights.items()}
