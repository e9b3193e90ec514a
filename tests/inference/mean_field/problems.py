"""Weights of grids for the tests of mean field."""

import numpy as np

from hybridseg.pairwise import grid_weights


def random_weights(rng, shape, connectivity, least=0.0):
    image = np.zeros(shape)
    ones = grid_weights(image, contrast=None, connectivity=connectivity, spatial_ndim=len(shape))
    return {o: rng.uniform(least, 2, w.shape) for o, w in ones.items()}
