"""Points for lattices: ordinary, far away, all equal, and in many dimensions."""

from __future__ import annotations

import numpy as np

from hybridseg.kernels.dense.dense_filter import embed
from hybridseg.kernels.dense.mean_field import Steps

EVERYTHING = Steps(read=True, spread=True, keep=True, compare=True)


def image_features(rng, shape=(9, 13), n_channels=3, width=4.0, color=20.0):
    grid = np.stack(np.indices(shape)[::-1], axis=-1) / width
    colors = rng.integers(0, 256, (*shape, n_channels)) / color
    return np.concatenate([grid, colors], axis=-1).reshape(-1, 2 + n_channels).astype(np.float32)


def stretched(n_dims, dim):
    return np.where(np.arange(n_dims) == dim, 1e5, 1).astype(np.float32)


FEATURES = {
    "one point": lambda rng: np.zeros((1, 5), np.float32),
    "one point far away": lambda rng: np.full((1, 2), -12345.6, np.float32),
    "constant": lambda rng: np.full((40, 3), 0.7, np.float32),
    "one dimension": lambda rng: np.arange(50, dtype=np.float32)[:, np.newaxis] / 3,
    "grid": lambda rng: image_features(rng, n_channels=0),
    "gray": lambda rng: image_features(rng, n_channels=1),
    "rgb": image_features,
    "narrow rgb": lambda rng: image_features(rng, width=1.0, color=1.0),
    "seven channels": lambda rng: image_features(rng, n_channels=7),
    "ten channels": lambda rng: image_features(rng, n_channels=10),
    "far apart at first": lambda rng: image_features(rng, n_channels=9) * stretched(11, 0),
    "far apart later": lambda rng: image_features(rng, n_channels=7) * stretched(9, 6),
    "two words": lambda rng: image_features(rng, n_channels=20),
    "three words": lambda rng: image_features(rng, (4, 5), n_channels=10, color=0.05),
    "far from zero": lambda rng: image_features(rng, n_channels=4, color=0.3) + np.float32(30000),
    "clustered": lambda rng: rng.standard_normal((300, 4)).astype(np.float32),
}


def filter_of(n_points, seed=0):
    """Two lattices over ``n_points`` points."""
    random = np.random.default_rng(seed)
    features = [(random.random((n_points, d)) * 4).astype(np.float32) for d in (2, 5)]
    return embed(features, n_points)
